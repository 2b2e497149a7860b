/* From a body to a serve_request, by the table of fields. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "request.h"
#include "shared/base64.h"
#include "shared/words.h"

#define NUMBER_MAX 64 /* characters of a number in a form */

typedef struct reader {
    const form *body;
    const image_limits *limits;
    serve_request *request;
    fault *fault;
} reader;

/* A value before it is stored: one of these, as the kind says. */
typedef struct parsed {
    char *text;
    int64_t integer;
    uint64_t seed;
    double number;
    int flag;
} parsed;

static const request_field *find_field(serve_dialect dialect, const char *name)
{
    for (const request_field *f = field_table; f < field_table + field_table_size; f++)
        if ((f->dialects & 1u << dialect) && (!strcmp(f->name, name) || words_have(f->aliases, ' ', name, strncmp)))
            return f;
    return NULL;
}

static int is_given(const serve_request *request, const request_field *f)
{
    return row_set_has(&request->given, (size_t)(f - field_table));
}

static void mark_given(serve_request *request, const request_field *f)
{
    row_set_add(&request->given, (size_t)(f - field_table));
}

int serve_request_has(const serve_request *request, size_t offset)
{
    for (const request_field *f = field_table; f < field_table + field_table_size; f++)
        if (f->kind < FIELD_OBJECT && f->offset == offset && is_given(request, f))
            return 1;
    return 0;
}

/* Each image of a job may warn of the same: it is noted once. */
static void note(char *list[REQUEST_NOTES_MAX], size_t *count, const char *text)
{
    for (size_t i = 0; i < *count; i++)
        if (!strcmp(list[i], text))
            return;
    if (*count < REQUEST_NOTES_MAX && (list[*count] = strdup(text)))
        ++*count;
}

void serve_request_ignore(serve_request *request, const char *name)
{
    note(request->ignored, &request->ignored_count, name);
}

void serve_request_warn(serve_request *request, const char *format, ...)
{
    char text[2048]; /* longer than any message of the library */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    note(request->warnings, &request->warning_count, text);
}

/* ---- values ---- */

static void words_of(const request_field *f, char *text, size_t size)
{
    size_t used = 0;
    *text = 0;
    for (int i = 0; f->words[i] && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 i == 0            ? ""
                                 : f->words[i + 1] ? ", "
                                                   : " or ",
                                 f->words[i]);
}

/* The sentence for a value that is not as the table says. */
static int refuse(const reader *r, const request_field *f, const char *name)
{
    char words[256];
    switch (f->kind) {
    case FIELD_TEXT:
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected a text of %.0f to %.0f characters", name,
                         f->low, f->high);
    case FIELD_INT:
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected a whole number from %.0f to %.0f", name,
                         f->low, f->high);
    case FIELD_SEED:
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected a whole number from 0 to 2^64 - 1, or -1",
                         name);
    case FIELD_NUMBER:
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected a number from %g to %g", name, f->low,
                         f->high);
    case FIELD_BOOL:
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected true or false", name);
    case FIELD_WORD:
        words_of(f, words, sizeof words);
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected %s", name, words);
    case FIELD_OBJECT:
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected an object", name);
    default:
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected an image in base64, or a list of them",
                         name);
    }
}

static size_t characters_of(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xC0) != 0x80; /* not the first byte of a character */
    return count;
}

static int read_text(const reader *r, const request_field *f, const char *name, const json_t *json, parsed *v)
{
    const char *text = json_string_value(json);
    size_t characters = text ? characters_of(text) : 0;
    if (!text || (double)characters < f->low)
        return refuse(r, f, name);
    if ((double)characters > f->high)
        return fault_set(r->fault, FAULT_STRING_TOO_LONG, name, "%s: %zu characters, expected at most %.0f", name,
                         characters, f->high);
    v->text = strdup(text);
    return v->text ? 1 : fault_set(r->fault, FAULT_INSUFFICIENT_MEMORY, NULL, "there is no memory for the request");
}

/* Forms have texts only; JSON has numbers, and texts for seeds beyond its integers. */
static int text_to_integer(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)text[*text == '-']) || strlen(text) > NUMBER_MAX)
        return 0;
    *value = strtoll(text, &end, 10);
    return !*end && !errno;
}

static int read_integer(const reader *r, const json_t *json, int64_t *value)
{
    if (json_is_integer(json))
        *value = json_integer_value(json);
    else if (json_is_real(json) && json_real_value(json) == floor(json_real_value(json)) &&
             fabs(json_real_value(json)) < 0x1p53)
        *value = (int64_t)json_real_value(json);
    else
        return r->body->is_text && json_is_string(json) && text_to_integer(json_string_value(json), value);
    return 1;
}

