/* The JSON of a request from a stranger; the first byte chooses the dialect. */
#include "request.h"
#include "serve/body.h"

#define LIMIT ((size_t)256 << 10)

static int run(const uint8_t *data, size_t size)
{
    const form *read = NULL;
    fault f = {0};
    if (size == 0)
        return ZI_FUZZ_DISCARD;
    body *b = body_new(BODY_JSON, LIMIT, NULL);
    if (!b)
        zi_fuzz_fail("out of memory");
    size_t half = (size - 1) / 2;
    int ok = body_feed(b, (const char *)data + 1, half, &f) &&
             body_feed(b, (const char *)data + 1 + half, size - 1 - half, &f) && body_finish(b, &read, &f);
    if (ok)
        check_request(read, (serve_dialect)(data[0] % DIALECTS));
    else if (f.code != FAULT_INVALID_JSON || !f.message[0])
        zi_fuzz_fail("refused without a sentence");
    body_free(b);
    return ZI_FUZZ_KEEP;
}

/* Changes the JSON; now and then the dialect. */
static size_t mutate(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
    if (size < 2 || capacity < 2)
        return size;
    if (seed % 8 == 0)
        data[0] = (uint8_t)(seed >> 8);
#ifdef ZI_FUZZ_TARGET
    return 1 + zi_fuzz_mutate_json(data + 1, size - 1, capacity - 1, seed);
#else
    return size;
#endif
}

const zi_fuzz_target zi_fuzz_fields = {.name = "fields", .run = run, .mutate = mutate};
