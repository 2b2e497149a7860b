# The CPU backend and its kernels, one file for each instruction set. Only these files get the flags of an instruction
# set, so no other code can hold an instruction that the CPU lacks. Only they may contract a * b + c to one FMA.
file(GLOB ZIMAGE_CPU_SOURCES CONFIGURE_DEPENDS src/cpu/*.c)
target_sources(zimage_objects PRIVATE ${ZIMAGE_CPU_SOURCES})

set(ZIMAGE_KERNELS_X86 kernels_avx2 kernels_avx512 packed_avx2 packed_avxvnni packed_avx512 packed_avx512vnni
    packed_avx512bf16 packed_amx)
set(ZIMAGE_KERNELS_ARM packed_neondotprod packed_neoni8mm packed_neonbf16)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(avx2 -mavx2 -mfma)
    set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl ${avx2})
    set(ZIMAGE_FLAGS_kernels_avx2 ${avx2})
    set(ZIMAGE_FLAGS_kernels_avx512 ${avx512})
    set(ZIMAGE_FLAGS_packed_avx2 ${avx2})
    set(ZIMAGE_FLAGS_packed_avxvnni ${avx2} -mavxvnni)
    set(ZIMAGE_FLAGS_packed_avx512 ${avx512})
    set(ZIMAGE_FLAGS_packed_avx512vnni ${avx512} -mavx512vnni)
    set(ZIMAGE_FLAGS_packed_avx512bf16 ${avx512} -mavx512bf16)
    set(ZIMAGE_FLAGS_packed_amx ${avx512} -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(ZIMAGE_FLAGS_packed_neondotprod -march=armv8.2-a+dotprod)
    set(ZIMAGE_FLAGS_packed_neoni8mm -march=armv8.2-a+i8mm)
    set(ZIMAGE_FLAGS_packed_neonbf16 -march=armv8.2-a+bf16)
endif()
foreach(file kernels_generic packed_generic ${ZIMAGE_KERNELS_X86} ${ZIMAGE_KERNELS_ARM})
    set_source_files_properties(src/cpu/${file}.c PROPERTIES COMPILE_OPTIONS
                                "-O3;-ffp-contract=fast;${ZIMAGE_FLAGS_${file}}")
endforeach()
if(ZIMAGE_SANITIZE) # few machines run it, and -O3 compiles for half a minute
    set_property(SOURCE src/cpu/packed_amx.c APPEND PROPERTY COMPILE_OPTIONS "-O1")
endif()