static int read_int(const reader *r, const request_field *f, const char *name, const json_t *json, parsed *v)
{
    if (!read_integer(r, json, &v->integer) || (double)v->integer < f->low || (double)v->integer > f->high)
        return refuse(r, f, name);
    return 1;
}

/* 2: there is no seed. */
static int read_seed(const reader *r, const request_field *f, const char *name, const json_t *json, parsed *v)
{
    int64_t integer = 0;
    if (json_is_string(json) && strcmp(json_string_value(json), "-1") != 0) {
        const char *text = json_string_value(json);
        char *end;
        errno = 0;
        v->seed = strtoull(text, &end, 10);
        return isdigit((unsigned char)*text) && strlen(text) <= NUMBER_MAX && !*end && !errno ? 1 : refuse(r, f, name);
    }
    if (!json_is_string(json) && (!read_integer(r, json, &integer) || integer < -1))
        return refuse(r, f, name);
    v->seed = (uint64_t)integer;
    return json_is_string(json) || integer == -1 ? 2 : 1;
}

static int read_number(const reader *r, const request_field *f, const char *name, const json_t *json, parsed *v)
{
    const char *text = r->body->is_text ? json_string_value(json) : NULL;
    char *end = "";
    if (text)
        v->number = strtod(text, &end); /* the program keeps the locale "C" */
    else if (json_is_number(json))
        v->number = json_number_value(json);
    else
        return refuse(r, f, name);
    int begins = !text || isdigit((unsigned char)text[*text == '-']) || *text == '.';
    if (!begins || *end || !(v->number >= f->low && v->number <= f->high))
        return refuse(r, f, name);
    return 1;
}

static int read_bool(const reader *r, const request_field *f, const char *name, const json_t *json, parsed *v)
{
    const char *text = r->body->is_text ? json_string_value(json) : NULL;
    if (json_is_boolean(json))
        v->flag = json_is_true(json);
    else if (json_is_integer(json) && (json_integer_value(json) | 1) == 1)
        v->flag = (int)json_integer_value(json);
    else if (text && (!strcasecmp(text, "true") || !strcmp(text, "1")))
        v->flag = 1;
    else if (text && (!strcasecmp(text, "false") || !strcmp(text, "0")))
        v->flag = 0;
    else
        return refuse(r, f, name);
    return 1;
}

static int read_word(const reader *r, const request_field *f, const char *name, const json_t *json, parsed *v)
{
    const char *text = json_string_value(json);
    char words[256];
    for (int i = 0; text && f->words[i]; i++)
        if (!strcmp(text, f->words[i])) {
            v->flag = i;
            return 1;
        }
    for (int i = 0; text && f->refused && f->refused[i]; i++) {
        if (strcmp(text, f->refused[i]) != 0)
            continue;
        words_of(f, words, sizeof words);
        return fault_set(r->fault, FAULT_UNSUPPORTED_VALUE, name, "%s: %s is not supported, expected %s", name, text,
                         words);
    }
    return refuse(r, f, name);
}

/* ---- images ---- */

/* The limit of a request's images together. */
static int count_image(const reader *r, const char *name, const zimage_image *image)
{
    uint64_t *bytes = &r->request->image_bytes;
    *bytes += 3 * (uint64_t)zimage_image_width(image) * (uint64_t)zimage_image_height(image);
    return *bytes <= r->limits->all ||
           fault_set(r->fault, FAULT_REQUEST_TOO_LARGE, name, "%s: the images have more than %llu pixels together",
                     name, (unsigned long long)r->limits->all / 3);
}

static int decode_image(const reader *r, const char *name, const uint8_t *data, size_t size, zimage_image **image)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_decode_params params = {
        .struct_size = sizeof params, .max_pixels = r->limits->pixels, .max_bytes = r->limits->bytes};
    if (zimage_image_decode_with(data, size, &params, image, &error) == ZIMAGE_OK)
        return count_image(r, name, *image);
    fault_code code = error.status == ZIMAGE_ERROR_MEMORY ? FAULT_INSUFFICIENT_MEMORY : FAULT_INVALID_IMAGE;
    return fault_set(r->fault, code, name, "%s: %s", name, error.message);
}

static int add_image(const reader *r, const request_field *f, const char *name, const uint8_t *data, size_t size)
{
    serve_request *q = r->request;
    if (f->kind == FIELD_MASK) {
        if (q->mask)
            return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected one image", name);
        return decode_image(r, name, data, size, &q->mask);
    }
    if (q->image_count == REQUEST_IMAGES_MAX)
        return fault_set(r->fault, FAULT_INVALID_VALUE, name, "%s: expected at most %d images", name,
                         REQUEST_IMAGES_MAX);
    if (!decode_image(r, name, data, size, &q->images[q->image_count]))
        return 0;
    q->image_count++;
    return 1;
}

