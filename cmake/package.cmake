# The packages that `cpack -G DEB` makes of a build folder (packaging/deb.sh does all of it):
#   zimage         the program, its model, manual page and service, and the shared library
#   libzimage-dev  what a program that uses the library is built with
# A library for GPUs is not in them: what it needs is not in Debian.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME zimage)
set(CPACK_PACKAGE_CONTACT "the authors of zimage <zimage@localhost>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL Unspecified dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)

set(CPACK_DEBIAN_UNSPECIFIED_PACKAGE_NAME zimage)
set(CPACK_DEBIAN_UNSPECIFIED_PACKAGE_SECTION graphics)
set(CPACK_DEBIAN_UNSPECIFIED_DESCRIPTION "A program, a server with a web page, and a C library:
 they make images of texts.
 A small model that draws emoji is included.")
set(scripts ${PROJECT_SOURCE_DIR}/packaging/debian)
set(CPACK_DEBIAN_UNSPECIFIED_PACKAGE_CONTROL_EXTRA ${scripts}/postinst ${scripts}/prerm ${scripts}/postrm
    ${scripts}/triggers)

set(CPACK_DEBIAN_DEV_PACKAGE_NAME libzimage-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "zimage (= ${PROJECT_VERSION}), libpng-dev, zlib1g-dev, libjpeg-dev, libwebp-dev,
 libpcre2-dev, libutf8proc-dev, libjansson-dev")
set(CPACK_DEBIAN_DEV_DESCRIPTION "Header, static library, files of CMake and pkg-config:
 what a C program that makes images with zimage is built with.")
include(CPack)
