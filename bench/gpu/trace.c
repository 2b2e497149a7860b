/*
 * Records the times of a program's kernels and copies without changing the program: CUDA loads this library into it.
 *
 *   gcc -shared -fPIC -O2 -I/usr/local/cuda/include bench/gpu/trace.c -o trace.so -L/usr/local/cuda/lib64 -lcupti
 *   export CUDA_INJECTION64_PATH=$PWD/trace.so TRACE=trace.txt
 *   zimage bench --synthetic z-image-turbo --device cuda --layers 8 -q
 *   bench/gpu/trace.py trace.txt
 *
 * A line for each kernel: K start nanoseconds grid name; for each copy: C start nanoseconds bytes.
 */
#include <cupti.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BUFFER_BYTES ((size_t)8 << 20)

static FILE *out;

static void give_buffer(uint8_t **buffer, size_t *size, size_t *max_records)
{
    *buffer = aligned_alloc(8, BUFFER_BYTES);
    *size = *buffer != NULL ? BUFFER_BYTES : 0;
    *max_records = 0;
}

static void write_record(const CUpti_Activity *record)
{
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        const CUpti_ActivityKernel10 *k = (const CUpti_ActivityKernel10 *)(const void *)record;
        fprintf(out, "K %llu %llu %d,%d,%d %.120s\n", (unsigned long long)k->start,
                (unsigned long long)(k->end - k->start), k->gridX, k->gridY, k->gridZ, k->name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
        const CUpti_ActivityMemcpy6 *c = (const CUpti_ActivityMemcpy6 *)(const void *)record;
        fprintf(out, "C %llu %llu %llu\n", (unsigned long long)c->start, (unsigned long long)(c->end - c->start),
                (unsigned long long)c->bytes);
    }
}

static void take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    CUpti_Activity *record = NULL;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS)
        write_record(record);
    free(buffer);
}

static void finish(void)
{
    (void)cuptiActivityFlushAll(1);
    (void)fclose(out);
}

/* CUDA calls this function. */
int InitializeInjection(void)
{
    const char *path = getenv("TRACE");
    out = fopen(path != NULL ? path : "trace.txt", "w");
    if (out == NULL || cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY) != CUPTI_SUCCESS) {
        fprintf(stderr, "trace: CUPTI can't trace here\n");
        exit(1);
    }
    atexit(finish);
    return 1;
}
