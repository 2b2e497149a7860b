#include "hub/names.h"

#include <stdio.h>
#include <string.h>

#include "zimage.h"

#define PART_MAX    96  /* bytes of an organisation's or a model's name */
#define FOLDER_PART 255 /* bytes of one part of a path: the limit of most file systems */
#define LETTERS     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

/* ---- models and revisions ---- */

static int is_edge(char c)
{
    return c == '.' || c == '-';
}

static int is_id_part(const char *text, size_t length)
{
    return length >= 1 && length <= PART_MAX && strspn(text, LETTERS) >= length && !is_edge(text[0]) &&
           !is_edge(text[length - 1]);
}

int hub_is_id(const char *text)
{
    size_t organisation = strcspn(text, "/"), all = strlen(text);
    return all < HUB_ID_MAX && organisation < all && is_id_part(text, organisation) &&
           is_id_part(text + organisation + 1, all - organisation - 1) && !strstr(text, "--") && !strstr(text, "..");
}

/* Calls a path's parts by their beginning and length; 0: one of them is no good. */
static int all_parts(const char *path, int (*is_good)(const char *part, size_t length))
{
    for (size_t length;; path += length + 1) {
        length = strcspn(path, "/");
        if (!is_good(path, length))
            return 0;
        if (!path[length])
            return 1;
    }
}

static int is_plain_part(const char *part, size_t length)
{
    int is_dots = length <= 2 && !strncmp(part, "..", length);
    return length >= 1 && length <= FOLDER_PART && !is_dots;
}

int hub_is_revision(const char *text)
{
    return strlen(text) < HUB_REVISION_MAX && text[0] != '-' && text[strspn(text, LETTERS "/")] == 0 &&
           all_parts(text, is_plain_part);
}

static int is_hexadecimal(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

int hub_is_commit(const char *text)
{
    return is_hexadecimal(text, HUB_COMMIT_MAX - 1);
}

int hub_is_etag(const char *text)
{
    return is_hexadecimal(text, 40) || is_hexadecimal(text, 64);
}

int hub_split_id(const char *text, char id[HUB_ID_MAX], char revision[HUB_REVISION_MAX])
{
    size_t length = strcspn(text, "@");
    const char *behind = text[length] ? text + length + 1 : "";
    if (length >= HUB_ID_MAX || strlen(behind) >= HUB_REVISION_MAX)
        return 0;
    snprintf(id, HUB_ID_MAX, "%.*s", (int)length, text);
    snprintf(revision, HUB_REVISION_MAX, "%s", behind);
    return hub_is_id(id) && (!text[length] || hub_is_revision(revision));
}

/* ---- files ---- */

/* What zimage_printable would write in another way could command a terminal, or is not UTF-8. */
int hub_is_file(const char *path)
{
    size_t length = strlen(path);
    return length >= 1 && length < HUB_FILE_MAX && !strchr(path, '\\') && zimage_printable(path, NULL, 0) == length &&
           !strpbrk(path, "\n\r\t") && all_parts(path, is_plain_part);
}

static int ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), last = strlen(end);
    return length >= last && !strcmp(text + length - last, end);
}

static int begins_with(const char *text, const char *beginning)
{
    return !strncmp(text, beginning, strlen(beginning));
}

static const char *own_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int hub_is_allowed(const char *path)
{
    static const char *const names[] = {
        "model_index.json",
        "config.json",
        "generation_config.json",
        "scheduler_config.json",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "added_tokens.json",
        "LICENSE",
        "special_tokens_map.json",
        "chat_template.jinja",
        "chat_template.json",
        "README.md",
        "LICENSE.md",
        "LICENSE.txt",
        "NOTICE",
    };
    const char *name = own_name(path);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return 1;
    return ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json") ||
           (strstr(path, "additional_chat_templates/") && ends_with(name, ".jinja"));
}

/* The folders of a model (pipeline/family.h, docs/spec/formats.md 1); those before the tokenizer have weights. */
static const char *const folders[] = {"transformer/", "text_encoder/", "vae/", "tokenizer/", "scheduler/"};

#define FOLDERS    (sizeof folders / sizeof *folders)
#define COMPONENTS 3

static int lies_in(const char *path, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (begins_with(path, folders[i]))
            return 1;
    return 0;
}

int hub_is_in_layout(const char *path)
{
    return lies_in(path, FOLDERS) ||
           (!strchr(path, '/') && !ends_with(path, ".safetensors") && !ends_with(path, ".safetensors.index.json"));
}

int hub_is_component(const char *path)
{
    return lies_in(path, COMPONENTS);
}

void hub_write_size(uint64_t bytes, char text[HUB_SIZE_TEXT])
{
    if (bytes >= 1000000000)
        snprintf(text, HUB_SIZE_TEXT, "%.2f GB", (double)bytes * 1e-9);
    else if (bytes >= 1000000)
        snprintf(text, HUB_SIZE_TEXT, "%.1f MB", (double)bytes * 1e-6);
    else if (bytes >= 1000)
        snprintf(text, HUB_SIZE_TEXT, "%.1f kB", (double)bytes * 1e-3);
    else
        snprintf(text, HUB_SIZE_TEXT, "%d B", (int)bytes);
}
