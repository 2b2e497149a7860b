/* A safetensors file from a stranger: read as prompt embeddings or latents are, and inspected. */
#include <string.h>

#include "fuzz.h"
#include "inspect.h"
#include "weights/store.h"
#include "zimage.h"

#define NAME          "file.safetensors"
#define TENSORS_READ  4
#define LARGEST_BYTES 65536

static void read_tensor(const char *path, const zi_weight *weight)
{
    float *data = NULL;
    int64_t shape[4], count = 1;
    int32_t dimensions = 0;
    if (weight->bytes > LARGEST_BYTES)
        return;
    if (zimage_tensor_read(path, weight->name, &data, shape, &dimensions, NULL) != ZIMAGE_OK)
        return;
    for (int i = 0; i < dimensions; i++)
        count *= shape[i];
    if (count > LARGEST_BYTES)
        zi_fuzz_fail("%lld numbers of %zu bytes", (long long)count, weight->bytes);
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += data[i];
    if (sum == 0.123) /* so that the numbers are read */
        zi_fuzz_fail("a sum that is as good as impossible");
    zimage_free(data);
}

static int run(const uint8_t *data, size_t size)
{
    zi_store *store = NULL;
    const char *path = zi_fuzz_path(NAME);
    zi_fuzz_write(NAME, data, size);
    zi_fuzz_inspect(path); /* notes the error */
    if (zi_store_open_file(path, &store, NULL) != ZIMAGE_OK)
        return ZI_FUZZ_KEEP;
    for (size_t i = 0; i < zi_store_count(store) && i < TENSORS_READ; i++)
        read_tensor(path, zi_store_at(store, i));
    zi_store_free(store);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_safetensors = {
    .name = "safetensors", .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_safetensors)};
