/* The public tokenizer: finds the files and hands on. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/stack.h"
#include "base/stand_in.h"
#include "text/tokenizer.h"

struct zimage_tokenizer {
    zi_tokenizer *inner;
};

/* A tokenizer's folder, or a model folder with tokenizer/. */
static zimage_status load_folder(const char *path, zi_tokenizer **tokenizer, zimage_error *error)
{
    int found = 0;
    ZI_TRY(zi_find_tokenizer(path, &found, error));
    if (found)
        return zi_tokenizer_load_folder(path, 1, tokenizer, error);
    char *folder = zi_path_join(path, "tokenizer");
    if (!folder)
        return zi_fail_memory(error, "a path", strlen(path));
    zimage_status status = zi_find_tokenizer(folder, &found, error);
    if (status == ZIMAGE_OK && !found)
        status =
            zi_fail(error, ZIMAGE_ERROR_FILE,
                    "%s: the folder has no tokenizer: looked for tokenizer.json, tokenizer/tokenizer.json, and for "
                    "vocab.json with merges.txt in both places",
                    path);
    if (status == ZIMAGE_OK)
        status = zi_tokenizer_load_folder(folder, 1, tokenizer, error);
    free(folder);
    return status;
}

static zimage_status load(const char *path, zi_tokenizer **tokenizer, zimage_error *error)
{
    ZI_TRY(zi_refuse_stand_in(path, error));
    if (zi_file_exists(path))
        return zi_tokenizer_load(path, tokenizer, error);
    if (zi_folder_exists(path))
        return load_folder(path, tokenizer, error);
    return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: no such file or folder; expected a tokenizer.json or a model folder",
                   path);
}

zimage_status zimage_tokenizer_open(const char *path, zimage_tokenizer **tokenizer, zimage_error *error)
{
    if (!tokenizer)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "tokenizer: NULL, expected where to put it");
    *tokenizer = NULL;
    if (!path || !*path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path: %s, expected a tokenizer.json or a model folder",
                       path ? "empty" : "NULL");
    ZI_TRY(zi_stack_check(error));
    zimage_tokenizer *made = calloc(1, sizeof *made);
    if (!made)
        return zi_fail_memory(error, "a tokenizer", sizeof *made);
    zimage_status status = load(path, &made->inner, error);
    if (status == ZIMAGE_OK)
        *tokenizer = made;
    else
        free(made);
    return status;
}

void zimage_tokenizer_close(zimage_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    zi_tokenizer_free(tokenizer->inner);
    free(tokenizer);
}

zimage_status zimage_tokenizer_encode(const zimage_tokenizer *tokenizer, zimage_template template_kind,
                                      const char *text, size_t length, int32_t **ids, size_t *count,
                                      zimage_error *error)
{
    if (ids)
        *ids = NULL;
    if (count)
        *count = 0;
    if (!tokenizer || !ids || !count || (!text && length))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "tokenizer, text, ids and count: NULL, expected all four");
    return zi_tokenizer_encode_prompt(tokenizer->inner, template_kind, text ? text : "", length, ids, count, error);
}
