/* What is sent: texts, bytes, and the base64 of bytes, which is made while it is sent and stored nowhere. */
#ifndef ZI_SERVE_PIECES_H
#define ZI_SERVE_PIECES_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef struct piece {
    const uint8_t *data;
    size_t size;
    int is_base64;
    char *owned; /* freed with the piece; NULL: the data is another's */
} piece;

typedef struct pieces {
    piece *items;
    size_t count, allocated, total; /* total: bytes that are sent */
    int is_broken;                  /* there was no memory for a piece */
} pieces;

/* Adds a text, which is freed with the pieces; NULL: there was no memory for it. */
void pieces_add_owned(pieces *p, char *text);
void pieces_add_text(pieces *p, const char *text);
void pieces_add_bytes(pieces *p, const uint8_t *data, size_t size);
void pieces_add_base64(pieces *p, const uint8_t *data, size_t size);
/* A JSON value on one line, which is released; NULL: there was no memory for it. */
void pieces_add_json(pieces *p, json_t *value);
/* The same for an object, with another member whose value is the base64 of data. */
void pieces_add_json_with(pieces *p, json_t *object, const char *name, const uint8_t *data, size_t size);

/* The same with a copy of the data, which may be gone before they are sent. */
void pieces_add_json_copied(pieces *p, json_t *object, const char *name, const uint8_t *data, size_t size);

/* Copies up to `most` bytes from position `at`. */
size_t pieces_read(const pieces *p, size_t at, char *buffer, size_t most);
void pieces_clear(pieces *p);

#endif
