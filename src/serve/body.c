#include "body.h"

#include <stdlib.h>
#include <string.h>

#include "spool.h"

#define DEPTH_MAX      16
#define PARTS_MAX      64
#define TEXT_BYTES_MAX ((size_t)1 << 20) /* of all texts of a form */
#define NAME_BYTES_MAX 128
#define FORM_BUFFER    ((size_t)64 << 10)

/* FNV-1a of 64 bits */
#define FNV_START UINT64_C(14695981039346656037)
#define FNV_PRIME UINT64_C(1099511628211)

/* A part of a form. */
typedef struct part {
    char *name;
    int is_file;
    spool bytes;
} part;

struct body {
    body_kind kind;
    size_t limit, fed, text_bytes;
    uint64_t hash; /* of what was fed */
    spool all;     /* of JSON and of bytes */
    struct MHD_PostProcessor *processor;
    part *parts; /* [PARTS_MAX] of a form */
    size_t part_count;
    form_file *files; /* [PARTS_MAX] of a form */
    form form;
    fault fault;
};

static uint64_t hash_of(uint64_t hash, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)data[i]) * FNV_PRIME;
    return hash;
}

static int no_memory(fault *f)
{
    return fault_set(f, FAULT_INSUFFICIENT_MEMORY, NULL, "there is no memory for the request");
}

/* ---- forms ---- */

static part *new_part(body *b, const char *name, const char *file_name)
{
    if (!b->parts || b->part_count == PARTS_MAX) {
        fault_set(&b->fault, FAULT_INVALID_VALUE, NULL, "the form has more than %d parts", PARTS_MAX);
        return NULL;
    }
    if (strlen(name) > NAME_BYTES_MAX) {
        fault_set(&b->fault, FAULT_UNKNOWN_PARAMETER, NULL, "the form has a part whose name is too long");
        return NULL;
    }
    part *p = &b->parts[b->part_count];
    *p = (part){.name = strdup(name), .is_file = file_name != NULL};
    if (!p->name) {
        no_memory(&b->fault);
        return NULL;
    }
    b->part_count++;
    b->hash = hash_of(b->hash, p->name, strlen(p->name) + 1);
    return p;
}

/* The part that data belong to. libmicrohttpd may say the beginning of a part twice, the first time without data. */
static part *part_of(body *b, const char *name, const char *file_name, uint64_t at)
{
    part *last = b->part_count ? &b->parts[b->part_count - 1] : NULL;
    int goes_on = last && (at > 0 || (name && last->bytes.size == 0 && !strcmp(last->name, name)));
    return goes_on ? last : name ? new_part(b, name, file_name) : NULL;
}

static enum MHD_Result on_part(void *user, enum MHD_ValueKind kind, const char *name, const char *file_name,
                               const char *type, const char *encoding, const char *data, uint64_t at, size_t size)
{
    body *b = user;
    part *p = part_of(b, name, file_name, at);
    (void)kind, (void)type, (void)encoding;
    if (!p) {
        if (!b->fault.code)
            fault_set(&b->fault, FAULT_INVALID_VALUE, NULL, "the form has a part without a name");
        return MHD_NO;
    }
    b->text_bytes += p->is_file ? 0 : size;
    if (b->text_bytes > TEXT_BYTES_MAX) {
        fault_set(&b->fault, FAULT_STRING_TOO_LONG, p->name, "%s: with it the form's texts have more than %zu bytes",
                  p->name, TEXT_BYTES_MAX);
        return MHD_NO;
    }
    b->hash = hash_of(b->hash, data, size);
    if (spool_append(&p->bytes, data, size))
        return MHD_YES;
    no_memory(&b->fault);
    return MHD_NO;
}

/* Texts become values of the object, but images may be sent as texts, too: the reader of fields decides. */
static int add_text(body *b, part *p, fault *f)
{
    const char *text = spool_view(&p->bytes);
    if (json_object_get(b->form.object, p->name))
        return fault_set(f, FAULT_INVALID_VALUE, p->name, "%s: given twice", p->name);
    json_t *value = text && !memchr(text, 0, p->bytes.size) ? json_stringn(text, p->bytes.size) : NULL;
    if (!value || json_object_set_new(b->form.object, p->name, value) != 0)
        return fault_set(f, FAULT_INVALID_VALUE, p->name, "%s: expected a text in UTF-8", p->name);
    return 1;
}

static int add_file(body *b, part *p, fault *f)
{
    const char *data = spool_view(&p->bytes);
    if (!data)
        return no_memory(f);
    b->files[b->form.file_count++] = (form_file){p->name, (const uint8_t *)data, p->bytes.size};
    return 1;
}

