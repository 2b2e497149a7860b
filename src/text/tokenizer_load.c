/* Opens the files of a tokenizer, and reads them in order (load.h). */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/stand_in.h"
#include "text/load.h"

/* Bytes of a merges.txt. Qwen3's has 1.7 MB. */
#define MERGES_LIMIT ((size_t)64 << 20)

/*
 * model.vocab, model.merges and the other stages. "truncation" and "padding" are not read: they belong to the program
 * that saved the file, and the reference sets both (but see zi_load_settings).
 */
static zimage_status read_tokenizer(zi_loader *l, const json_t *root, int qwen2_only)
{
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    if (!json_is_object(model))
        return zi_load_wrong(l, "model", "an object", model);
    if (!zi_is_absent(added) && !json_is_array(added))
        return zi_load_wrong(l, "added_tokens", "an array", added);
    ZI_TRY(zi_load_stages(l, root, qwen2_only));
    ZI_TRY(zi_load_vocabulary(l, "model.vocab", json_object_get(model, "vocab")));
    return zi_load_merges(l, json_object_get(model, "merges"));
}

static zimage_status begin(zi_loader *l, const char *path, zimage_error *error)
{
    *l = (zi_loader){.path = path, .error = error, .tokenizer = calloc(1, sizeof *l->tokenizer)};
    return l->tokenizer ? ZIMAGE_OK : zi_fail_memory(error, "a tokenizer", sizeof *l->tokenizer);
}

static zimage_status end(zi_loader *l, zimage_status status, zi_tokenizer **tokenizer)
{
    free(l->ids);
    free(l->declared);
    if (status == ZIMAGE_OK)
        *tokenizer = l->tokenizer;
    else
        zi_tokenizer_free(l->tokenizer);
    return status;
}

zimage_status zi_tokenizer_load(const char *path, zi_tokenizer **tokenizer, zimage_error *error)
{
    json_t *root = NULL;
    zi_loader l;
    *tokenizer = NULL;
    ZI_TRY(zi_json_load_within(path, &zi_tokenizer_limits, &root, error));
    zimage_status status = begin(&l, path, error);
    if (status == ZIMAGE_OK)
        status = read_tokenizer(&l, root, 0);
    if (status == ZIMAGE_OK)
        status = zi_declare_tokens(&l, json_object_get(root, "added_tokens"));
    if (status == ZIMAGE_OK)
        status = zi_finish_added(&l);
    status = end(&l, status, tokenizer);
    json_decref(root);
    return status;
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

enum { TOKENIZER_FILE, VOCAB_FILE, MERGES_FILE, CONFIG_FILE, MAP_FILE, ADDED_FILE, FILES };

static const struct folder_file {
    const char *name;
    const zi_json_limits *limits; /* NULL: not JSON */
} FOLDER_FILES[FILES] = {
    [TOKENIZER_FILE] = {"tokenizer.json", &zi_tokenizer_limits},
    [VOCAB_FILE] = {"vocab.json", &zi_tokenizer_limits},
    [MERGES_FILE] = {"merges.txt", NULL},
    [CONFIG_FILE] = {"tokenizer_config.json", &zi_tokenizer_config_limits},
    [MAP_FILE] = {"special_tokens_map.json", &zi_config_limits},
    [ADDED_FILE] = {"added_tokens.json", &zi_config_limits},
};

typedef struct folder_files {
    char *paths[FILES];
    json_t *json[FILES]; /* NULL: the folder has no such file, or the file is not read */
} folder_files;

zimage_status zi_find_tokenizer(const char *folder, int *found, zimage_error *error)
{
    static const int KINDS[] = {TOKENIZER_FILE, VOCAB_FILE};
    *found = 0;
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0] && !*found; i++) {
        char *path = zi_path_join(folder, FOLDER_FILES[KINDS[i]].name);
        if (!path)
            return zi_fail_memory(error, "a path", strlen(folder));
        *found = zi_file_exists(path);
        zimage_status status = zi_refuse_dangling_link(path, error);
        free(path);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

static zimage_status open_files(const char *folder, folder_files *files, zimage_error *error)
{
    for (int i = 0; i < FILES; i++) {
        files->paths[i] = zi_path_join(folder, FOLDER_FILES[i].name);
        if (!files->paths[i])
            return zi_fail_memory(error, "a path", strlen(folder));
        ZI_TRY(zi_refuse_stand_in(files->paths[i], error));
    }
    int complete = zi_file_exists(files->paths[TOKENIZER_FILE]);
    if (!complete && !zi_file_exists(files->paths[VOCAB_FILE]))
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: the folder has no tokenizer: looked for tokenizer.json, and for vocab.json with merges.txt",
                       folder);
    for (int i = 0; i < FILES; i++) {
        const zi_json_limits *limits = i == VOCAB_FILE && complete ? NULL : FOLDER_FILES[i].limits;
        if (limits && zi_file_exists(files->paths[i]))
            ZI_TRY(zi_json_load_within(files->paths[i], limits, &files->json[i], error));
    }
    return ZIMAGE_OK;
}

static void close_files(folder_files *files)
{
    for (int i = 0; i < FILES; i++) {
        free(files->paths[i]);
        json_decref(files->json[i]);
    }
}

/* A folder that only has vocab.json and merges.txt. */
static zimage_status read_vocabulary_files(zi_loader *l, const folder_files *files)
{
    char *text = NULL;
    size_t length = 0;
    ZI_TRY(zi_load_qwen2_stages(l));
    l->path = files->paths[VOCAB_FILE];
    ZI_TRY(zi_load_vocabulary(l, "the vocabulary", files->json[VOCAB_FILE]));
    l->path = files->paths[MERGES_FILE];
    ZI_TRY(zi_read_file(l->path, MERGES_LIMIT, &text, &length, l->error));
    zimage_status status = zi_load_merges_text(l, text, length);
    free(text);
    return status;
}

static zimage_status read_folder(zi_loader *l, const char *folder, int own_pattern, const folder_files *files)
{
    const zi_settings settings = {
        .config = files->json[CONFIG_FILE],
        .map = files->json[MAP_FILE],
        .added = files->json[ADDED_FILE],
        .tokenizer = files->json[TOKENIZER_FILE],
        .config_path = files->paths[CONFIG_FILE],
        .map_path = files->paths[MAP_FILE],
        .added_path = files->paths[ADDED_FILE],
        .tokenizer_path = files->paths[TOKENIZER_FILE],
    };
    ZI_TRY(zi_load_settings(l, &settings));
    ZI_TRY(zi_load_chat(l, folder, settings.config));
    l->path = settings.tokenizer_path;
    if (settings.tokenizer)
        ZI_TRY(read_tokenizer(l, settings.tokenizer, !own_pattern || !zi_settings_any_pattern(&settings)));
    else
        ZI_TRY(read_vocabulary_files(l, files));
    ZI_TRY(zi_declare_folder(l, &settings));
    l->path = folder;
    return zi_finish_added(l);
}

zimage_status zi_tokenizer_load_folder(const char *folder, int own_pattern, zi_tokenizer **tokenizer,
                                       zimage_error *error)
{
    folder_files files = {{NULL}, {NULL}};
    zi_loader l = {0};
    *tokenizer = NULL;
    zimage_status status = open_files(folder, &files, error);
    if (status == ZIMAGE_OK)
        status = begin(&l, folder, error);
    if (status == ZIMAGE_OK)
        status = read_folder(&l, folder, own_pattern, &files);
    status = end(&l, status, tokenizer);
    close_files(&files);
    return status;
}
