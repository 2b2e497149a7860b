/*
 * The parser. Whitespace follows the environment of transformers: trim_blocks and lstrip_blocks are set, the last
 * newline of a template is dropped (jinja2/lexer.py). Operators bind as in jinja2/parser.py.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_internal.h"
#include "text/unicode.h"

typedef enum token_kind { TOKEN_END, TOKEN_STRING, TOKEN_INTEGER, TOKEN_NAME, TOKEN_OPERATOR } token_kind;

typedef struct token {
    token_kind kind;
    size_t at;
    const char *text;
    size_t length;
    int64_t number;
} token;

typedef struct parser {
    zi_jinja *j;
    const char *source, *end;
    const char *at;
    int in_block;      /* 1: within {% %}; 0: within {{ }} */
    int braces;        /* open braces within the tag */
    int line_starting; /* 1: the last character before `at` ended a line, or nothing is before it */
    token now;
    token tag; /* the name of the statement that ended a body: "endif", "else", ... */
} parser;

/* ---- memory and messages ----------------------------------------------------------------------------------------- */

struct zi_jinja_chunk {
    zi_jinja_chunk *next;
    max_align_t data[];
};

void *zi_jinja_alloc(zi_jinja *j, size_t size)
{
    if (j->status != ZIMAGE_OK)
        return NULL;
    if (size > ZI_JINJA_MEMORY - j->used)
        return zi_jinja_refuse(j, 0, "a template that takes more than %zu MiB", ZI_JINJA_MEMORY >> 20);
    zi_jinja_chunk *chunk = calloc(1, sizeof *chunk + size);
    if (!chunk) {
        j->status = zi_fail_memory(j->error, "a chat template", size);
        return NULL;
    }
    j->used += size + sizeof *chunk;
    chunk->next = j->chunks;
    j->chunks = chunk;
    return chunk->data;
}

void zi_jinja_free(zi_jinja *j)
{
    while (j->chunks) {
        zi_jinja_chunk *next = j->chunks->next;
        free(j->chunks);
        j->chunks = next;
    }
}

void *zi_jinja_refuse(zi_jinja *j, size_t at, const char *format, ...)
{
    char text[256];
    va_list arguments;
    if (j->status != ZIMAGE_OK)
        return NULL;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t line = 1;
    for (size_t i = 0; i < at && j->chat->source[i]; i++)
        line += j->chat->source[i] == '\n';
    j->status = zi_fail(j->error, ZIMAGE_ERROR_UNSUPPORTED,
                        "%s: line %zu of the chat template has %s, which is not supported", j->chat->name, line, text);
    return NULL;
}

int zi_jinja_is(const zi_jinja_node *node, const char *text)
{
    return node->length == strlen(text) && memcmp(node->text, text, node->length) == 0;
}

int zi_jinja_space(const char *text, const char *end, size_t *bytes)
{
    const uint8_t *cursor = (const uint8_t *)text;
    if (!zi_utf8_valid_prefix(text, end - text > 4 ? 4 : (size_t)(end - text)))
        return 0;
    uint32_t code = zi_utf8_next(&cursor);
    *bytes = (size_t)((const char *)cursor - text);
    return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
           code == 0x205F || code == 0x3000;
}

static void *fail(parser *p, const char *what)
{
    return zi_jinja_refuse(p->j, (size_t)(p->at - p->source), "%s", what);
}

static zi_jinja_node *new_node(parser *p, zi_jinja_kind kind)
{
    zi_jinja_node *node = zi_jinja_alloc(p->j, sizeof *node);
    if (!node)
        return NULL;
    node->kind = kind;
    node->at = p->now.at;
    return node;
}

/* ---- tokens within a tag ----------------------------------------------------------------------------------------- */

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int starts(const parser *p, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(p->end - p->at) >= length && memcmp(p->at, text, length) == 0;
}

static void skip_spaces(parser *p)
{
    size_t bytes = 0;
    while (p->at < p->end && zi_jinja_space(p->at, p->end, &bytes)) {
        p->line_starting = *p->at == '\n';
        p->at += bytes;
    }
}

