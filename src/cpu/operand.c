/* Matrix operands that are kept packed, as packed gemms read them: ZI_OPERAND. */
#include <assert.h>
#include <string.h>

#include "cpu/packed.h"
#include "cpu/panels.h"

static int64_t chunks_of(const zi_packed_gemm *gemm, int64_t columns)
{
    return zi_ceil_div(columns, zi_numbers_per_chunk(gemm->b));
}

/* Sets the rows and columns behind the last ones to zero: nobody else writes them. */
static void clear_edges(const zi_cpu_operand *o, int64_t rows, int64_t columns)
{
    int64_t mr = o->gemm->mr, blocks = zi_ceil_div(rows, mr), block = o->chunks * mr * ZI_CHUNK;
    if (columns % zi_numbers_per_chunk(o->gemm->b) != 0)
        for (int64_t i = 0; i < blocks; i++)
            memset(o->rows + (i + 1) * block - mr * ZI_CHUNK, 0, (size_t)(mr * ZI_CHUNK));
    if (rows % mr != 0) {
        memset(o->rows + (blocks - 1) * block, 0, (size_t)block);
        if (o->scales != NULL)
            memset(o->scales + rows, 0, (size_t)(blocks * mr - rows) * sizeof(float));
    }
}

/* In int8 the scale of a row needs all of it: there what is written in parts becomes float32, and is packed by its
 * reader. */
zimage_status zi_cpu_alloc_operand_parts(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    const zi_packed_gemm *gemm = zi_packed_gemm_for(zi_cpu_of(run), w);
    if (gemm != NULL && gemm->b != ZI_NUMBER_BF16)
        return zi_host_alloc_operand(run, x, rows, columns, w);
    return zi_cpu_alloc_operand(run, x, rows, columns, w);
}

zimage_status zi_cpu_alloc_operand(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    const zi_packed_gemm *gemm = zi_packed_gemm_for(zi_cpu_of(run), w);
    if (gemm == NULL || rows <= ZI_SKINNY_TOKENS)
        return zi_host_alloc_operand(run, x, rows, columns, w);
    zi_cpu_operand operand = {.gemm = gemm, .chunks = chunks_of(gemm, columns)};
    float *place, *numbers;
    int64_t padded = zi_round_up(rows, gemm->mr);
    ZI_TRY(zi_host_floats(run, (int64_t)(sizeof(operand) / sizeof(float)), "activations", &place));
    ZI_TRY(zi_host_floats(run, padded * operand.chunks * ZI_CHUNK / 4, "activations", &numbers));
    if (gemm->b != ZI_NUMBER_BF16)
        ZI_TRY(zi_host_floats(run, padded, "activations", &operand.scales));
    operand.rows = (uint8_t *)numbers;
    if (!zi_host_rehearses(run))
        clear_edges(&operand, rows, columns);
    memcpy(place, &operand, sizeof(operand));
    *x = zi_tensor_describe(ZI_OPERAND, 2, (const int64_t[]){rows, columns});
    x->data = place;
    return ZIMAGE_OK;
}

int zi_cpu_takes_parts(const zi_tensor *x)
{
    return x->dtype != ZI_OPERAND || zi_cpu_operand_of(x)->scales == NULL;
}

void zi_cpu_pack_numbers(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t first, const float *numbers,
                         int64_t count)
{
    const zi_cpu_operand *o = zi_cpu_operand_of(x);
    int64_t mr = o->gemm->mr, chunk = (x->offset + first) / zi_numbers_per_chunk(o->gemm->b);
    assert(o->scales == NULL || count == x->ld);
    float factor = zi_row_factor(cpu->kernels, numbers, count, o->scales != NULL ? o->scales + row : NULL);
    uint8_t *place = o->rows + zi_packed_row(row, mr, o->chunks) + chunk * mr * ZI_CHUNK;
    cpu->kernels->pack(o->gemm->a, ZI_F32, numbers, count, factor, place, mr * ZI_CHUNK);
}

void zi_cpu_pack_glu(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t rows, int64_t first, int64_t columns,
                     zi_glu_sums sums)
{
    const zi_cpu_operand *o = zi_cpu_operand_of(x);
    int64_t mr = o->gemm->mr, size = zi_numbers_per_chunk(ZI_NUMBER_BF16);
    assert(o->scales == NULL);
    first += x->offset;
    for (int64_t last = row + rows; row < last;) {
        int64_t count = zi_min_int64(mr - row % mr, last - row);
        uint8_t *place = o->rows + zi_packed_row(row, mr, o->chunks) + first / size * mr * ZI_CHUNK;
        cpu->kernels->store_glu_bf16(place + first % size * 2, ZI_CHUNK, sums.gate, sums.up, sums.ldc, count, columns);
        row += count;
        sums.gate += count * sums.ldc;
        sums.up += count * sums.ldc;
    }
}

typedef struct pack_job {
    const zi_cpu *cpu;
    const zi_tensor *x;
    const float *numbers;
} pack_job;

static void pack_task(void *arg, int64_t row, int worker)
{
    const pack_job *job = arg;
    int64_t columns = job->x->shape[1];
    zi_cpu_pack_numbers(job->cpu, job->x, row, 0, job->numbers + row * columns, columns);
}

void zi_cpu_pack_all(zi_run *run, const zi_tensor *x, const float *numbers)
{
    pack_job job = {zi_cpu_of(run), x, numbers};
    zi_cpu_run_tasks(run, pack_task, &job, x->shape[0]);
}
