/*
 * What a client asks for, in any dialect. One table (field_table.c) describes every field of every dialect: reading of
 * JSON and of forms, errors and /openapi.json come from it.
 */
#ifndef ZI_SERVE_REQUEST_H
#define ZI_SERVE_REQUEST_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"
#include "shared/row_set.h"
#include "shared/service.h"
#include "zimage.h"

#define REQUEST_IMAGES_MAX 8
#define REQUEST_NOTES_MAX  48 /* of ignored fields, and of warnings */

/* The dialects: which fields a request may have. */
typedef enum serve_dialect {
    DIALECT_GENERATE, /* OpenAI's images/generations */
    DIALECT_EDIT,     /* OpenAI's images/edits */
    DIALECT_JOB,      /* zimage's own: all fields of both */
    DIALECT_TXT2IMG,  /* AUTOMATIC1111's */
    DIALECT_IMG2IMG,
    DIALECT_OPTIONS, /* its settings */
    DIALECTS,
} serve_dialect;

/* What is stored in a serve_request. The values of fields that were not given are 0. */
typedef struct serve_request {
    serve_dialect dialect;
    row_set given; /* rows of the table */
    char *prompt, *negative_prompt, *model, *user, *size;
    int64_t n, batch_size, n_iter, width, height, steps, partial_images, compression;
    uint64_t seed; /* decided by serve_request_finish where none was given */
    double guidance, cfg_scale, strength;
    int quality, response_format, format, background, rng, priority; /* indexes of words */
    int stream, progress, embed_recipe, send_images, invert_mask, composite;
    zimage_image *images[REQUEST_IMAGES_MAX], *mask;
    size_t image_count;
    service_input inputs[REQUEST_IMAGES_MAX + 1]; /* of a front: images, and behind them the mask, for its workers */
    size_t input_count;
    uint64_t image_bytes;             /* of images and mask, decoded; and of inputs */
    char *ignored[REQUEST_NOTES_MAX]; /* fields that were accepted and change nothing */
    size_t ignored_count;
    char *warnings[REQUEST_NOTES_MAX];
    size_t warning_count;
} serve_request;

typedef enum field_kind {
    FIELD_TEXT,    /* char *, of `low` to `high` characters of UTF-8 */
    FIELD_INT,     /* int64_t in [low, high] */
    FIELD_SEED,    /* uint64_t; -1 and null are no seed */
    FIELD_NUMBER,  /* double in [low, high] */
    FIELD_BOOL,    /* int */
    FIELD_WORD,    /* int: index of a word */
    FIELD_IMAGES,  /* images; a file of a form, or base64 in JSON */
    FIELD_MASK,    /* the same, one image */
    FIELD_OBJECT,  /* an object whose fields are read as if they were the request's own */
    FIELD_IGNORED, /* accepted, and named in the answer */
    FIELD_REFUSED, /* known, and refused when it is not null: `doc` says why */
} field_kind;

typedef struct request_field {
    const char *name;
    const char *aliases; /* separated by spaces; NULL: none */
    const char *doc;
    field_kind kind;
    unsigned dialects; /* bit i: dialect i has it */
    size_t offset;     /* in serve_request */
    double low, high;
    const char *const *words;   /* of FIELD_WORD, ended by NULL */
    const char *const *refused; /* further words, which are known and refused; ended by NULL */
    int64_t fallback;           /* of FIELD_INT, FIELD_BOOL, FIELD_WORD: the value where none is given */
    int is_required;
} request_field;

extern const request_field field_table[];
extern const size_t field_table_size;

/* Words of format, in the order of zimage_format, and of rng, of zimage_rng. */
extern const char *const serve_format_words[], *const serve_rng_words[], *const serve_quality_words[];

/* A file of a form. */
typedef struct form_file {
    char *name; /* of its part */
    const uint8_t *data;
    size_t size;
} form_file;

/* The body of a request: an object, whose values are texts if it was a form, and the files of a form. */
typedef struct form {
    json_t *object;
    int is_text;
    form_file *files;
    size_t file_count;
} form;

/* How large an input image may be; all: decoded bytes of all images of a request. */
typedef struct image_limits {
    uint64_t bytes, pixels, all;
} image_limits;

/* Reads a body by the table. 0: the fault says what is wrong. *request is released with serve_request_free, also then.
 */
int serve_request_read(const form *body, serve_dialect dialect, const image_limits *limits, serve_request *request,
                       fault *f);
void serve_request_free(serve_request *request);
/* Encodes the images as the files that workers read. 0: the fault says what is wrong. */
int serve_request_encode(serve_request *request, fault *f);
/* Releases the images, and keeps how many there were. */
void serve_request_drop_images(serve_request *request);
/* Whether a body has images, which take time to be decoded. */
int serve_request_shows_images(const form *body, serve_dialect dialect);
/* Whether the field that is stored at an offset was given. */
int serve_request_has(const serve_request *request, size_t offset);
#define REQUEST_HAS(request, member) serve_request_has(request, offsetof(serve_request, member))
/* Notes that a field changes nothing, or what the client should know. A note that there is no room for is dropped. */
void serve_request_ignore(serve_request *request, const char *name);
void serve_request_warn(serve_request *request, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether it is one of AUTOMATIC1111's, whose clients send dozens of fields: unknown ones are ignored. */
int is_sdapi_dialect(serve_dialect dialect);

/* The schema of a dialect's body, for /openapi.json. NULL: no memory. */
json_t *serve_request_schema(serve_dialect dialect);

#endif