/* The end of the tag, with the whitespace that it swallows. 0: the tag goes on. */
static int skip_end(parser *p)
{
    const char *plain = p->in_block ? "%}" : "}}";
    int minus = starts(p, "-"), plus = p->in_block && starts(p, "+");
    size_t sign = minus || plus;
    p->at += sign;
    if (!starts(p, plain)) {
        p->at -= sign;
        return 0;
    }
    p->at += 2;
    p->line_starting = 0;
    if (minus) {
        skip_spaces(p);
    } else if (p->in_block && !plus && starts(p, "\n")) {
        p->at++;
        p->line_starting = 1;
    }
    return 1;
}

/* A character of a string after its backslash, as Python has it. Writes up to 4 bytes; 0: not supported. */
static size_t unescape(const char *at, char *out)
{
    static const char FROM[] = "ntr\\'\"", TO[] = "\n\t\r\\'\"";
    const char *found = *at ? strchr(FROM, *at) : NULL;
    if (!found)
        return 0;
    *out = TO[found - FROM];
    return 1;
}

static void read_string(parser *p)
{
    char quote = *p->at;
    const char *end = p->at + 1;
    while (end < p->end && *end != quote)
        end += *end == '\\' && end + 1 < p->end ? 2 : 1;
    if (end >= p->end) {
        fail(p, "a string without an end");
        return;
    }
    char *text = zi_jinja_alloc(p->j, (size_t)(end - p->at) + 1);
    size_t length = 0;
    for (const char *c = p->at + 1; text && c < end; c++) {
        if (*c != '\\') {
            text[length++] = *c;
        } else if (unescape(++c, text + length)) {
            length++;
        } else {
            fail(p, "a string with an unusual escape");
            return;
        }
    }
    p->now = (token){TOKEN_STRING, (size_t)(p->at - p->source), text, length, 0};
    p->at = end + 1;
}

static void read_integer(parser *p)
{
    int64_t number = 0;
    const char *begin = p->at;
    while (p->at < p->end && is_digit(*p->at) && p->at - begin < 10)
        number = 10 * number + (*p->at++ - '0');
    if (p->at < p->end && (is_digit(*p->at) || is_letter(*p->at) || (*p->at == '.' && is_digit(p->at[1])))) {
        fail(p, "a number that is not a short integer");
        return;
    }
    p->now = (token){TOKEN_INTEGER, (size_t)(begin - p->source), begin, (size_t)(p->at - begin), number};
}

static void read_operator(parser *p)
{
    static const char *const OPERATORS[] = {"**", "//", "==", "!=", ">=", "<=", ">", "<", "=", "+", "-", "*", "/",
                                            "%",  "~",  "(",  ")",  "[",  "]",  "{", "}", ",", ".", ":", "|", ";"};
    for (size_t i = 0; i < sizeof OPERATORS / sizeof OPERATORS[0]; i++) {
        if (!starts(p, OPERATORS[i]))
            continue;
        p->now = (token){TOKEN_OPERATOR, (size_t)(p->at - p->source), OPERATORS[i], strlen(OPERATORS[i]), 0};
        p->braces += (*p->at == '{') - (*p->at == '}');
        p->at += p->now.length;
        return;
    }
    fail(p, "an unknown character");
}

static void next(parser *p)
{
    size_t bytes = 0;
    p->now = (token){TOKEN_END, (size_t)(p->at - p->source), "", 0, 0};
    while (p->at < p->end && zi_jinja_space(p->at, p->end, &bytes))
        p->at += bytes;
    if (p->j->status != ZIMAGE_OK || (p->braces == 0 && skip_end(p)))
        return;
    p->now.at = (size_t)(p->at - p->source);
    if (p->at >= p->end) {
        fail(p, "a tag without an end");
    } else if (*p->at == '"' || *p->at == '\'') {
        read_string(p);
    } else if (is_digit(*p->at)) {
        read_integer(p);
    } else if (is_letter(*p->at)) {
        const char *begin = p->at;
        while (p->at < p->end && (is_letter(*p->at) || is_digit(*p->at)))
            p->at++;
        p->now = (token){TOKEN_NAME, (size_t)(begin - p->source), begin, (size_t)(p->at - begin), 0};
    } else {
        read_operator(p);
    }
}

static int token_is(const token *t, token_kind kind, const char *text)
{
    return t->kind == kind && t->length == strlen(text) && memcmp(t->text, text, t->length) == 0;
}

static int at_operator(const parser *p, const char *text)
{
    return p->j->status == ZIMAGE_OK && token_is(&p->now, TOKEN_OPERATOR, text);
}

