# What `cmake --install BUILD [--prefix X]` copies. The installed files name no folder, so X can be chosen when
# installing, and moved later. The exception is a CMAKE_INSTALL_LIBDIR that is an absolute path.
include(CMakePackageConfigHelpers)
string(REPLACE ";" " " ZIMAGE_PC_MODULES "${ZIMAGE_MODULES}")

# ---- the library: header, shared and static library, and how to find them ----
# COMPONENT dev: what only developers need, a Debian package of its own (package.cmake)
install(TARGETS zimage_shared EXPORT zimageShared LIBRARY NAMELINK_COMPONENT dev
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS zimage_static EXPORT zimageStatic ARCHIVE COMPONENT dev
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES include/zimage.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# find_package(zimage): the targets zimage::shared, zimage::static, and zimage::zimage, which is the shared one
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/zimage)
install(EXPORT zimageShared NAMESPACE zimage:: DESTINATION ${package_folder} COMPONENT dev)
install(EXPORT zimageStatic NAMESPACE zimage:: DESTINATION ${package_folder} COMPONENT dev)
configure_package_config_file(cmake/zimageConfig.cmake.in zimageConfig.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(zimageConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/zimageConfig.cmake ${PROJECT_BINARY_DIR}/zimageConfigVersion.cmake
        DESTINATION ${package_folder} COMPONENT dev)

# pkg-config: zimage, and zimage-static, which links libzimage.a
set(ZIMAGE_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
set(ZIMAGE_PC_INCLUDEDIR ${CMAKE_INSTALL_FULL_INCLUDEDIR})
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}") # else the place of the .pc files does not say where the prefix is
    file(RELATIVE_PATH up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
    string(REGEX REPLACE "/$" "" up ${up})
    set(ZIMAGE_PC_PREFIX "\${pcfiledir}/${up}")
    if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
        set(ZIMAGE_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
    endif()
endif()
foreach(file zimage.pc zimage-static.pc)
    configure_file(cmake/${file}.in ${file} @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/${file} DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
endforeach()

# ---- the program: its manual page, completions and model ----
if(ZIMAGE_PROGRAM)
    install(TARGETS zimage_program)
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        install(FILES packaging/zimage.service DESTINATION lib/systemd/system)
    endif()
    install(DIRECTORY models/emoji DESTINATION ${CMAKE_INSTALL_DATADIR}/zimage/models OPTIONAL)
    if(ZIMAGE_PRINTED)
        install(FILES ${PROJECT_BINARY_DIR}/zimage.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
        install(FILES ${PROJECT_BINARY_DIR}/zimage.bash RENAME zimage
                DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
        install(FILES ${PROJECT_BINARY_DIR}/_zimage DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
        install(FILES ${PROJECT_BINARY_DIR}/zimage.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
    endif()
endif()
