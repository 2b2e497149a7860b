/* The AMX families over emulated tiles. */
#define ZI_AMX_EMULATED
#define zi_cpu_packed_bf16_amx emulated_bf16_amx
#define zi_cpu_packed_int8_amx emulated_int8_amx
#include "cpu/packed_amx.c"