static int at_name(const parser *p, const char *text)
{
    return p->j->status == ZIMAGE_OK && token_is(&p->now, TOKEN_NAME, text);
}

static int accept_operator(parser *p, const char *text)
{
    if (!at_operator(p, text))
        return 0;
    next(p);
    return 1;
}

static int accept_name(parser *p, const char *text)
{
    if (!at_name(p, text))
        return 0;
    next(p);
    return 1;
}

static void expect_operator(parser *p, const char *text)
{
    if (!accept_operator(p, text))
        zi_jinja_refuse(p->j, p->now.at, "something else than the expected \"%s\"", text);
}

/* ---- expressions ------------------------------------------------------------------------------------------------- */

static zi_jinja_node *parse_expression(parser *p);
static zi_jinja_node *parse_unary(parser *p, int with_filters);

static zi_jinja_node *binary(parser *p, const char *operator_text, size_t length, zi_jinja_node *a, zi_jinja_node *b)
{
    zi_jinja_node *node = new_node(p, ZI_JINJA_BINARY);
    if (!node || !a || !b)
        return NULL;
    node->text = operator_text;
    node->length = length;
    node->a = a;
    node->b = b;
    return node;
}

/* The values up to a closing operator, with commas between them, as a chain. keywords: NAME=VALUE is one, too. */
static zi_jinja_node *parse_values(parser *p, const char *close, int keywords)
{
    zi_jinja_node *first = NULL, **last = &first;
    while (p->j->status == ZIMAGE_OK && !at_operator(p, close)) {
        zi_jinja_node *value = parse_expression(p);
        if (value && keywords && value->kind == ZI_JINJA_NAME && at_operator(p, "=")) {
            next(p);
            value->kind = ZI_JINJA_KEYWORD;
            value->a = parse_expression(p);
        }
        if (!value)
            return NULL;
        *last = value;
        last = &value->next;
        if (!at_operator(p, close))
            expect_operator(p, ",");
    }
    expect_operator(p, close);
    return first;
}

/* {KEY: VALUE, ...}: read over. */
static zi_jinja_node *parse_dictionary(parser *p)
{
    zi_jinja_node *node = new_node(p, ZI_JINJA_UNSUPPORTED);
    if (!node)
        return NULL;
    node->text = "a dictionary";
    next(p);
    while (p->j->status == ZIMAGE_OK && !at_operator(p, "}")) {
        parse_expression(p);
        expect_operator(p, ":");
        parse_expression(p);
        if (!at_operator(p, "}"))
            expect_operator(p, ",");
    }
    expect_operator(p, "}");
    return node;
}

static zi_jinja_node *parse_text(parser *p)
{
    zi_jinja_node *node = new_node(p, ZI_JINJA_STRING);
    while (node && p->j->status == ZIMAGE_OK && p->now.kind == TOKEN_STRING) { /* neighbours are one string */
        char *joined = zi_jinja_alloc(p->j, node->length + p->now.length + 1);
        if (!joined)
            return NULL;
        if (node->length)
            memcpy(joined, node->text, node->length);
        memcpy(joined + node->length, p->now.text, p->now.length);
        node->text = joined;
        node->length += p->now.length;
        next(p);
    }
    return node;
}

static zi_jinja_node *parse_name(parser *p)
{
    static const struct {
        const char *name;
        zi_jinja_kind kind;
    } CONSTANTS[] = {{"true", ZI_JINJA_TRUE},   {"True", ZI_JINJA_TRUE}, {"false", ZI_JINJA_FALSE},
                     {"False", ZI_JINJA_FALSE}, {"none", ZI_JINJA_NONE}, {"None", ZI_JINJA_NONE}};
    zi_jinja_node *node = new_node(p, ZI_JINJA_NAME);
    if (!node)
        return NULL;
    for (size_t i = 0; i < sizeof CONSTANTS / sizeof CONSTANTS[0]; i++)
        if (at_name(p, CONSTANTS[i].name))
            node->kind = CONSTANTS[i].kind;
    node->text = p->now.text;
    node->length = p->now.length;
    next(p);
    return node;
}

