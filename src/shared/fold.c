#include "fold.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* A longer token is cut: no name that a token is compared with has as many characters. */
#define TOKEN_MAX 1024
/* Characters of which one becomes: 18 at most (U+FDFA). */
#define PARTS_MAX 32

typedef struct folder {
    folded *out;
    size_t length, room, token_room; /* of the key in bytes; of both arrays */
    size_t from, to;                 /* the bytes of the text that the open token was made of */
    fold_script script;
    int32_t *codes; /* of the open token */
    size_t count;   /* of codes; 0: no token is open */
    int no_memory;
} folder;

int fold_is_alone(fold_script script)
{
    return script >= FOLD_HAN;
}

/* ---- characters ---- */

static int is_between(int32_t code, int32_t first, int32_t last)
{
    return code >= first && code <= last;
}

static fold_script script_of(int32_t code)
{
    if (is_between(code, 0x3041, 0x309F))
        return FOLD_HIRAGANA;
    if (is_between(code, 0x30A0, 0x30FF) || is_between(code, 0x31F0, 0x31FF))
        return FOLD_KATAKANA;
    if (is_between(code, 0x2E80, 0x9FFF) || is_between(code, 0xF900, 0xFAFF) || is_between(code, 0x20000, 0x3FFFF))
        return FOLD_HAN;
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return FOLD_NUMBER;
    default:
        return FOLD_LETTERS;
    }
}

fold_kind fold_kind_of(int32_t code)
{
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return FOLD_LETTER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
        return FOLD_MARK;
    case UTF8PROC_CATEGORY_CF:
        return FOLD_INVISIBLE;
    default:
        return FOLD_SEPARATOR;
    }
}

/* ---- tokens ---- */

/* Room for one more token and for `bytes` of the key. */
static int make_room(folder *f, size_t bytes)
{
    if (f->length + bytes > f->room) {
        size_t room = 2 * f->room + bytes;
        char *key = realloc(f->out->key, room);
        if (!key)
            return 0;
        f->out->key = key;
        f->room = room;
    }
    if (f->out->count == f->token_room) {
        size_t room = 2 * f->token_room + 8;
        fold_token *tokens = realloc(f->out->tokens, room * sizeof *tokens);
        if (!tokens)
            return 0;
        f->out->tokens = tokens;
        f->token_room = room;
    }
    return 1;
}

static void end_token(folder *f)
{
    if (f->count == 0 || f->no_memory)
        return;
    utf8proc_ssize_t count =
        utf8proc_normalize_utf32(f->codes, (utf8proc_ssize_t)f->count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    f->count = 0;
    if (count <= 0)
        return;
    if (!make_room(f, 4 * (size_t)count + 2)) {
        f->no_memory = 1;
        return;
    }
    if (f->out->count > 0)
        f->out->key[f->length++] = ' ';
    f->out->tokens[f->out->count++] = (fold_token){f->from, f->to, f->length, f->script};
    for (utf8proc_ssize_t i = 0; i < count; i++)
        f->length += (size_t)utf8proc_encode_char(f->codes[i], (utf8proc_uint8_t *)f->out->key + f->length);
}

/* from, to: the bytes of the text that the folded character comes from. */
static void add_character(folder *f, int32_t code, size_t from, size_t to)
{
    fold_kind kind = fold_kind_of(code);
    if (kind == FOLD_LETTER) {
        fold_script script = script_of(code);
        if (fold_is_alone(script) || fold_is_alone(f->script))
            end_token(f);
        if (f->count == 0) {
            f->from = from;
            f->script = script;
        }
    }
    if (kind == FOLD_SEPARATOR)
        end_token(f);
    else if (kind == FOLD_LETTER || (kind == FOLD_MARK && f->count > 0)) {
        f->to = to;
        if (f->count < TOKEN_MAX)
            f->codes[f->count++] = code;
    }
}

/* utf8proc_map is not used: it sorts marks by bubble sort, which takes hours for a hostile megabyte of marks. Without
 * sorting, texts whose marks are in another order are other texts here. */
static void fold_all(folder *f, const char *text, size_t length)
{
    const utf8proc_option_t options =
        UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE;
    utf8proc_ssize_t bytes;
    for (size_t at = 0; at < length; at += (size_t)bytes) {
        utf8proc_int32_t code, parts[PARTS_MAX];
        bytes = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &code);
        if (bytes <= 0) {
            bytes = 1;
            end_token(f);
            continue;
        }
        utf8proc_ssize_t count = utf8proc_decompose_char(code, parts, PARTS_MAX, options, NULL);
        if (count < 0 || count > PARTS_MAX)
            end_token(f);
        for (utf8proc_ssize_t i = 0; count <= PARTS_MAX && i < count; i++)
            add_character(f, parts[i], at, at + (size_t)bytes);
    }
    end_token(f);
}

int fold_text(const char *text, folded *out)
{
    int32_t codes[TOKEN_MAX];
    folder f = {.out = out, .codes = codes};
    *out = (folded){0};
    fold_all(&f, text, strlen(text));
    if (f.no_memory || !make_room(&f, 1)) {
        fold_free(out);
        return 0;
    }
    out->key[f.length] = 0;
    return 1;
}

void fold_free(folded *f)
{
    free(f->key);
    free(f->tokens);
    *f = (folded){0};
}

/* ---- keys and names ---- */

size_t fold_characters(const char *key, int32_t *out, size_t most)
{
    size_t count = 0;
    utf8proc_ssize_t bytes;
    for (; *key; key += bytes) {
        utf8proc_int32_t code;
        bytes = utf8proc_iterate((const utf8proc_uint8_t *)key, -1, &code);
        if (bytes <= 0)
            return count; /* no key is like that */
        if (code == ' ')
            continue;
        if (count == most)
            return most + 1;
        out[count++] = code;
    }
    return count;
}

const char *fold_fault(const char *text)
{
    utf8proc_ssize_t bytes;
    for (; *text; text += bytes) {
        utf8proc_int32_t code;
        bytes = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &code);
        if (bytes <= 0)
            return "expected UTF-8";
        if (utf8proc_category(code) == UTF8PROC_CATEGORY_CC)
            return "a control character";
    }
    return NULL;
}
