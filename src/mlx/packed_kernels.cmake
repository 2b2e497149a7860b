# The kernel for 4-bit weights as machine code of compute capability 9.0, in the source file FILE:
#   cmake -DNVCC=... -DBIN2C=... -DSOURCE=folder with src and include -DFILE=... -P packed_kernels.cmake
get_filename_component(folder ${FILE} DIRECTORY)
set(text "/* Made by packed_kernels.cmake. */\n#include \"mlx/packed.h\"\n\n")
set(table "")
file(STRINGS ${SOURCE}/src/cuda/packed.h line REGEX "^#define PACKED_EACH_TOKENS")
string(REGEX MATCHALL "[0-9]+" all_tokens "${line}")
foreach(tokens ${all_tokens})
    foreach(gated 0 1)
        set(name zimage_packed_${tokens}_${gated})
        execute_process(
            COMMAND ${NVCC} -std=c++17 -O3 -arch=sm_90a -cubin -I${SOURCE}/src -I${SOURCE}/include -DNAME=${name}
                    -DTOKENS=${tokens} -DGATED=${gated} -o ${folder}/${name}.cubin ${SOURCE}/src/mlx/packed_kernels.cu
            COMMAND_ERROR_IS_FATAL ANY)
        execute_process(COMMAND ${BIN2C} --const --static --name ${name} ${folder}/${name}.cubin OUTPUT_VARIABLE code
                        COMMAND_ERROR_IS_FATAL ANY)
        string(APPEND text "${code}\n")
        string(APPEND table "    {${tokens}, ${gated}, \"${name}\", ${name}, sizeof ${name}},\n")
    endforeach()
endforeach()
string(APPEND text "const zi_packed_code zi_packed_codes[] = {\n${table}};\n"
                   "const int zi_packed_code_count = sizeof zi_packed_codes / sizeof *zi_packed_codes;\n")
file(WRITE ${FILE} "${text}")