static zi_jinja_node *parse_primary(parser *p)
{
    zi_jinja_node *node = NULL;
    if (p->j->status != ZIMAGE_OK)
        return NULL;
    if (p->now.kind == TOKEN_STRING)
        return parse_text(p);
    if (p->now.kind == TOKEN_NAME)
        return parse_name(p);
    if (p->now.kind == TOKEN_INTEGER) {
        node = new_node(p, ZI_JINJA_INTEGER);
        if (node)
            node->number = p->now.number;
        next(p);
        return node;
    }
    if (accept_operator(p, "(")) {
        node = parse_expression(p);
        if (at_operator(p, ","))
            return fail(p, "a tuple");
        expect_operator(p, ")");
        return node;
    }
    if (at_operator(p, "[")) {
        node = new_node(p, ZI_JINJA_LIST);
        next(p);
        zi_jinja_node *values = parse_values(p, "]", 0);
        if (node)
            node->list = values;
        return node;
    }
    if (at_operator(p, "{"))
        return parse_dictionary(p);
    return fail(p, "something else than the expected expression");
}

/* a[b] or a[b:c:d], after the bracket. */
static zi_jinja_node *parse_subscript(parser *p, zi_jinja_node *object)
{
    zi_jinja_node *node = new_node(p, ZI_JINJA_INDEX), *parts[3] = {NULL};
    int part = 0;
    while (p->j->status == ZIMAGE_OK && !at_operator(p, "]")) {
        if (accept_operator(p, ":")) {
            if (++part > 2)
                return fail(p, "a slice of more than three parts");
        } else if (parts[part]) {
            return fail(p, "an index of more than one value");
        } else {
            parts[part] = parse_expression(p);
        }
    }
    expect_operator(p, "]");
    if (!node)
        return NULL;
    if (part == 0 && !parts[0])
        return fail(p, "an empty index");
    node->kind = part ? ZI_JINJA_SLICE : ZI_JINJA_INDEX;
    node->a = object;
    node->b = parts[0];
    node->c = parts[1];
    node->list = parts[2];
    return node;
}

/* a.NAME, a|NAME or the like: NAME comes now. */
static zi_jinja_node *parse_named(parser *p, zi_jinja_kind kind, zi_jinja_node *object)
{
    zi_jinja_node *node = new_node(p, kind);
    if (!node)
        return NULL;
    if (p->now.kind != TOKEN_NAME)
        return fail(p, "something else than the expected name");
    node->a = object;
    node->text = p->now.text;
    node->length = p->now.length;
    next(p);
    return node;
}

static zi_jinja_node *parse_call(parser *p, zi_jinja_node *callee)
{
    zi_jinja_node *node = new_node(p, ZI_JINJA_CALL);
    zi_jinja_node *arguments = parse_values(p, ")", 1);
    if (!node)
        return NULL;
    node->a = callee;
    node->list = arguments;
    return node;
}

