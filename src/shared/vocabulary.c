#include "vocabulary.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER     "zimage words 1\n"
#define FILE_MAX   ((size_t)4 << 20) /* bytes */
#define NAME_BYTES 160               /* bytes of a name */
#define PHRASE_MAX 16                /* tokens of a name that are looked for in a prompt */
#define NEAR_MAX   48                /* characters of a word that is compared by spelling */

struct vocabulary {
    char *text;
    vocabulary_name *names;  /* in the file's order */
    vocabulary_name *sorted; /* by key; of equal keys the known first */
    size_t count, capacity;
};

static zimage_status fail(zimage_error *error, zimage_status status, const char *path, size_t line, const char *why)
{
    if (line)
        snprintf(error->message, sizeof error->message, "%.1024s: line %zu: %s", path, line, why);
    else
        snprintf(error->message, sizeof error->message, "%.1024s: %s", path, why);
    return error->status = status;
}

/* ---- characters ---- */

/* One code point of UTF-8, its bytes in *size. Other bytes are code points of their own; -1: not valid UTF-8. */
static int32_t decode(const char *text, size_t *size)
{
    const unsigned char *c = (const unsigned char *)text;
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = c[0] < 0x80 ? 1 : c[0] < 0xC2 ? 0 : c[0] < 0xE0 ? 2 : c[0] < 0xF0 ? 3 : c[0] < 0xF5 ? 4 : 0;
    *size = 1;
    if (n == 0)
        return -1;
    int32_t code = n == 1 ? c[0] : c[0] & (0x7F >> n);
    for (size_t i = 1; i < n; i++) {
        if ((c[i] & 0xC0) != 0x80)
            return -1;
        code = code << 6 | (c[i] & 0x3F);
    }
    if (code < least[n] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return -1;
    *size = n;
    return code;
}

/* Chinese characters, kana and Hangul are written without spaces between words. */
static int is_alone(int32_t c)
{
    return (c >= 0x3041 && c < 0xA000) || (c >= 0xAC00 && c < 0xD7B0) || (c >= 0xF900 && c < 0xFB00) ||
           (c >= 0x20000 && c < 0x40000);
}

static int is_letter(int32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (is_alone(c))
        return c != 0x30FB; /* the middle dot between katakana words */
    return c >= 0xC0 && c != 0xD7 && c != 0xF7 && c < 0x2000;
}

/* Lower case of the Latin letters of the languages that the lists have. */
static int32_t lower(int32_t c)
{
    if ((c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7))
        return c + 32;
    if (c >= 0x100 && c <= 0x137)
        return c | 1;
    return c == 0x1E9E ? 0xDF : c;
}

static size_t encode(int32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; --i > 0; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> n) | c);
    return n;
}

char *vocabulary_key(const char *text)
{
    size_t length = strlen(text), at = 0, size;
    char *key = malloc(2 * length + 1); /* a character becomes itself and a space at most */
    int was_letter = 0, was_alone = 0;
    for (size_t i = 0; key && i < length; i += size) {
        int32_t c = decode(text + i, &size);
        int letter = c >= 0 && is_letter(c), alone = c >= 0 && is_alone(c);
        if (letter) {
            if (at > 0 && (!was_letter || alone || was_alone))
                key[at++] = ' ';
            at += encode(lower(c), key + at);
        }
        was_letter = letter;
        was_alone = alone;
    }
    if (key)
        key[at] = 0;
    return key;
}

/* ---- the file ---- */

