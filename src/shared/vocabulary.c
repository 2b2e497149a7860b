#include "vocabulary.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fold.h"

#define HEADER     "zimage words 1\n"
#define FILE_MAX   ((size_t)4 << 20) /* bytes */
#define NAME_BYTES 160               /* bytes of a name */
#define KEY_BYTES  (12 * NAME_BYTES) /* of a name: folding makes 11 bytes of one at most, and a space */
#define NEAR_MAX   48                /* characters of a word that is compared by spelling */
#define LONG_WORD  7                 /* characters of a word in which another letter is a mistake of typing */
#define QUOTED_MAX 40                /* bytes of a word in a warning */

struct vocabulary {
    char *text;
    vocabulary_name *names;  /* in the file's order */
    vocabulary_name *sorted; /* by key; of equal keys the known first, and things before other words */
    size_t count, capacity;
    size_t tokens_max; /* of a name */
};

static zimage_status fail(zimage_error *error, zimage_status status, const char *path, size_t line, const char *why)
{
    if (line)
        snprintf(error->message, sizeof error->message, "%.1024s: line %zu: %s", path, line, why);
    else
        snprintf(error->message, sizeof error->message, "%.1024s: %s", path, why);
    return error->status = status;
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
    if (!*name)
        return "an empty name";
    if (strlen(name) > NAME_BYTES)
        return "a name of more than 160 bytes";
    return fold_fault(name);
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
    folded f;
    if (!fold_text(text, &f))
        return 0;
    fold_script script = f.count ? f.tokens[0].script : FOLD_LETTERS;
    free(f.tokens);
    v->tokens_max = f.count > v->tokens_max ? f.count : v->tokens_max;
    v->names[v->count++] = (vocabulary_name){text, f.key, thing, is_known, fold_is_alone(script)};
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
    order = order ? order : y->is_known - x->is_known;
    return order ? order : (y->thing != NULL) - (x->thing != NULL);
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
        free(list->names[i].key);
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

/* ---- names ---- */

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

typedef struct ending {
    const char *plural, *singular;
} ending;

/* Endings of plurals. Small models draw most plurals of the first kind like the singular. Of the second kind (English,
 * French, Spanish) they draw few, so these only lead to what is near. */
static const ending regular[] = {{"", ""}, {"s", ""}, {"es", ""}, {0}};
static const ending irregular[] = {
    {"ies", "y"},
    {"ves", "f"},
    {"ves", "fe"},
    {"x", ""},
    {"aux", "al"},
    {"ces", "z"},
    {"men", "man"},
    {"children", "child"},
    {"feet", "foot"},
    {"teeth", "tooth"},
    {"geese", "goose"},
    {"mice", "mouse"},
    {0},
};

/* A name, or one of which the key is a plural. */
static const vocabulary_name *find_any(const vocabulary *v, const char *key, size_t length, const ending *endings)
{
    const vocabulary_name *name = NULL;
    char text[KEY_BYTES + 1];
    if (length >= KEY_BYTES)
        return NULL;
    for (; endings->plural && !name; endings++) {
        size_t cut = strlen(endings->plural), stem = length - cut;
        if (cut <= length && stem + strlen(endings->singular) > 0 && !memcmp(key + stem, endings->plural, cut)) {
            snprintf(text, sizeof text, "%.*s%s", (int)stem, key, endings->singular);
            name = find(v, text);
        }
    }
    return name;
}

/* ---- what is near ---- */

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/*
 * Mistakes of typing that lead from a to b, or more than `most`: a character that is missing, is too much or is another
 * one, and two that have changed places (optimal string alignment). replacing: what another character counts.
 */
static size_t mistakes(const int32_t *a, size_t n, const int32_t *b, size_t m, size_t most, size_t replacing)
{
    size_t rows[3][NEAR_MAX + 1];
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3], least = row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = least_of(least_of(last[j], row[j - 1]) + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : replacing));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least_of(row[j], before[j - 2] + 1);
            least = least_of(least, row[j]);
        }
        if (least > most)
            return most + 1;
    }
    return rows[n % 3][m];
}

/* The name that the key is a misspelling of. The first character is right; a word of few letters with another letter is
 * another word. */
