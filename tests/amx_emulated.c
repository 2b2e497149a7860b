/* The packed gemms of src/cpu/packed_amx.c, in emulated tiles. */
#define ZI_AMX_EMULATED
#define zi_packed_gemm_bf16_amx emulated_bf16_amx
#define zi_packed_gemm_int8_amx emulated_int8_amx
#include "cpu/packed_amx.c"