static int finish_form(body *b, fault *f)
{
    int is_whole = b->processor && MHD_destroy_post_processor(b->processor) == MHD_YES;
    b->processor = NULL;
    if (!is_whole)
        return fault_set(f, FAULT_INVALID_VALUE, NULL, "the form is not complete");
    b->form = (form){.object = json_object(), .is_text = 1, .files = b->files};
    if (!b->form.object)
        return no_memory(f);
    for (size_t i = 0; i < b->part_count; i++) {
        part *p = &b->parts[i];
        if (!(p->is_file ? add_file(b, p, f) : add_text(b, p, f)))
            return 0;
    }
    return 1;
}

/* ---- JSON ---- */

/* Whether arrays and objects lie in each other deeper than that. jansson's own limit bounds the recursion. */
static int is_deeper(const json_t *value, int depth)
{
    const char *key;
    json_t *inner;
    size_t i;
    if (!json_is_array(value) && !json_is_object(value))
        return 0;
    if (depth == 0)
        return 1;
    json_array_foreach(value, i, inner)
    {
        if (is_deeper(inner, depth - 1))
            return 1;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, inner)
    {
        if (is_deeper(inner, depth - 1))
            return 1;
    }
    return 0;
}

static int finish_json(body *b, fault *f)
{
    json_error_t error;
    const char *text = spool_view(&b->all);
    if (!text)
        return no_memory(f);
    b->form.object = json_loadb(text, b->all.size, JSON_REJECT_DUPLICATES, &error);
    spool_free(&b->all);
    if (!b->form.object)
        return fault_set(f, FAULT_INVALID_JSON, NULL, "the body is no valid JSON: line %d, column %d: %s", error.line,
                         error.column, error.text);
    if (!json_is_object(b->form.object))
        return fault_set(f, FAULT_INVALID_JSON, NULL,
                         "the body is JSON, but no object, expected one such as {\"prompt\": \"a red apple\"}");
    if (is_deeper(b->form.object, DEPTH_MAX))
        return fault_set(f, FAULT_INVALID_JSON, NULL, "the body's arrays and objects are nested deeper than %d",
                         DEPTH_MAX);
    return 1;
}

/* ---- all kinds ---- */

static int begin_form(body *b, struct MHD_Connection *connection)
{
    b->parts = calloc(PARTS_MAX, sizeof *b->parts);
    b->files = calloc(PARTS_MAX, sizeof *b->files);
    if (b->parts && b->files)
        b->processor = MHD_create_post_processor(connection, FORM_BUFFER, on_part, b);
    return b->processor != NULL;
}

body *body_new(body_kind kind, size_t limit, struct MHD_Connection *connection)
{
    body *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->kind = kind;
    b->limit = limit;
    b->hash = FNV_START;
    if (kind == BODY_FORM && !begin_form(b, connection)) {
        body_free(b);
        return NULL;
    }
    return b;
}

void body_free(body *b)
{
    if (!b)
        return;
    if (b->processor)
        MHD_destroy_post_processor(b->processor);
    for (size_t i = 0; i < b->part_count; i++) {
        free(b->parts[i].name);
        spool_free(&b->parts[i].bytes);
    }
    json_decref(b->form.object);
    free(b->parts);
    free(b->files);
    spool_free(&b->all);
    free(b);
}

int body_feed(body *b, const char *data, size_t size, fault *f)
{
    b->fed += size;
    if (b->fed > b->limit)
        return fault_set(f, FAULT_REQUEST_TOO_LARGE, NULL, "the body has more than %zu bytes", b->limit);
    if (b->kind == BODY_NONE)
        return 1;
    if (b->kind != BODY_FORM) {
        b->hash = hash_of(b->hash, data, size);
        return spool_append(&b->all, data, size) || no_memory(f);
    }
    if (MHD_post_process(b->processor, data, size) == MHD_YES)
        return 1;
    if (!b->fault.code)
        return fault_set(f, FAULT_INVALID_VALUE, NULL, "the form is malformed");
    *f = b->fault;
    return 0;
}

int body_finish(body *b, const form **result, fault *f)
{
    *result = &b->form;
    if (b->kind == BODY_FORM)
        return finish_form(b, f);
    return b->kind != BODY_JSON || finish_json(b, f);
}

size_t body_size(const body *b)
{
    return b->fed;
}

const uint8_t *body_bytes(body *b, size_t *size)
{
    *size = b->all.size;
    return (const uint8_t *)spool_view(&b->all);
}

uint64_t body_hash(const body *b)
{
    return b->hash;
}