static const char *misspelled(const vocabulary *v, const char *key, int is_alone)
{
    int32_t a[NEAR_MAX], b[NEAR_MAX];
    size_t n = fold_characters(key, a, NEAR_MAX);
    const char *best = NULL;
    size_t most = n > NEAR_MAX ? 0 : is_alone ? n / 3 : n < 10 ? n >= 4 : n / 5;
    size_t replacing = is_alone || n >= LONG_WORD ? 1 : 2;
    for (size_t i = 0; i < v->count && most > 0; i++) {
        const vocabulary_name *name = &v->names[i];
        if (!name->thing || !name->is_known || name->is_alone != is_alone || memcmp(name->key, key, 1) != 0)
            continue;
        size_t m = fold_characters(name->key, b, NEAR_MAX);
        if (m > NEAR_MAX || m + most < n || n + most < m || a[0] != b[0])
            continue;
        size_t count = mistakes(a, n, b, m, most, replacing);
        if (count <= most) {
            best = name->text;
            most = count - (count > 0);
            if (count == 0)
                break;
        }
    }
    return best;
}

/* The shortest known name that begins or ends with the key's words: "police car" for "police". */
static const char *holding(const vocabulary *v, const char *key)
{
    const vocabulary_name *best = NULL;
    size_t length = strlen(key);
    for (size_t i = 0; i < v->count && length > 0; i++) {
        const vocabulary_name *name = &v->names[i];
        size_t bytes = strlen(name->key);
        if (!name->thing || !name->is_known || bytes <= length || (best && bytes >= strlen(best->key)))
            continue;
        int begins = !memcmp(name->key, key, length) && name->key[length] == ' ';
        const char *end = name->key + bytes - length;
        if (begins || (end[-1] == ' ' && !memcmp(end, key, length)))
            best = name;
    }
    return best ? best->text : NULL;
}

/* What a part of a prompt may mean; name: the entry that it is, or NULL. */
static const char *nearest(const vocabulary *v, const char *key, int is_alone, const vocabulary_name *name)
{
    if (name && name->thing)
        return name->thing;
    name = find_any(v, key, strlen(key), irregular);
    if (name && name->thing)
        return name->is_known ? name->text : name->thing;
    const char *near = misspelled(v, key, is_alone);
    return near ? near : holding(v, key);
}

const char *vocabulary_nearest(const vocabulary *v, const char *text)
{
    folded f;
    if (!fold_text(text, &f))
        return NULL;
    const vocabulary_name *name = find_any(v, f.key, strlen(f.key), regular);
    const char *near = f.count ? nearest(v, f.key, fold_is_alone(f.tokens[0].script), name) : NULL;
    fold_free(&f);
    return near;
}

/* ---- prompts ---- */

/* Where the key of a token ends. */
static size_t end_of(const folded *f, size_t token)
{
    size_t at = f->tokens[token].at;
    return token + 1 < f->count ? f->tokens[token + 1].at - 1 : at + strlen(f->key + at);
}

/* The name that the longest run of tokens from `first` on is; *last: its last token, or `first` if there is none. */
static const vocabulary_name *longest(const vocabulary *v, const folded *f, size_t first, size_t *last)
{
    size_t at = f->tokens[first].at;
    for (size_t i = least_of(f->count, first + v->tokens_max); i-- > first;) {
        const vocabulary_name *name = find_any(v, f->key + at, end_of(f, i) - at, regular);
        if (name) {
            *last = i;
            return name;
        }
    }
    *last = first;
    return NULL;
}

/* Whether a word goes on with the next token: characters without spaces between them, until a name begins or the script
 * changes; but in Japanese the endings of words are hiragana. */
static int goes_on(const vocabulary *v, const folded *f, size_t token)
{
    const fold_token *a = &f->tokens[token], *b = a + 1;
    size_t last;
    return token + 1 < f->count && fold_is_alone(a->script) && a->to == b->from &&
           (a->script == b->script || (a->script == FOLD_HAN && b->script == FOLD_HIRAGANA)) &&
           !longest(v, f, token + 1, &last);
}

