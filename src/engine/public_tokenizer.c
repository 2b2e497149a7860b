/* The public tokenizer: finds the tokenizer.json and hands on. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "text/tokenizer.h"

struct zimage_tokenizer {
    zi_tokenizer *inner;
};

static zimage_status no_path_memory(zimage_error *error, const char *path)
{
    return zi_fail_memory(error, "a path", strlen(path));
}

/* *file: path itself, path/tokenizer.json or path/tokenizer/tokenizer.json; free() it. */
static zimage_status find_file(const char *path, char **file, zimage_error *error)
{
    static const char *const NAMES[] = {"tokenizer.json", "tokenizer/tokenizer.json"};
    if (zi_file_exists(path)) {
        *file = strdup(path);
        return *file ? ZIMAGE_OK : no_path_memory(error, path);
    }
    if (!zi_folder_exists(path))
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: no such file or folder; expected a tokenizer.json or a model folder", path);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        *file = zi_path_join(path, NAMES[i]);
        if (!*file)
            return no_path_memory(error, path);
        if (zi_file_exists(*file))
            return ZIMAGE_OK;
        free(*file);
        *file = NULL;
    }
    return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: the folder has no tokenizer: looked for %s and %s", path, NAMES[0],
                   NAMES[1]);
}

zimage_status zimage_tokenizer_open(const char *path, zimage_tokenizer **tokenizer, zimage_error *error)
{
    if (!tokenizer)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "tokenizer: NULL, expected where to put it");
    *tokenizer = NULL;
    if (!path || !*path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path: %s, expected a tokenizer.json or a model folder",
                       path ? "empty" : "NULL");
    zimage_tokenizer *made = calloc(1, sizeof *made);
    if (!made)
        return zi_fail_memory(error, "a tokenizer", sizeof *made);
    char *file = NULL;
    zimage_status status = find_file(path, &file, error);
    if (status == ZIMAGE_OK)
        status = zi_tokenizer_load(file, &made->inner, error);
    free(file);
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