/* Base64, perhaps behind "data:image/png;base64,". An address is never fetched. */
static int add_base64(const reader *r, const request_field *f, const char *name, const json_t *json)
{
    const char *text = json_string_value(json), *comma = NULL;
    uint8_t *data;
    size_t size;
    if (!text)
        return refuse(r, f, name);
    if (!strncmp(text, "data:", strlen("data:")) && (comma = strchr(text, ',')))
        text = comma + 1;
    if (!base64_read(text, strlen(text), &data, &size))
        return refuse(r, f, name);
    int ok = add_image(r, f, name, data, size);
    free(data);
    return ok;
}

static int read_images(const reader *r, const request_field *f, const char *name, const json_t *json)
{
    if (!json_is_array(json))
        return add_base64(r, f, name, json);
    for (size_t i = 0; i < json_array_size(json); i++)
        if (!add_base64(r, f, name, json_array_get(json, i)))
            return 0;
    return 1;
}

/* ---- fields ---- */

/* Stores a value, or compares it where another name of the same field has given one. */
static int store(const reader *r, const request_field *f, const char *name, parsed *v)
{
    void *place = (char *)r->request + f->offset;
    int is_twice = serve_request_has(r->request, f->offset), differs = 0;
    if (f->kind == FIELD_TEXT) {
        char **text = place;
        differs = is_twice && v->text && strcmp(*text, v->text) != 0;
        free(*text);
        *text = v->text;
    } else if (f->kind == FIELD_INT) {
        differs = *(int64_t *)place != v->integer;
        *(int64_t *)place = v->integer;
    } else if (f->kind == FIELD_SEED) {
        differs = *(uint64_t *)place != v->seed;
        *(uint64_t *)place = v->seed;
    } else if (f->kind == FIELD_NUMBER) {
        differs = *(double *)place != v->number;
        *(double *)place = v->number;
    } else {
        differs = *(int *)place != v->flag;
        *(int *)place = v->flag;
    }
    mark_given(r->request, f);
    if (is_twice && differs)
        return fault_set(r->fault, FAULT_INVALID_VALUE, name,
                         "%s: another name of this field has another value, expected one of both", name);
    return 1;
}

static int read_object(const reader *r, const json_t *object);

static int read_field(const reader *r, const request_field *f, const char *name, const json_t *json)
{
    static int (*const readers[])(const reader *, const request_field *, const char *, const json_t *, parsed *) = {
        [FIELD_TEXT] = read_text,     [FIELD_INT] = read_int,   [FIELD_SEED] = read_seed,
        [FIELD_NUMBER] = read_number, [FIELD_BOOL] = read_bool, [FIELD_WORD] = read_word,
    };
    parsed v = {0};
    switch (f->kind) {
    case FIELD_IMAGES:
    case FIELD_MASK:
        mark_given(r->request, f);
        return read_images(r, f, name, json);
    case FIELD_OBJECT:
        return json_is_object(json) ? read_object(r, json) : refuse(r, f, name);
    case FIELD_IGNORED:
        serve_request_ignore(r->request, name);
        return 1;
    case FIELD_REFUSED:
        return fault_set(r->fault, FAULT_UNSUPPORTED_PARAMETER, name, "%s: not supported: %s", name, f->doc);
    default:
        break;
    }
    int code = readers[f->kind](r, f, name, json, &v);
    return code == 1 ? store(r, f, name, &v) : code;
}

int is_sdapi_dialect(serve_dialect dialect)
{
    return dialect >= DIALECT_TXT2IMG;
}

static int unknown_parameter(const reader *r, const char *name)
{
    return fault_set(r->fault, FAULT_UNKNOWN_PARAMETER, name,
                     "%s: unknown parameter; /openapi.json lists those that are known", name);
}

static int read_object(const reader *r, const json_t *object)
{
    const char *name;
    json_t *json;
    json_object_foreach((json_t *)(uintptr_t)object, name, json)
    {
        const request_field *f = find_field(r->request->dialect, name);
        if (!f && !is_sdapi_dialect(r->request->dialect))
            return unknown_parameter(r, name);
        if (!f && !json_is_null(json))
            serve_request_ignore(r->request, name);
        if (f && !json_is_null(json) && !read_field(r, f, name, json))
            return 0;
    }
    return 1;
}

static int has_image_field(const json_t *object, serve_dialect dialect)
{
    const char *name;
    json_t *json;
    json_object_foreach((json_t *)(uintptr_t)object, name, json)
    {
        const request_field *f = find_field(dialect, name);
        if (f && (f->kind == FIELD_IMAGES || f->kind == FIELD_MASK ||
                  (f->kind == FIELD_OBJECT && json_is_object(json) && has_image_field(json, dialect))))
            return 1;
    }
    return 0;
}