/* Numbers and single letters say little, and what is no name and begins with hiragana is grammar in most cases. */
static int says_nothing(const folded *f, size_t token, const vocabulary_name *name)
{
    size_t letters = 0;
    for (size_t i = f->tokens[token].at; i < end_of(f, token); i++)
        letters += (f->key[i] & 0xC0) != 0x80;
    fold_script script = f->tokens[token].script;
    return script == FOLD_NUMBER || (script == FOLD_LETTERS && letters == 1) || (script == FOLD_HIRAGANA && !name);
}

/* The part of a prompt from one token to another, as it was typed; NULL: no memory. free() it. */
static char *part_of(const char *prompt, const folded *f, size_t first, size_t last)
{
    char *part = strndup(prompt + f->tokens[first].from, f->tokens[last].to - f->tokens[first].from);
    if (!part || !fold_fault(part))
        return part;
    free(part);
    return strndup(f->key + f->tokens[first].at, end_of(f, last) - f->tokens[first].at);
}

typedef struct checking {
    const vocabulary *v;
    const char *prompt;
    folded f;
    char *keys[VOCABULARY_PARTS]; /* of the parts that were told */
    size_t count;
    vocabulary_fn unknown;
    void *user;
} checking;

static void tell(checking *c, size_t first, size_t last, const vocabulary_name *name)
{
    size_t at = c->f.tokens[first].at;
    char *key = strndup(c->f.key + at, end_of(&c->f, last) - at), *part = NULL;
    int is_new = key != NULL;
    for (size_t i = 0; i < c->count && key; i++)
        is_new &= strcmp(key, c->keys[i]) != 0;
    if (is_new && (part = part_of(c->prompt, &c->f, first, last))) {
        c->unknown(part, nearest(c->v, key, fold_is_alone(c->f.tokens[first].script), name), c->user);
        c->keys[c->count++] = key;
        key = NULL;
    }
    free(part);
    free(key);
}

size_t vocabulary_check(const vocabulary *v, const char *prompt, vocabulary_fn unknown, void *user)
{
    checking c = {.v = v, .prompt = prompt, .unknown = unknown, .user = user};
    if (!fold_text(prompt, &c.f))
        return 0;
    for (size_t first = 0, last; first < c.f.count && c.count < VOCABULARY_PARTS; first = last + 1) {
        const vocabulary_name *name = longest(v, &c.f, first, &last);
        while (!name && goes_on(v, &c.f, last))
            last++;
        if (!(name && name->is_known) && !says_nothing(&c.f, first, name))
            tell(&c, first, last, name);
    }
    fold_free(&c.f);
    for (size_t i = 0; i < c.count; i++)
        free(c.keys[i]);
    return c.count;
}

/* ---- the sentence ---- */

typedef struct sentence {
    const char *model;
    char *text;
    size_t size, length;
} sentence;

/* Adds a word in quotation marks; a long one is cut between two characters. */
static void quote(sentence *s, const char *before, const char *word, const char *behind)
{
    size_t length = strlen(word), cut = least_of(length, QUOTED_MAX);
    while (cut < length && cut > 0 && (word[cut] & 0xC0) == 0x80)
        cut--;
    int added = snprintf(s->text + s->length, s->size - s->length, "%s\"%.*s%s\"%s", before, (int)cut, word,
                         cut < length ? "..." : "", behind);
    s->length = least_of(s->length + (size_t)added, s->size - 1);
}

/* vocabulary_fn of sentence. */
static void say(const char *part, const char *near, void *user)
{
    sentence *s = user;
    if (s->length == 0)
        s->length = least_of((size_t)snprintf(s->text, s->size, "%s does not know ", s->model), s->size - 1);
    else
        s->length = least_of(s->length + (size_t)snprintf(s->text + s->length, s->size - s->length, ", "), s->size - 1);
    quote(s, "", part, "");
    if (near)
        quote(s, " (nearest: ", near, ")");
}

int vocabulary_warning(const vocabulary *v, const char *model, const char *prompt, char text[VOCABULARY_WARNING])
{
    sentence s = {.model = model, .text = text, .size = VOCABULARY_WARNING};
    *text = 0;
    return v && prompt && vocabulary_check(v, prompt, say, &s) > 0;
}
