/*
 * Where a folder keeps its chat template. As transformers has it: additional_chat_templates/NAME.jinja and
 * chat_template.jinja come before chat_template of tokenizer_config.json, and of several the one called "default"
 * counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "text/load.h"

/* Bytes of a template. Qwen3's has 4 kB. */
#define TEMPLATE_LIMIT ((size_t)1 << 20)

/* Jinja reads the ends of lines of every system as "\n". */
static void unify_lines(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from == '\r' && from[1] == '\n')
            continue;
        *to++ = *from == '\r' ? '\n' : *from;
    }
    *to = '\0';
}

static zimage_status keep(const zi_loader *l, const char *text, const char *where, const char *field)
{
    size_t size = strlen(where) + strlen(field) + 3;
    l->tokenizer->chat = strdup(text);
    l->tokenizer->chat_name = malloc(size);
    if (!l->tokenizer->chat || !l->tokenizer->chat_name)
        return zi_fail_memory(l->error, "a chat template", strlen(text) + size);
    unify_lines(l->tokenizer->chat);
    snprintf(l->tokenizer->chat_name, size, "%s%s%s", where, *field ? ": " : "", field);
    return ZIMAGE_OK;
}

/* Keeps the template of a file, if there is such a file. */
static zimage_status try_file(const zi_loader *l, const char *folder, const char *name)
{
    char *path = zi_path_join(folder, name), *text = NULL;
    size_t length = 0;
    if (!path)
        return zi_fail_memory(l->error, "a path", strlen(folder));
    zimage_status status = ZIMAGE_OK;
    if (zi_file_exists(path)) {
        status = zi_read_file(path, TEMPLATE_LIMIT, &text, &length, l->error);
        if (status == ZIMAGE_OK && strlen(text) != length)
            status = zi_fail(l->error, ZIMAGE_ERROR_FORMAT, "%s holds a zero byte, expected a chat template", path);
        if (status == ZIMAGE_OK)
            status = keep(l, text, path, "");
    }
    free(text);
    free(path);
    return status;
}

/* Of several templates, the one called "default". */
static const json_t *find_default(const json_t *templates)
{
    if (json_is_object(templates))
        return json_object_get(templates, "default");
    for (size_t i = json_array_size(templates); i > 0; i--) {
        const json_t *entry = json_array_get(templates, i - 1);
        if (zi_is_text(json_object_get(entry, "name"), "default"))
            return json_object_get(entry, "template");
    }
    return NULL;
}

static zimage_status try_config(const zi_loader *l, const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");
    if (zi_is_absent(value))
        return ZIMAGE_OK;
    const json_t *text = json_is_string(value) ? value : find_default(value);
    if (!json_is_string(text))
        return zi_load_wrong(l, "chat_template", "a string, or several templates with one called \"default\"", value);
    return keep(l, json_string_value(text), l->path, "chat_template");
}

zimage_status zi_load_chat(zi_loader *l, const char *folder, const json_t *config)
{
    static const char FURTHER[] = "additional_chat_templates";
    ZI_TRY(try_file(l, folder, "additional_chat_templates/default.jinja"));
    if (!l->tokenizer->chat)
        ZI_TRY(try_file(l, folder, "chat_template.jinja"));
    if (l->tokenizer->chat)
        return ZIMAGE_OK;
    char *further = zi_path_join(folder, FURTHER);
    if (!further)
        return zi_fail_memory(l->error, "a path", strlen(folder));
    int exists = zi_folder_exists(further);
    free(further);
    if (exists)
        return zi_fail(l->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s has %s, but neither default.jinja there nor chat_template.jinja, expected one of them",
                       folder, FURTHER);
    return try_config(l, config);
}
