/*
 * What was measured to be fastest, kept in a file between processes. The file belongs to one kind of device and one set
 * of libraries, which its first line names. Every other line is a kind, a key and a value; key and
 * value are hexadecimal. Processes may share the file, because lines are only added. The last line of a key counts, and
 * malformed lines are ignored. A file that can't be read or written is no error.
 */
#include "base/choices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define MOST_BYTES ((size_t)4 << 20)
#define MOST_LINES 8192 /* every look-up passes all of them; a job has some hundred choices */

static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    return hash;
}

static int add_line(zi_choices *choices, char *line)
{
    if (choices->count == choices->capacity) {
        int capacity = choices->capacity ? 2 * choices->capacity : 256;
        char **lines = realloc(choices->lines, (size_t)capacity * sizeof(*lines));
        if (lines == NULL)
            return 0;
        choices->lines = lines;
        choices->capacity = capacity;
    }
    choices->lines[choices->count++] = line;
    return 1;
}

/* Whether the text has three words, as a choice has; recalling checks the rest. */
static int is_line(const char *text, size_t length)
{
    const char *first = memchr(text, ' ', length);
    return first != NULL && memchr(first + 1, ' ', length - (size_t)(first + 1 - text)) != NULL;
}

static void read_lines(zi_choices *choices, const char *text)
{
    size_t length = strcspn(text, "\n");
    if (length != strlen(choices->header) || strncmp(text, choices->header, length) != 0)
        return;
    choices->written = 1;
    for (text += length; *text && choices->count < MOST_LINES; text += strcspn(text, "\n")) {
        text++;
        if (!is_line(text, strcspn(text, "\n")))
            continue;
        char *line = strndup(text, strcspn(text, "\n"));
        if (line == NULL || !add_line(choices, line)) {
            free(line);
            return;
        }
    }
}

void zi_choices_open(zi_choices *choices, const char *folder, const char *backend, const char *header)
{
    char name[64], *text;
    size_t length;
    *choices = (zi_choices){0};
    if (folder == NULL)
        return;
    snprintf(choices->header, sizeof(choices->header), "%s", header);
    snprintf(name, sizeof(name), "%s-%016llx.plans", backend, (unsigned long long)hash_of(choices->header));
    choices->path = zi_path_join(folder, name);
    if (choices->path == NULL || zi_read_file(choices->path, MOST_BYTES, &text, &length, NULL) != ZIMAGE_OK)
        return;
    for (size_t i = 0; i < length; i++) /* a zero byte would hide the lines behind it, also those that are added */
        if (text[i] == 0)
            text[i] = '\n';
    read_lines(choices, text);
    free(text);
}

void zi_choices_close(zi_choices *choices)
{
    for (int i = 0; i < choices->count; i++)
        free(choices->lines[i]);
    free(choices->lines);
    free(choices->path);
    *choices = (zi_choices){0};
}

static char *add_hex(char *out, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        out += sprintf(out, "%02x", ((const uint8_t *)data)[i]);
    return out;
}

/* "kind key " with room for a value of `more` bytes; NULL: out of memory. */
static char *start_line(const char *kind, const void *key, size_t size, size_t more)
{
    char *line = malloc(strlen(kind) + 2 * (size + more) + 3);
    if (line == NULL)
        return NULL;
    char *end = add_hex(line + sprintf(line, "%s ", kind), key, size);
    end[0] = ' ';
    end[1] = 0;
    return line;
}

static int read_hex(const char *text, void *data, size_t size)
{
    if (strlen(text) != 2 * size || strspn(text, "0123456789abcdef") != 2 * size)
        return 0;
    for (size_t i = 0; i < size; i++) {
        unsigned value;
        sscanf(text + 2 * i, "%2x", &value);
        ((uint8_t *)data)[i] = (uint8_t)value;
    }
    return 1;
}

int zi_choices_recall(const zi_choices *choices, const char *kind, const void *key, size_t size, void *value,
                      size_t value_size)
{
    char *start = choices->count > 0 ? start_line(kind, key, size, 0) : NULL;
    int found = 0;
    for (int i = choices->count - 1; i >= 0 && start != NULL && !found; i--)
        found = strncmp(choices->lines[i], start, strlen(start)) == 0 &&
                read_hex(choices->lines[i] + strlen(start), value, value_size);
    free(start);
    return found;
}

/* Adds the line to the end of the file in one write; a file with another header is replaced. */
static void append(zi_choices *choices, const char *line)
{
    FILE *file = fopen(choices->path, choices->written ? "a" : "w");
    if (file == NULL)
        return;
    if (!choices->written)
        fputs(choices->header, file);
    fprintf(file, "\n%s", line); /* the line before may be incomplete */
    choices->written = fclose(file) == 0 || choices->written;
}

void zi_choices_remember(zi_choices *choices, const char *kind, const void *key, size_t size, const void *value,
                         size_t value_size)
{
    char *line = start_line(kind, key, size, value_size);
    if (line == NULL)
        return;
    *add_hex(line + strlen(line), value, value_size) = 0;
    if (choices->path != NULL)
        append(choices, line);
    if (!add_line(choices, line))
        free(line);
}