int serve_request_shows_images(const form *body, serve_dialect dialect)
{
    return body->file_count > 0 || has_image_field(body->object, dialect);
}

static int read_files(const reader *r)
{
    for (size_t i = 0; i < r->body->file_count; i++) {
        const form_file *file = &r->body->files[i];
        const request_field *f = find_field(r->request->dialect, file->name);
        if (!f || (f->kind != FIELD_IMAGES && f->kind != FIELD_MASK))
            return unknown_parameter(r, file->name);
        mark_given(r->request, f);
        if (!add_image(r, f, file->name, file->data, file->size))
            return 0;
    }
    return 1;
}

/* Repaints what the mask keeps, and keeps what it repaints. */
static int invert_mask(const reader *r)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *mask = r->request->mask, *inverted = NULL;
    int32_t width = zimage_image_width(mask), height = zimage_image_height(mask);
    size_t size = 3 * (size_t)width * (size_t)height;
    uint8_t *pixels = malloc(size);
    zimage_status status = ZIMAGE_ERROR_MEMORY;
    if (pixels) {
        for (size_t i = 0; i < size; i++)
            pixels[i] = (uint8_t)(255 - zimage_image_pixels(mask)[i]);
        status = zimage_image_from_pixels(pixels, width, height, 3 * (size_t)width, 3, &inverted, &error);
    }
    free(pixels);
    if (status != ZIMAGE_OK)
        return fault_set(r->fault, FAULT_INSUFFICIENT_MEMORY, "mask", "mask: there is no memory to invert it");
    zimage_image_free(mask);
    r->request->mask = inverted;
    return 1;
}

static void set_fallback(serve_request *request, const request_field *f)
{
    void *place = (char *)request + f->offset;
    if (f->kind == FIELD_INT)
        *(int64_t *)place = f->fallback;
    else if (f->kind == FIELD_BOOL || f->kind == FIELD_WORD)
        *(int *)place = (int)f->fallback;
}

int serve_request_read(const form *body, serve_dialect dialect, const image_limits *limits, serve_request *request,
                       fault *f)
{
    const reader r = {body, limits, request, f};
    *request = (serve_request){.dialect = dialect};
    for (const request_field *row = field_table; row < field_table + field_table_size; row++)
        set_fallback(request, row);
    if (!read_object(&r, body->object) || !read_files(&r))
        return 0;
    for (const request_field *row = field_table; row < field_table + field_table_size; row++)
        if (row->is_required && (row->dialects & 1u << dialect) && !is_given(request, row))
            return fault_set(f, FAULT_MISSING_PARAMETER, row->name, "%s: missing; /openapi.json describes it",
                             row->name);
    return !request->invert_mask || !request->mask || invert_mask(&r);
}

/* Fronts decode over white. */
static int encode_input(serve_request *request, const zimage_image *image, fault *f)
{
    static const uint8_t white[3] = {255, 255, 255};
    const zimage_save_params params = {.struct_size = sizeof params, .alpha_over = white};
    zimage_error error = ZIMAGE_ERROR_INIT;
    service_input *input = &request->inputs[request->input_count];
    if (zimage_image_encode_with(image, ZIMAGE_FORMAT_PNG, &params, &input->data, &input->size, &error) != ZIMAGE_OK)
        return fault_set(f, FAULT_INSUFFICIENT_MEMORY, NULL, "there is no memory for the input images");
    request->input_count++;
    request->image_bytes += input->size;
    return 1;
}

int serve_request_encode(serve_request *request, fault *f)
{
    int ok = 1;
    for (size_t i = 0; i < request->image_count && ok; i++)
        ok = encode_input(request, request->images[i], f);
    return request->mask && ok ? encode_input(request, request->mask, f) : ok;
}

void serve_request_drop_images(serve_request *request)
{
    for (size_t i = 0; i < request->input_count; i++)
        zimage_free(request->inputs[i].data);
    request->input_count = 0;
    for (size_t i = 0; i < REQUEST_IMAGES_MAX; i++) {
        zimage_image_free(request->images[i]);
        request->images[i] = NULL;
    }
    zimage_image_free(request->mask);
    request->mask = NULL;
    request->image_bytes = 0;
}

void serve_request_free(serve_request *request)
{
    for (const request_field *f = field_table; f < field_table + field_table_size; f++)
        if (f->kind == FIELD_TEXT) {
            char **text = (void *)((char *)request + f->offset);
            free(*text);
            *text = NULL; /* another name of the field has the same place */
        }
    serve_request_drop_images(request);
    for (size_t i = 0; i < request->ignored_count; i++)
        free(request->ignored[i]);
    for (size_t i = 0; i < request->warning_count; i++)
        free(request->warnings[i]);
    *request = (serve_request){0};
}
