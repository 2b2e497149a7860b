# Cross-building for macOS with zig as compiler; tools/macos-check.sh does so and sets these variables:
#   ZIMAGE_MACOS_CPU    arm64 or x86_64
#   ZIMAGE_MACOS_TOOLS  a folder of scripts cc, c++ and ar that start zig
#   ZIMAGE_MACOS_ROOT   a folder with the headers of the libraries (include), and with stubs of them to link (lib)
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR $ENV{ZIMAGE_MACOS_CPU})
set(CMAKE_C_COMPILER $ENV{ZIMAGE_MACOS_TOOLS}/cc)
set(CMAKE_CXX_COMPILER $ENV{ZIMAGE_MACOS_TOOLS}/c++)
set(CMAKE_AR $ENV{ZIMAGE_MACOS_TOOLS}/ar CACHE FILEPATH "")
set(CMAKE_RANLIB : CACHE FILEPATH "") # zig's ar writes the table of symbols
set(CMAKE_INSTALL_NAME_TOOL : CACHE FILEPATH "") # CMake wants one; it is for installing
set(CMAKE_OSX_SYSROOT "" CACHE PATH "") # zig has its own
set(CMAKE_FIND_ROOT_PATH $ENV{ZIMAGE_MACOS_ROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
