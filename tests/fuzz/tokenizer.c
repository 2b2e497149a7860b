/* A folder with a tokenizer from a stranger; the file "@text" holds what it encodes. */
#include "fuzz.h"
#include "zimage.h"

#define MOST_IDS 100000

static void encode(const zimage_tokenizer *tokenizer, zimage_template kind, const zi_fuzz_file *text)
{
    static const zi_fuzz_file usual = {
        "", (const uint8_t *)"A cat's 12 caf\xc3\xa9s\r\n  \xf0\x9f\x90\xb1<|im_end|> e\xcc\x81 ", 40};
    int32_t *ids = NULL;
    size_t count = 0;
    zimage_error error = ZIMAGE_ERROR_INIT;
    text = text ? text : &usual;
    zimage_status status =
        zimage_tokenizer_encode(tokenizer, kind, (const char *)text->data, text->size, &ids, &count, &error);
    if (status == ZIMAGE_OK ? count > MOST_IDS : ids != NULL || !error.message[0])
        zi_fuzz_fail("%zu ids, \"%s\"", count, error.message);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0)
            zi_fuzz_fail("id %d", ids[i]);
    zi_fuzz_note(status == ZIMAGE_OK ? "ids" : error.message);
    zimage_free(ids);
}

static int run(const uint8_t *data, size_t size)
{
    zi_fuzz_file files[ZI_FUZZ_FILES_MAX];
    size_t count = zi_fuzz_files(data, size, files);
    zimage_tokenizer *tokenizer = NULL;
    zi_fuzz_write_all(files, count);
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zimage_tokenizer_open(zi_fuzz_folder_path(), &tokenizer, &error) != ZIMAGE_OK) {
        zi_fuzz_note(error.message);
        return ZI_FUZZ_KEEP;
    }
    zimage_template kind;
    for (int i = 0; zimage_template_parse(zimage_template_name((zimage_template)i), &kind); i++) {
        encode(tokenizer, kind, NULL);
        encode(tokenizer, kind, zi_fuzz_find(files, count, "@text"));
    }
    zimage_tokenizer_close(tokenizer);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_tokenizer = {
    .name = "tokenizer", .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_container)};
