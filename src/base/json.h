/* Reading JSON files with jansson. Every error names the file, the field, its value and what was expected. */
#ifndef ZI_BASE_JSON_H
#define ZI_BASE_JSON_H

#include <jansson.h>

#include "base/error.h"
#include "base/limits.h"

/*
 * Reads a file that holds one JSON object, within limits (limits.h). A duplicate key, a zero byte in a string and
 * invalid UTF-8 are errors. The caller releases *object with json_decref.
 */
zimage_status zi_json_load_within(const char *path, const zi_json_limits *limits, json_t **object, zimage_error *error);
/* The same within the limits of a configuration. */
zimage_status zi_json_load(const char *path, json_t **object, zimage_error *error);

/* Parses JSON text. Messages call it name_of_text ("the header"). A number beyond 64 bits is an error, too. */
zimage_status zi_json_parse(const char *path, const char *name_of_text, const zi_json_limits *limits, const char *text,
                            size_t length, json_t **value, zimage_error *error);

/* What a message calls a value: "-3", "\"text\"", "an array", "missing" for NULL. Returns buffer or a constant. */
const char *zi_json_describe(const json_t *value, char *buffer, size_t size);

/* An object whose fields are read. path is only for messages; error may be NULL. Nothing is owned. */
typedef struct zi_json_reader {
    const json_t *object;
    const char *path;
    zimage_error *error;
} zi_json_reader;

/*
 * The functions that read one field. Where the field is missing or null, *value becomes *fallback; a fallback of NULL
 * makes the field required. Anything but an integer in [low, high] is an error. Malformed JSON is ZIMAGE_ERROR_FORMAT;
 * a field that is missing or not as expected is ZIMAGE_ERROR_MODEL.
 */
zimage_status zi_json_int(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                          const int64_t *fallback, int64_t *value);
/* Accepts integers and reals that are finite and in [low, high]. */
zimage_status zi_json_number(const zi_json_reader *json, const char *field, double low, double high,
                             const double *fallback, double *value);
zimage_status zi_json_bool(const zi_json_reader *json, const char *field, const int *fallback, int *value);
/* *value points into the object, or is fallback. */
zimage_status zi_json_string(const zi_json_reader *json, const char *field, const char *fallback, const char **value);
/* A required array of 1 to `capacity` integers; sets *count. */
zimage_status zi_json_int_array(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                                int64_t *values, size_t capacity, size_t *count);

/*
 * Reads a configuration from a JSON object: clears the `size` bytes of config, then `read` fills them. text NULL: the
 * object is the file `path`; otherwise it is this text, and path is only its name for messages.
 */
typedef zimage_status zi_config_reader(const zi_json_reader *json, void *config);
zimage_status zi_config_read(const char *path, const char *text, zi_config_reader *read, void *config, size_t size,
                             zimage_error *error);

#endif