static zimage_status read_text(const char *path, char **text, size_t *size, zimage_error *error)
{
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *text = NULL;
    if (file < 0)
        return errno == ENOENT || errno == ENOTDIR ? ZIMAGE_OK
                                                   : fail(error, ZIMAGE_ERROR_FILE, path, 0, strerror(errno));
    zimage_status status = ZIMAGE_OK;
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode))
        status = fail(error, ZIMAGE_ERROR_FILE, path, 0, "expected a regular file");
    else if ((size_t)info.st_size > FILE_MAX)
        status = fail(error, ZIMAGE_ERROR_MODEL, path, 0, "expected at most 4 MiB");
    else if (!(*text = calloc(1, (size_t)info.st_size + 2)))
        status = fail(error, ZIMAGE_ERROR_MEMORY, path, 0, "out of memory");
    size_t length = 0;
    for (ssize_t got = 1; status == ZIMAGE_OK && got > 0 && length < (size_t)info.st_size; length += (size_t)got)
        if ((got = read(file, *text + length, (size_t)info.st_size - length)) < 0) {
            status = fail(error, ZIMAGE_ERROR_FILE, path, 0, strerror(errno));
            got = 0;
        }
    close(file);
    *size = length;
    if (status != ZIMAGE_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

/* NULL, or what is wrong with a name. */
static const char *fault(const char *name)
{
    size_t size;
    if (!*name)
        return "an empty name";
    if (strlen(name) > NAME_BYTES)
        return "a name of more than 160 bytes";
    for (; *name; name += size) {
        int32_t c = decode(name, &size);
        if (c < 0)
            return "expected UTF-8";
        if (c < 0x20 || (c >= 0x7F && c < 0xA0))
            return "a control character";
    }
    return NULL;
}

static int add(vocabulary *v, const char *text, const char *thing, int is_known)
{
    if (v->count == v->capacity) {
        size_t capacity = v->capacity ? 2 * v->capacity : 1024;
        vocabulary_name *more = realloc(v->names, capacity * sizeof *more);
        if (!more)
            return 0;
        v->names = more;
        v->capacity = capacity;
    }
    char *key = vocabulary_key(text);
    if (!key)
        return 0;
    v->names[v->count++] = (vocabulary_name){text, key, thing, is_known};
    return 1;
}

/* The names of a line, which is cut at its tabs. */
static zimage_status read_line(vocabulary *v, char *line, const char *path, size_t number, zimage_error *error)
{
    const char *thing = NULL;
    int is_plain = !strncmp(line, "=\t", 2);
    char *rest = is_plain ? line + 2 : line;
    while (rest) {
        char *name = rest, *tab = strchr(rest, '\t');
        if (tab)
            *tab = 0;
        rest = tab ? tab + 1 : NULL;
        int is_known = is_plain || *name != '~';
        name += !is_known;
        const char *why = fault(name);
        if (!why && !is_plain && !thing && !is_known)
            why = "a line must begin with a name that the model knows";
        if (why)
            return fail(error, ZIMAGE_ERROR_MODEL, path, number, why);
        if (!is_plain && !thing)
            thing = name;
        if (!add(v, name, thing, is_known))
            return fail(error, ZIMAGE_ERROR_MEMORY, path, 0, "out of memory");
    }
    return ZIMAGE_OK;
}

static int compare(const void *a, const void *b)
{
    const vocabulary_name *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : y->is_known - x->is_known;
}

static zimage_status parse(vocabulary *v, const char *path, zimage_error *error)
{
    size_t number = 1;
    if (strncmp(v->text, HEADER, sizeof HEADER - 1) != 0)
        return fail(error, ZIMAGE_ERROR_MODEL, path, 1, "expected \"zimage words 1\"");
    for (char *line = v->text + sizeof HEADER - 1, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        zimage_status status = read_line(v, line, path, ++number, error);
        if (status != ZIMAGE_OK)
            return status;
    }
    v->sorted = malloc(v->count * sizeof *v->sorted + 1);
    if (!v->sorted)
        return fail(error, ZIMAGE_ERROR_MEMORY, path, 0, "out of memory");
    if (v->count)
        memcpy(v->sorted, v->names, v->count * sizeof *v->sorted);
    qsort(v->sorted, v->count, sizeof *v->sorted, compare);
    return ZIMAGE_OK;
}

zimage_status vocabulary_parse(char *text, size_t size, const char *path, vocabulary **list, zimage_error *error)
{
    zimage_status status;
    vocabulary *v = calloc(1, sizeof *v);
    *list = NULL;
    if (!v) {
        free(text);
        return fail(error, ZIMAGE_ERROR_MEMORY, path, 0, "out of memory");
    }
    v->text = text;
    if (memchr(text, 0, size)) {
        status = fail(error, ZIMAGE_ERROR_MODEL, path, 0, "holds a zero byte, expected text");
    } else {
        if (size > 0 && text[size - 1] != '\n')
            text[size++] = '\n';
        text[size] = 0;
        status = parse(v, path, error);
    }
    if (status == ZIMAGE_OK)
        *list = v;
    else
        vocabulary_free(v);
    return status;
}

zimage_status vocabulary_read(const char *folder, vocabulary **list, zimage_error *error)
{
    char path[PATH_MAX], *text;
    size_t size;
    *list = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/" VOCABULARY_FILE, folder) >= sizeof path)
        return ZIMAGE_OK; /* no model has such a path */
    zimage_status status = read_text(path, &text, &size, error);
    return status == ZIMAGE_OK && text ? vocabulary_parse(text, size, path, list, error) : status;
}

void vocabulary_free(vocabulary *list)
{
    if (!list)
        return;
    for (size_t i = 0; i < list->count; i++)
        free((char *)list->names[i].key);
    free(list->names);
    free(list->sorted);
    free(list->text);
    free(list);
}

size_t vocabulary_count(const vocabulary *list)
{
    return list->count;
}

const vocabulary_name *vocabulary_at(const vocabulary *list, size_t i)
{
    return &list->names[i];
}

/* ---- prompts ---- */

static const vocabulary_name *find(const vocabulary *v, const char *key)
{
    size_t low = 0, high = v->count;
    while (low < high) { /* the first of equal keys */
        size_t middle = low + (high - low) / 2;
        if (strcmp(v->sorted[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < v->count && !strcmp(v->sorted[low].key, key) ? &v->sorted[low] : NULL;
}

static size_t code_points(const char *key, int32_t out[NEAR_MAX])
{
    size_t n = 0, size;
    for (; *key && n < NEAR_MAX; key += size)
        out[n++] = decode(key, &size);
    return *key ? NEAR_MAX + 1 : n;
}

/* Insertions, deletions and replacements from a to b, or more than `most`. */
static size_t edits(const int32_t *a, size_t n, const int32_t *b, size_t m, size_t most)
{
    size_t row[NEAR_MAX + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0], least = row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = best < row[j] + 1 ? best : row[j] + 1;
            row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            least = row[j] < least ? row[j] : least;
        }
        if (least > most)
            return most + 1;
    }
    return row[m];
}

const char *vocabulary_nearest(const vocabulary *v, const char *key)
{
    int32_t a[NEAR_MAX], b[NEAR_MAX];
    size_t n = code_points(key, a);
    const char *best = NULL;
    if (n > NEAR_MAX)
        return NULL;
    size_t most = n / 3;
    for (size_t i = 0; i < v->count && most > 0; i++) {
        const vocabulary_name *name = &v->names[i];
        size_t bytes = strlen(name->key);
        if (!name->thing || !name->is_known || bytes > 4 * (n + most) || bytes + most < n)
            continue;
        size_t m = code_points(name->key, b);
        size_t distance = m > NEAR_MAX ? most + 1 : edits(a, n, b, m, most);
        if (distance <= most) {
            best = name->thing;
            most = distance - (distance > 0);
            if (distance == 0)
                break;
        }
    }
    return best;
}

/* The name that the longest run of tokens at `key` is, and where it ends. */
static const vocabulary_name *longest(const vocabulary *v, char *key, char **end)
{
    char *ends[PHRASE_MAX];
    size_t count = 0;
    for (char *c = key; count < PHRASE_MAX; c++)
        if (*c == ' ' || !*c) {
            ends[count++] = c;
            if (!*c)
                break;
        }
    const vocabulary_name *name = NULL;
    for (size_t i = count; i-- > 0 && !name;) {
        char kept = *ends[i];
        *ends[i] = 0;
        name = find(v, key);
        *ends[i] = kept;
        *end = ends[i];
    }
    return name;
}

/* A number, or the plural of a word in the list that is known. */
static int is_fine(const vocabulary *v, char *token)
{
    size_t length = strlen(token);
    if (strspn(token, "0123456789") == length)
        return 1;
    for (size_t cut = 1; cut <= 2 && cut < length; cut++) {
        char kept = token[length - cut];
        const vocabulary_name *name = NULL;
        if (!strcmp(token + length - cut, cut == 1 ? "s" : "es")) {
            token[length - cut] = 0;
            name = find(v, token);
            token[length - cut] = kept;
        }
        if (name && name->is_known)
            return 1;
    }
    return 0;
}

static int begins_alone(const char *token)
{
    size_t size;
    return is_alone(decode(token, &size));
}

/* Characters that are tokens of their own and no name are one unknown word: where it ends that began at `at`. */
static char *end_of_unknown(const vocabulary *v, const char *at, char *end)
{
    char *next;
    while (begins_alone(at) && *end && begins_alone(end + 1) && !longest(v, end + 1, &next))
        end = next;
    return end;
}

/* Takes the spaces out that stand between characters which are written without. Returns its argument. */
static char *readable(char *key)
{
    size_t at = 0, size;
    int was_alone = 0;
    for (const char *c = key; *c; c += size) {
        int alone = is_alone(decode(c, &size));
        if (at > 0 && key[at - 1] == ' ' && was_alone && alone)
            at--;
        memmove(key + at, c, size);
        at += size;
        was_alone = *c == ' ' ? was_alone : alone;
    }
    key[at] = 0;
    return key;
}

size_t vocabulary_check(const vocabulary *v, const char *prompt, size_t most, vocabulary_fn unknown, void *user)
{
    char *key = vocabulary_key(prompt), *at = key, *end;
    size_t calls = 0;
    while (at && *at && calls < most) {
        const vocabulary_name *name = longest(v, at, &end);
        if (!name)
            end = end_of_unknown(v, at, end);
        char *next = *end ? end + 1 : end;
        *end = 0;
        if (name ? !name->is_known : !is_fine(v, at)) {
            const char *nearest = name ? name->thing : vocabulary_nearest(v, at);
            unknown(readable(at), nearest, user);
            calls++;
        }
        at = next;
    }
    free(key);
    return calls;
}
