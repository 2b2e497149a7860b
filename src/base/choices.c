/*
 * What was measured to be fastest, kept in a file between processes. The file belongs to one kind of device and one set
 * of libraries, which its first line names. Every other line is a kind, a key and a value; key and
 * value are hexadecimal. Processes may share the file, because lines are only added. The last line of a key counts, and
 * malformed lines are ignored. A file that can't be read or written is no error.
 */
#include "base/choices.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define MOST_BYTES ((size_t)4 << 20)
#define MOST_LINES 8192 /* every look-up passes all of them; a job has some hundred choices */

typedef struct zi_choice_list {
    struct zi_choice_list *next;
    int users;            /* sessions */
    pthread_mutex_t lock; /* of the lines and the file */
    char *path;           /* NULL: no file */
    char header[256];
    int written; /* the file has that header */
    char **lines;
    int count, capacity;
} zi_choice_list;

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER; /* of all, and of next and users */
static zi_choice_list *all;

static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    return hash;
}

static int add_line(zi_choice_list *list, char *line)
{
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 256;
        char **lines = realloc(list->lines, (size_t)capacity * sizeof(*lines));
        if (lines == NULL)
            return 0;
        list->lines = lines;
        list->capacity = capacity;
    }
    list->lines[list->count++] = line;
    return 1;
}

/* Whether the text has three words, as a choice has; recalling checks the rest. */
static int is_line(const char *text, size_t length)
{
    const char *first = memchr(text, ' ', length);
    return first != NULL && memchr(first + 1, ' ', length - (size_t)(first + 1 - text)) != NULL;
}

static void read_lines(zi_choice_list *list, const char *text)
{
    size_t length = strcspn(text, "\n");
    if (length != strlen(list->header) || strncmp(text, list->header, length) != 0)
        return;
    list->written = 1;
    for (text += length; *text && list->count < MOST_LINES; text += strcspn(text, "\n")) {
        text++;
        if (!is_line(text, strcspn(text, "\n")))
            continue;
        char *line = strndup(text, strcspn(text, "\n"));
        if (line == NULL || !add_line(list, line)) {
            free(line);
            return;
        }
    }
}

static void read_file(zi_choice_list *list)
{
    char *text;
    size_t length;
    if (list->path == NULL || zi_read_file(list->path, MOST_BYTES, &text, &length, NULL) != ZIMAGE_OK)
        return;
    for (size_t i = 0; i < length; i++) /* a zero byte would hide the lines behind it, also those that are added */
        if (text[i] == 0)
            text[i] = '\n';
    read_lines(list, text);
    free(text);
}

/* Takes the path. NULL: out of memory. */
static zi_choice_list *new_list(char *path, const char *header)
{
    pthread_mutexattr_t recursive;
    zi_choice_list *list = calloc(1, sizeof(*list));
    if (list == NULL) {
        free(path);
        return NULL;
    }
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&list->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    list->path = path;
    snprintf(list->header, sizeof(list->header), "%s", header);
    read_file(list);
    list->next = all;
    return all = list;
}

static int is_list_of(const zi_choice_list *list, const char *path, const char *header)
{
    int same_path = list->path == NULL || path == NULL ? list->path == path : strcmp(list->path, path) == 0;
    return same_path && strncmp(list->header, header, sizeof(list->header) - 1) == 0;
}

void zi_choices_open(zi_choices *choices, const char *folder, const char *backend, const char *header)
{
    char name[64], own[sizeof(((zi_choice_list *)NULL)->header)], *path = NULL;
    *choices = (zi_choices){0};
    snprintf(own, sizeof(own), "%s", header);
    snprintf(name, sizeof(name), "%s-%016llx.plans", backend, (unsigned long long)hash_of(own));
    if (folder != NULL && (path = zi_path_join(folder, name)) == NULL)
        return;
    pthread_mutex_lock(&all_lock);
    zi_choice_list *list = all;
    while (list != NULL && !is_list_of(list, path, own))
        list = list->next;
    if (list != NULL)
        free(path);
    else
        list = new_list(path, own);
    if (list != NULL)
        list->users++;
    choices->list = list;
    pthread_mutex_unlock(&all_lock);
}

static void free_list(zi_choice_list *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->lines[i]);
    free(list->lines);
    free(list->path);
    pthread_mutex_destroy(&list->lock);
    free(list);
}

void zi_choices_close(zi_choices *choices)
{
    zi_choice_list *list = choices->list, **place = &all;
    *choices = (zi_choices){0};
    if (list == NULL)
        return;
    pthread_mutex_lock(&all_lock);
    int last = --list->users == 0;
    while (last && *place != list)
        place = &(*place)->next;
    if (last)
        *place = list->next;
    pthread_mutex_unlock(&all_lock);
    if (last)
        free_list(list);
}

const char *zi_choices_path(const zi_choices *choices)
{
    return choices->list != NULL ? choices->list->path : NULL;
}

void zi_choices_lock(const zi_choices *choices)
{
    if (choices->list != NULL)
        pthread_mutex_lock(&choices->list->lock);
}

void zi_choices_unlock(const zi_choices *choices)
{
    if (choices->list != NULL)
        pthread_mutex_unlock(&choices->list->lock);
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
    const zi_choice_list *list = choices->list;
    int count = list != NULL ? list->count : 0, found = 0;
    char *start = count > 0 ? start_line(kind, key, size, 0) : NULL;
    for (int i = count - 1; i >= 0 && start != NULL && !found; i--)
        found = strncmp(list->lines[i], start, strlen(start)) == 0 &&
                read_hex(list->lines[i] + strlen(start), value, value_size);
    free(start);
    return found;
}

/* Adds the line to the end of the file in one write; a file with another header is replaced. */
static void append(zi_choice_list *list, const char *line)
{
    FILE *file = fopen(list->path, list->written ? "a" : "w");
    if (file == NULL)
        return;
    if (!list->written)
        fputs(list->header, file);
    fprintf(file, "\n%s", line); /* the line before may be incomplete */
    list->written = fclose(file) == 0 || list->written;
}

void zi_choices_remember(const zi_choices *choices, const char *kind, const void *key, size_t size, const void *value,
                         size_t value_size)
{
    zi_choice_list *list = choices->list;
    char *line = list != NULL ? start_line(kind, key, size, value_size) : NULL;
    if (line == NULL)
        return;
    *add_hex(line + strlen(line), value, value_size) = 0;
    if (list->path != NULL)
        append(list, line);
    if (!add_line(list, line))
        free(line);
}
