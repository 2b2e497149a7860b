/* Activations that are stored as packed products read them. */
#include <string.h>

#include "cpu/packed.h"

static int64_t chunks_of(int64_t columns)
{
    return zi_ceil_div(columns, zi_cpu_numbers_a_chunk(ZI_NUMBER_BF16));
}

/* Zeros where no row and no column will be written. */
static void clear_edges(const zi_cpu *cpu, zi_tensor *x)
{
    int64_t rows = x->shape[0], columns = x->shape[1], mr = cpu->bf16->mr, chunks = chunks_of(columns);
    int64_t blocks = zi_ceil_div(rows, mr), block = chunks * mr * ZI_CHUNK;
    uint8_t *data = x->data;
    if (columns % zi_cpu_numbers_a_chunk(ZI_NUMBER_BF16) != 0)
        for (int64_t i = 0; i < blocks; i++)
            memset(data + (i + 1) * block - mr * ZI_CHUNK, 0, (size_t)(mr * ZI_CHUNK));
    if (rows % mr != 0)
        memset(data + (blocks - 1) * block, 0, (size_t)block);
}

zimage_status zi_cpu_alloc_operand(zi_ops *ops, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    const zi_cpu *cpu = zi_cpu_of(ops);
    if (cpu->bf16 == NULL || rows <= ZI_FEW_TOKENS || zi_cpu_family(cpu, w) != cpu->bf16)
        return zi_host_alloc_operand(ops, x, rows, columns, w);
    float *data;
    int64_t bytes = zi_round_up(rows, cpu->bf16->mr) * chunks_of(columns) * ZI_CHUNK;
    ZI_TRY(zi_host_floats(ops, bytes / 4, "activations", &data));
    *x = (zi_tensor){.dtype = ZI_OPERAND, .dims = 2, .shape = {rows, columns}, .data = data};
    clear_edges(cpu, x);
    return ZIMAGE_OK;
}

void zi_cpu_pack_numbers(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t first, const float *numbers,
                         int64_t count)
{
    int64_t mr = cpu->bf16->mr, chunk = first / zi_cpu_numbers_a_chunk(ZI_NUMBER_BF16);
    uint8_t *place = (uint8_t *)x->data + zi_packed_row(row, mr, chunks_of(x->shape[1])) + chunk * mr * ZI_CHUNK;
    cpu->kernels->pack(ZI_NUMBER_BF16, ZI_F32, numbers, count, 1, place, mr * ZI_CHUNK);
}

void zi_cpu_pack_glu(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t rows, int64_t first, int64_t columns,
                     const float *gate, const float *up, int64_t ldc)
{
    int64_t mr = cpu->bf16->mr, size = zi_cpu_numbers_a_chunk(ZI_NUMBER_BF16), chunks = chunks_of(x->shape[1]);
    for (int64_t last = row + rows; row < last;) {
        int64_t count = zi_min(mr - row % mr, last - row);
        uint8_t *place = (uint8_t *)x->data + zi_packed_row(row, mr, chunks) + first / size * mr * ZI_CHUNK;
        cpu->kernels->store_glu_bf16(place + first % size * 2, ZI_CHUNK, gate, up, ldc, count, columns);
        row += count;
        gate += count * ldc;
        up += count * ldc;
    }
}
