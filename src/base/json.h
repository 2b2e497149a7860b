/* JSON files of a model folder, by jansson: every reader's error names the file, the field and what was expected. */
#ifndef ZI_BASE_JSON_H
#define ZI_BASE_JSON_H

#include <jansson.h>

#include "base/error.h"

/* Parses a file of at most 64 MiB whose top value is an object; duplicate keys are an error. json_decref the result. */
zimage_status zi_json_load(const char *path, json_t **object, zimage_error *error);

/* Parses JSON text; name_of_text ("the header") is for messages. Numbers beyond 64 bits are an error, too. */
zimage_status zi_json_parse(const char *path, const char *name_of_text, const char *text, size_t length, json_t **value,
                            zimage_error *error);

/*
 * A configuration from a JSON object: clears the `size` bytes of config, then `reader` fills them. text NULL: the object
 * is the file `path`; otherwise it is this text, and path is only its name for messages.
 */
typedef zimage_status zi_config_reader(const json_t *object, const char *path, void *config, zimage_error *error);
zimage_status zi_config_read(const char *path, const char *text, zi_config_reader *reader, void *config, size_t size,
                             zimage_error *error);

/* "-3", "a string", "null", ...: what a message says a value is. Returns buffer or static text. */
const char *zi_json_describe(const json_t *value, char *buffer, size_t size);

/* Readers: `path` is only for messages. A missing or null field gives *value = fallback where one is given (pointer
 * not NULL), else an error. Integers outside [low, high] and non-integers are errors. Malformed JSON is
 * ZIMAGE_ERROR_FORMAT; a field that is missing or not as expected is ZIMAGE_ERROR_MODEL. */
zimage_status zi_json_int(const json_t *object, const char *path, const char *field, int64_t low, int64_t high,
                          const int64_t *fallback, int64_t *value, zimage_error *error);
/* Accepts integers and reals; must be finite and within [low, high]. */
zimage_status zi_json_number(const json_t *object, const char *path, const char *field, double low, double high,
                             const double *fallback, double *value, zimage_error *error);
zimage_status zi_json_bool(const json_t *object, const char *path, const char *field, const int *fallback, int *value,
                           zimage_error *error);
/* *value points into object; fallback may be NULL = required. */
zimage_status zi_json_string(const json_t *object, const char *path, const char *field, const char *fallback,
                             const char **value, zimage_error *error);
/* An array of at least 1 and at most `capacity` integers; *count is set. Required. */
zimage_status zi_json_int_array(const json_t *object, const char *path, const char *field, int64_t low, int64_t high,
                                int64_t *values, size_t capacity, size_t *count, zimage_error *error);

#endif
