#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "fuzz.h"

#define NAME_LENGTH_MAX 120
#define TOY_FILE_LIMIT  65536

/* Whether the file lies below the folder whatever the name is. */
static int is_inside(const char *name)
{
    return *name && *name != '/' && !strstr(name, "..") && !strstr(name, "//") && name[strlen(name) - 1] != '/' &&
           strlen(name) <= NAME_LENGTH_MAX;
}

/* The number up to the line feed; *end is behind it. 0: there is no line feed, or no number. */
static int read_length(const uint8_t *data, const uint8_t *stop, size_t *length, const uint8_t **end)
{
    *length = 0;
    for (const uint8_t *c = data; c < stop && c < data + 9; c++) {
        if (*c == '\n') {
            *end = c + 1;
            return c > data;
        }
        if (*c < '0' || *c > '9')
            return 0;
        *length = 10 * *length + (size_t)(*c - '0');
    }
    return 0;
}

size_t zi_fuzz_files(const uint8_t *data, size_t size, zi_fuzz_file files[ZI_FUZZ_FILES_MAX])
{
    const uint8_t *stop = data + size;
    size_t count = 0;
    while (data < stop && count < ZI_FUZZ_FILES_MAX) {
        zi_fuzz_file *file = &files[count];
        const uint8_t *zero = memchr(data, 0, (size_t)(stop - data));
        file->name = (const char *)data;
        if (!zero || !is_inside(file->name) || !read_length(zero + 1, stop, &file->size, &file->data))
            break;
        if (file->size > (size_t)(stop - file->data))
            file->size = (size_t)(stop - file->data);
        data = file->data + file->size;
        count++;
    }
    return count;
}

#define FOLDERS  2 /* toy, toy-klein */
#define BASE_MAX 8

static zi_fuzz_file base[FOLDERS][BASE_MAX];
static size_t base_count[FOLDERS];

static void load_folder(int klein)
{
    static const char *const names[] = {"model_index.json",
                                        "scheduler/scheduler_config.json",
                                        "transformer/config.json",
                                        "vae/config.json",
                                        "text_encoder/config.json",
                                        "tokenizer/tokenizer.json",
                                        "tokenizer/tokenizer_config.json"};
    size_t count = sizeof names / sizeof *names - (klein ? 0 : 1); /* the toy has no tokenizer_config.json */
    for (size_t i = 0; base_count[klein] == i && i < count; i++) {
        char path[PATH_MAX], *text = NULL;
        size_t length = 0;
        zimage_error error = ZIMAGE_ERROR_INIT;
        snprintf(path, sizeof path, "%s%s/%s", ZI_FUZZ_TOY, klein ? "-klein" : "", names[i]);
        if (zi_read_file(path, TOY_FILE_LIMIT, &text, &length, &error) != ZIMAGE_OK)
            zi_fuzz_fail("%s", error.message);
        /* The text lives as long as the process. */
        base[klein][base_count[klein]++] = (zi_fuzz_file){names[i], (const uint8_t *)text, length};
    }
}

void zi_fuzz_load_base(void)
{
    load_folder(0);
    load_folder(1);
}

int zi_fuzz_is_klein(const zi_fuzz_file *files, size_t count)
{
    return zi_fuzz_find(files, count, "@klein") != NULL;
}

size_t zi_fuzz_base(int klein, const zi_fuzz_file **files)
{
    *files = base[klein];
    return base_count[klein];
}

size_t zi_fuzz_model_files(const uint8_t *data, size_t size, zi_fuzz_file files[ZI_FUZZ_FILES_MAX])
{
    size_t count = zi_fuzz_files(data, size, files), kept = 0;
    int klein = zi_fuzz_is_klein(files, count);
    for (size_t i = 0; i < base_count[klein] && count < ZI_FUZZ_FILES_MAX; i++)
        if (!zi_fuzz_find(files, count, base[klein][i].name))
            files[count++] = base[klein][i];
    for (size_t i = 0; i < count; i++)
        if (files[i].size > 0)
            files[kept++] = files[i];
    return kept;
}

const zi_fuzz_file *zi_fuzz_find(const zi_fuzz_file *files, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    return NULL;
}

void zi_fuzz_write_all(const zi_fuzz_file *files, size_t count)
{
    zi_fuzz_clear();
    for (size_t i = 0; i < count; i++)
        if (files[i].name[0] != '@')
            zi_fuzz_write(files[i].name, files[i].data, files[i].size);
}