static zi_jinja_node *parse_postfix(parser *p, zi_jinja_node *node)
{
    while (node && p->j->status == ZIMAGE_OK) {
        if (accept_operator(p, "."))
            node = parse_named(p, ZI_JINJA_ATTRIBUTE, node);
        else if (accept_operator(p, "["))
            node = parse_subscript(p, node);
        else if (accept_operator(p, "("))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* a is [not] NAME, with an argument in brackets, or a constant or name without them. */
static zi_jinja_node *parse_test(parser *p, zi_jinja_node *object)
{
    int negated = accept_name(p, "not");
    zi_jinja_node *node = parse_named(p, ZI_JINJA_TEST, object);
    if (!node)
        return NULL;
    node->number = negated;
    if (accept_operator(p, "("))
        node->list = parse_values(p, ")", 0);
    else if (p->now.kind == TOKEN_STRING || p->now.kind == TOKEN_INTEGER || at_operator(p, "[") ||
             at_operator(p, "{") ||
             (p->now.kind == TOKEN_NAME && !at_name(p, "else") && !at_name(p, "or") && !at_name(p, "and")))
        return fail(p, "a test with an argument without brackets");
    return node;
}

static zi_jinja_node *parse_filters(parser *p, zi_jinja_node *node)
{
    while (node && p->j->status == ZIMAGE_OK) {
        if (accept_operator(p, "|")) {
            node = parse_named(p, ZI_JINJA_FILTER, node);
            if (node && accept_operator(p, "("))
                node->list = parse_values(p, ")", 1);
        } else if (accept_name(p, "is")) {
            node = parse_test(p, node);
        } else if (accept_operator(p, "(")) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    return node;
}

static zi_jinja_node *parse_unary(parser *p, int with_filters)
{
    zi_jinja_node *node;
    if (++p->j->depth > ZI_JINJA_DEPTH)
        return fail(p, "too many expressions within each other");
    if (accept_operator(p, "-")) {
        zi_jinja_node *operand = parse_unary(p, 0);
        node = new_node(p, ZI_JINJA_NEGATIVE);
        if (node)
            node->a = operand;
    } else {
        node = parse_primary(p);
    }
    node = parse_postfix(p, node);
    if (with_filters)
        node = parse_filters(p, node);
    p->j->depth--;
    return node;
}

/* Operators that associate to the left, from those that bind least. */
static const char *const LEVELS[][5] = {{"+", "-", NULL}, {"~", NULL}, {"*", "/", "//", "%", NULL}, {"**", NULL}};
#define LEVEL_COUNT (sizeof LEVELS / sizeof LEVELS[0])

static zi_jinja_node *parse_level(parser *p, size_t level)
{
    if (level == LEVEL_COUNT)
        return parse_unary(p, 1);
    zi_jinja_node *node = parse_level(p, level + 1);
    for (;;) {
        const char *const *found = LEVELS[level];
        while (*found && !at_operator(p, *found))
            found++;
        if (!*found || !node)
            return node;
        next(p);
        node = binary(p, *found, strlen(*found), node, parse_level(p, level + 1));
    }
}

static zi_jinja_node *parse_comparison(parser *p)
{
    static const char *const OPERATORS[] = {"==", "!=", "<=", ">=", "<", ">"};
    zi_jinja_node *node = parse_level(p, 0);
    int found = 0;
    for (;;) {
        const char *operator_text = NULL;
        for (size_t i = 0; i < sizeof OPERATORS / sizeof OPERATORS[0] && !operator_text; i++)
            if (accept_operator(p, OPERATORS[i]))
                operator_text = OPERATORS[i];
        if (!operator_text && accept_name(p, "in"))
            operator_text = "in";
        if (!operator_text && at_name(p, "not")) {
            next(p);
            if (!accept_name(p, "in"))
                return fail(p, "something else than the expected \"in\"");
            operator_text = "not in";
        }
        if (!operator_text || !node)
            return node;
        if (found++)
            return fail(p, "a chain of comparisons");
        node = binary(p, operator_text, strlen(operator_text), node, parse_level(p, 0));
    }
}

static zi_jinja_node *parse_not(parser *p)
{
    int count = 0;
    while (accept_name(p, "not"))
        count = count == 2 ? 1 : count + 1; /* "not not not" is "not" */
    zi_jinja_node *node = parse_comparison(p);
    for (; node && count > 0; count--) {
        zi_jinja_node *negation = new_node(p, ZI_JINJA_NOT);
        if (negation)
            negation->a = node;
        node = negation;
    }
    return node;
}

static zi_jinja_node *parse_and(parser *p)
{
    zi_jinja_node *node = parse_not(p);
    while (node && accept_name(p, "and"))
        node = binary(p, "and", 3, node, parse_not(p));
    return node;
}

static zi_jinja_node *parse_or(parser *p)
{
    zi_jinja_node *node = parse_and(p);
    while (node && accept_name(p, "or"))
        node = binary(p, "or", 2, node, parse_and(p));
    return node;
}

static zi_jinja_node *parse_expression(parser *p)
{
    if (++p->j->depth > ZI_JINJA_DEPTH)
        return fail(p, "too many expressions within each other");
    zi_jinja_node *node = parse_or(p);
    if (node && accept_name(p, "if")) {
        zi_jinja_node *choice = new_node(p, ZI_JINJA_CONDITIONAL);
        if (!choice)
            return NULL;
        choice->a = node;
        choice->b = parse_or(p);
        if (accept_name(p, "else"))
            choice->c = parse_expression(p);
        node = choice;
    }
    p->j->depth--;
    return p->j->status == ZIMAGE_OK ? node : NULL;
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

static zi_jinja_node *parse_body(parser *p, const char *const *ends);

static void expect_end(parser *p)
{
    if (p->j->status == ZIMAGE_OK && p->now.kind != TOKEN_END)
        fail(p, "something else than the expected end of a tag");
}

/* The rest of a tag and the body after it, up to one of the names in `ends`, which becomes p->tag. */
static zi_jinja_node *parse_rest(parser *p, const char *const *ends)
{
    expect_end(p);
    return parse_body(p, ends);
}

static zi_jinja_node *parse_else(parser *p, const char *const *ends)
{
    zi_jinja_node *node = new_node(p, ZI_JINJA_BLOCK);
    zi_jinja_node *body = parse_rest(p, ends);
    if (node)
        node->list = body;
    return node;
}

static zi_jinja_node *parse_if(parser *p)
{
    static const char *const MIDDLE[] = {"elif", "else", "endif", NULL}, *const LAST[] = {"endif", NULL};
    if (++p->j->depth > ZI_JINJA_DEPTH)
        return fail(p, "too many statements within each other");
    zi_jinja_node *node = new_node(p, ZI_JINJA_IF);
    if (!node)
        return NULL;
    node->a = parse_or(p);
    node->list = parse_rest(p, MIDDLE);
    if (token_is(&p->tag, TOKEN_NAME, "elif")) {
        node->b = new_node(p, ZI_JINJA_BLOCK);
        if (node->b)
            node->b->list = parse_if(p);
    } else if (token_is(&p->tag, TOKEN_NAME, "else")) {
        node->b = parse_else(p, LAST);
        expect_end(p);
    } else {
        expect_end(p);
    }
    p->j->depth--;
    return node;
}

static zi_jinja_node *parse_for(parser *p)
{
    static const char *const MIDDLE[] = {"else", "endfor", NULL}, *const LAST[] = {"endfor", NULL};
    zi_jinja_node *node = parse_named(p, ZI_JINJA_FOR, NULL);
    if (!node)
        return NULL;
    while (accept_operator(p, ",")) { /* several targets: an error where the loop runs */
        node->number = 1;
        if (!parse_named(p, ZI_JINJA_NAME, NULL))
            return NULL;
    }
    if (!accept_name(p, "in"))
        return fail(p, "something else than the expected \"in\"");
    node->a = parse_or(p);
    if (accept_name(p, "if"))
        node->c = parse_expression(p);
    if (at_name(p, "recursive"))
        return fail(p, "a recursive loop");
    node->list = parse_rest(p, MIDDLE);
    if (token_is(&p->tag, TOKEN_NAME, "else"))
        node->b = parse_else(p, LAST);
    expect_end(p);
    return node;
}

static zi_jinja_node *parse_set(parser *p)
{
    static const char *const LAST[] = {"endset", NULL};
    zi_jinja_node *node = parse_named(p, ZI_JINJA_SET, NULL);
    if (!node)
        return NULL;
    if (accept_operator(p, "."))
        node->b = parse_named(p, ZI_JINJA_NAME, NULL);
    if (accept_operator(p, "=")) {
        node->a = parse_expression(p);
        expect_end(p);
        return node;
    }
    if (node->b || p->now.kind != TOKEN_END)
        return fail(p, "an unusual {% set %}");
    node->kind = ZI_JINJA_SET_BLOCK;
    node->list = parse_rest(p, LAST);
    expect_end(p);
    return node;
}

/* The signature is read over; the body must only be well-formed. */
static zi_jinja_node *parse_macro(parser *p)
{
    static const char *const LAST[] = {"endmacro", NULL};
    zi_jinja_node *node = parse_named(p, ZI_JINJA_MACRO, NULL);
    while (p->j->status == ZIMAGE_OK && p->now.kind != TOKEN_END)
        next(p);
    parse_rest(p, LAST);
    expect_end(p);
    return node;
}

/* {% generation %} of transformers only marks a part of the text. */
static zi_jinja_node *parse_generation(parser *p)
{
    static const char *const LAST[] = {"endgeneration", NULL};
    zi_jinja_node *node = parse_else(p, LAST);
    expect_end(p);
    return node;
}

static zi_jinja_node *parse_statement(parser *p)
{
    if (accept_name(p, "if"))
        return parse_if(p);
    if (accept_name(p, "for"))
        return parse_for(p);
    if (accept_name(p, "set"))
        return parse_set(p);
    if (accept_name(p, "macro"))
        return parse_macro(p);
    if (accept_name(p, "generation"))
        return parse_generation(p);
    return zi_jinja_refuse(p->j, p->now.at, "the statement \"%.*s\"", (int)(p->now.length < 40 ? p->now.length : 40),
                           p->now.text);
}

/* ---- text and tags ----------------------------------------------------------------------------------------------- */

/* The next tag at or after p->at; its end if there is none. */
static const char *find_tag(const parser *p)
{
    for (const char *c = p->at; c + 1 < p->end; c++)
        if (c[0] == '{' && (c[1] == '{' || c[1] == '%' || c[1] == '#'))
            return c;
    return p->end;
}

static const char *strip_end(const char *begin, const char *end)
{
    const char *kept = begin;
    size_t bytes = 1;
    for (const char *c = begin; c < end; c += bytes)
        if (!zi_jinja_space(c, end, &bytes))
            kept = c + bytes;
    return kept;
}

/* The end of the text before a tag, without the whitespace that the tag swallows. */
static const char *end_of_text(const parser *p, const char *tag)
{
    char sign = tag + 2 < p->end ? tag[2] : 0;
    if (tag == p->end || sign == '+')
        return tag;
    if (sign == '-')
        return strip_end(p->at, tag);
    if (tag[1] == '{')
        return tag;
    const char *line = tag;
    while (line > p->at && line[-1] != '\n')
        line--;
    if (line == p->at && !p->line_starting)
        return tag;
    return strip_end(line, tag) == line ? line : tag;
}

static zi_jinja_node *parse_plain(parser *p, const char *tag)
{
    const char *end = end_of_text(p, tag);
    zi_jinja_node *node = NULL;
    if (end > p->at) {
        node = new_node(p, ZI_JINJA_TEXT);
        if (node) {
            node->text = p->at;
            node->length = (size_t)(end - p->at);
        }
    }
    p->at = tag;
    return node;
}

static void skip_comment(parser *p)
{
    while (p->at < p->end && !starts(p, "#}"))
        p->at++;
    if (p->at >= p->end) {
        fail(p, "a comment without an end");
        return;
    }
    char sign = p->at[-1];
    p->at += 2;
    p->line_starting = 0;
    if (sign == '-') {
        skip_spaces(p);
    } else if (sign != '+' && starts(p, "\n")) {
        p->at++;
        p->line_starting = 1;
    }
}

/* At a tag. NULL: a comment, or one of `ends`, which becomes p->tag. */
static zi_jinja_node *parse_tag(parser *p, const char *const *ends, int *ended)
{
    char kind = p->at[1];
    p->at += 2;
    if (kind == '#') {
        skip_comment(p);
        return NULL;
    }
    if (p->at < p->end && (*p->at == '-' || *p->at == '+'))
        p->at++;
    p->in_block = kind == '%';
    p->braces = 0;
    next(p);
    if (kind == '{') {
        zi_jinja_node *node = new_node(p, ZI_JINJA_OUTPUT), *value = parse_expression(p);
        expect_end(p);
        if (node)
            node->a = value;
        return node;
    }
    for (; *ends; ends++) {
        if (!at_name(p, *ends))
            continue;
        p->tag = p->now;
        *ended = 1;
        next(p);
        return NULL;
    }
    return parse_statement(p);
}

static zi_jinja_node *parse_body(parser *p, const char *const *ends)
{
    zi_jinja_node *first = NULL, **last = &first;
    int ended = 0;
    if (++p->j->depth > ZI_JINJA_DEPTH)
        return fail(p, "too many statements within each other");
    while (p->j->status == ZIMAGE_OK && !ended) {
        const char *tag = find_tag(p);
        *last = parse_plain(p, tag);
        if (*last)
            last = &(*last)->next;
        if (tag == p->end)
            break;
        *last = parse_tag(p, ends, &ended);
        if (*last)
            last = &(*last)->next;
    }
    if (!ended && *ends)
        fail(p, "a statement without an end");
    p->j->depth--;
    return first;
}

zi_jinja_node *zi_jinja_parse(zi_jinja *j)
{
    static const char *const NONE[] = {NULL};
    size_t length = strlen(j->chat->source);
    if (memchr(j->chat->source, '\r', length))
        return zi_jinja_refuse(j, 0, "a carriage return");
    if (length && j->chat->source[length - 1] == '\n')
        length--;
    parser p = {
        .j = j, .source = j->chat->source, .at = j->chat->source, .end = j->chat->source + length, .line_starting = 1};
    return parse_body(&p, NONE);
}
