/* The syntax tree of a chat template: jinja_parse.c makes it, jinja_run.c renders it. */
#ifndef ZI_TEXT_JINJA_INTERNAL_H
#define ZI_TEXT_JINJA_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "text/jinja.h"

/* Bytes that one rendering may take, for the tree and all values. */
#define ZI_JINJA_MEMORY ((size_t)64 << 20)
/* Expressions and statements within each other. */
#define ZI_JINJA_DEPTH 100

typedef enum zi_jinja_kind {
    /* Expressions. text and number belong to the kind; a, b, c are operands; list is a chain of arguments. */
    ZI_JINJA_STRING,
    ZI_JINJA_INTEGER,
    ZI_JINJA_TRUE,
    ZI_JINJA_FALSE,
    ZI_JINJA_NONE,
    ZI_JINJA_NAME,
    ZI_JINJA_LIST,
    ZI_JINJA_ATTRIBUTE, /* a.text */
    ZI_JINJA_INDEX,     /* a[b] */
    ZI_JINJA_SLICE,     /* a[b:c:list], each of the three may be NULL */
    ZI_JINJA_CALL,      /* a(list) */
    ZI_JINJA_KEYWORD,   /* text=a, an argument of a call */
    ZI_JINJA_FILTER,    /* a|text(list) */
    ZI_JINJA_TEST,      /* a is text(list); number 1: is not */
    ZI_JINJA_NOT,
    ZI_JINJA_NEGATIVE,
    ZI_JINJA_BINARY,      /* a text b; text is the operator, "in" and "not in" too */
    ZI_JINJA_CONDITIONAL, /* a if b else c; c may be NULL */
    ZI_JINJA_UNSUPPORTED, /* text says what; an error only if it is reached */
    /* Statements. list is the chain of the body. */
    ZI_JINJA_TEXT,
    ZI_JINJA_OUTPUT,    /* {{ a }} */
    ZI_JINJA_IF,        /* if a: list, else: b->list; b may be NULL */
    ZI_JINJA_BLOCK,     /* the body of an else */
    ZI_JINJA_FOR,       /* for text in a if c: list, else: b->list; b, c may be NULL */
    ZI_JINJA_SET,       /* text = a; or text.(b->text) = a */
    ZI_JINJA_SET_BLOCK, /* text = the rendered list */
    ZI_JINJA_MACRO,     /* text is its name; calling it is unsupported */
} zi_jinja_kind;

typedef struct zi_jinja_node zi_jinja_node;
struct zi_jinja_node {
    zi_jinja_kind kind;
    size_t at; /* offset in the template */
    const char *text;
    size_t length; /* of text */
    int64_t number;
    zi_jinja_node *a, *b, *c, *list, *next;
};

typedef struct zi_jinja_chunk zi_jinja_chunk;

/* What parsing and rendering share. Once status is an error, everything returns at once. */
typedef struct zi_jinja {
    const zi_chat *chat;
    zimage_error *error;
    zimage_status status;
    zi_jinja_chunk *chunks;
    size_t used; /* bytes of all chunks */
    int depth;
} zi_jinja;

/* Memory that is valid until zi_jinja_free; aligned for every type, filled with zeros. NULL: the status is set. */
void *zi_jinja_alloc(zi_jinja *j, size_t size);
void zi_jinja_free(zi_jinja *j);
/* "NAME: line N: FORMAT, which is not supported" unless there is an error already. Returns NULL. */
void *zi_jinja_refuse(zi_jinja *j, size_t at, const char *format, ...) ZI_PRINTF(3, 4);

/* The chain of all statements; NULL: the template is empty, or the status is an error. */
zi_jinja_node *zi_jinja_parse(zi_jinja *j);

int zi_jinja_is(const zi_jinja_node *node, const char *text); /* whether node->text is this text */

/* 1: Python's str.isspace() holds for the character at *text; sets its length in bytes. text must not be at `end`. */
int zi_jinja_space(const char *text, const char *end, size_t *bytes);

#endif
