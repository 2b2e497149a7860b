# Cross-building for arm64 Linux with Debian's compiler and emulator (gcc-aarch64-linux-gnu, qemu-user):
#   cmake -B build/arm64 -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux.cmake
# with PKG_CONFIG_LIBDIR and PKG_CONFIG_SYSROOT_DIR saying where the arm64 libraries are; tests/arm64.sh does so.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
