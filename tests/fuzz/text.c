/*
 * A text from a stranger, for a toy's tokenizer and for the published one of Qwen3. The first byte chooses the
 * tokenizer and the template.
 */
#include "fuzz.h"
#include "qwen3_tokenizer.h"

#define TOY ZIMAGE_TEST_DATA "/tiny"

static zimage_tokenizer *tokenizers[2];

static void close_tokenizers(void)
{
    zimage_tokenizer_close(tokenizers[0]);
    zimage_tokenizer_close(tokenizers[1]);
}

static void prepare(void)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const char *path = zi_fuzz_path("tokenizer.json");
    zi_fuzz_clear();
    write_qwen3(path);
    if (zimage_tokenizer_open(TOY, &tokenizers[0], &error) != ZIMAGE_OK ||
        zimage_tokenizer_open(path, &tokenizers[1], &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    atexit(close_tokenizers);
}

static int run(const uint8_t *data, size_t size)
{
    int32_t *ids = NULL;
    size_t count = 0;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (size == 0)
        return ZI_FUZZ_DISCARD;
    zimage_status status = zimage_tokenizer_encode(tokenizers[data[0] & 1], (zimage_template)(data[0] >> 1 & 3),
                                                   (const char *)data + 1, size - 1, &ids, &count, &error);
    if (status == ZIMAGE_OK ? count > 16 + 4 * size : ids != NULL || !error.message[0])
        zi_fuzz_fail("%zu ids of %zu bytes, \"%s\"", count, size, error.message);
    zi_fuzz_note(status == ZIMAGE_OK ? "ids" : error.message);
    zimage_free(ids);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_text = {.name = "text", .prepare = prepare, .run = run};
