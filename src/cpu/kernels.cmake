# The CPU table and its kernels, one file a tier. Only the kernel files see a tier's flags, so nothing else can hold an
# instruction that the processor lacks; only they may contract a * b + c to one FMA.
file(GLOB ZIMAGE_CPU_SOURCES CONFIGURE_DEPENDS src/cpu/*.c)
target_sources(zimage_objects PRIVATE ${ZIMAGE_CPU_SOURCES})

set(ZIMAGE_FLAGS_generic "")
set(ZIMAGE_FLAGS_avx2 "")
set(ZIMAGE_FLAGS_avx512 "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(ZIMAGE_FLAGS_avx2 -mavx2 -mfma)
    set(ZIMAGE_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma)
endif()
foreach(tier generic avx2 avx512)
    set_source_files_properties(src/cpu/kernels_${tier}.c PROPERTIES COMPILE_OPTIONS
                                "-O3;-ffp-contract=fast;${ZIMAGE_FLAGS_${tier}}")
endforeach()
