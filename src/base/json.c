#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

const zi_json_limits zi_config_limits = {ZI_CONFIG_BYTES, ZI_CONFIG_VALUES, ZI_CONFIG_DEPTH, 0, 0};
const zi_json_limits zi_index_limits = {ZI_INDEX_BYTES, ZI_INDEX_VALUES, ZI_INDEX_DEPTH, 0, 0};
const zi_json_limits zi_tokenizer_limits = {ZI_TOKENIZER_BYTES, ZI_TOKENIZER_VALUES, ZI_TOKENIZER_DEPTH, 0, 0};
const zi_json_limits zi_header_limits = {ZI_HEADER_BYTES, ZI_HEADER_VALUES, ZI_HEADER_DEPTH, ZI_HEADER_TENSORS + 1,
                                         0}; /* and the metadata */
const zi_json_limits zi_tokenizer_config_limits = {ZI_CONFIG_BYTES, ZI_CONFIG_VALUES, ZI_CONFIG_DEPTH, 0, 1};
const zi_json_limits zi_cache_limits = {ZI_CACHE_BYTES, ZI_CACHE_VALUES, ZI_CACHE_DEPTH, 0, 0};

/* ---- scanning ---------------------------------------------------------------------------------------------------- */

/* What a quick look at a text finds. For text that is not JSON the figures mean nothing: its parsing fails. */
typedef struct scan {
    size_t longest; /* bytes of the longest string or number */
    size_t values, depth, members;
} scan;

enum { ORDINARY, QUOTE, BETWEEN, COMMA, OPENING, CLOSING };

static const uint8_t character_kinds[256] = {
    ['"'] = QUOTE, [' '] = BETWEEN, ['\t'] = BETWEEN, ['\r'] = BETWEEN, ['\n'] = BETWEEN, [':'] = BETWEEN,
    [','] = COMMA, ['['] = OPENING, ['{'] = OPENING,  [']'] = CLOSING,  ['}'] = CLOSING,
};

/* The first value of an array or object is counted at its bracket, each other one at its comma. */
static void count_character(scan *s, int kind, size_t *depth)
{
    if (kind == OPENING) {
        ++*depth;
        s->values++;
        s->members += *depth == 1;
        s->depth = *depth > s->depth ? *depth : s->depth;
    } else if (kind == CLOSING) {
        *depth -= *depth > 0;
    } else if (kind == COMMA) {
        s->values++;
        s->members += *depth == 1;
    }
}

static scan scan_text(const char *text, size_t length)
{
    scan s = {0};
    size_t begin = 0, depth = 0;
    int in_string = 0;
    for (size_t i = 0; i < length; i++) {
        int kind = character_kinds[(uint8_t)text[i]];
        if (in_string && text[i] == '\\') {
            i++;
        } else if (kind == QUOTE || (!in_string && kind != ORDINARY)) {
            s.longest = i - begin > s.longest ? i - begin : s.longest;
            begin = i;
            in_string ^= kind == QUOTE;
            count_character(&s, kind, &depth);
        }
    }
    s.longest = s.longest > length - begin ? s.longest : length - begin;
    return s;
}

static zimage_status check_scan(const char *path, const char *name_of_text, const zi_json_limits *limits, const scan *s,
                                zimage_error *error)
{
    if (s->depth > limits->depth)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       "%s: %s nests arrays and objects to a depth of %zu, expected at "
                       "most %zu",
                       path, name_of_text, s->depth, limits->depth);
    if (limits->members > 0 && s->members > limits->members)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: %s holds %zu entries, expected at most %zu", path, name_of_text,
                       s->members, limits->members);
    if (s->values > limits->values)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: %s holds %zu values, expected at most %zu", path, name_of_text,
                       s->values, limits->values);
    return ZIMAGE_OK;
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

/*
 * A defence against a fault of jansson 2.14: where memory runs out while the buffer of a token grows, jansson drops a
 * character and goes on, with a shorter string or number than the file has. The buffer never shrinks. So the text is
 * parsed as ["xxx",TEXT], where the first string is as long as the longest token of the text: if that string arrives
 * complete, then the buffer is large enough for every token after it.
 */
typedef struct wrapped_text {
    const char *parts[4]; /* [" then `padding` times x, then ", then TEXT, then ] */
    size_t lengths[4];
    size_t padding;
    int part;
} wrapped_text;

/* A json_load_callback_t. */
static size_t read_wrapped(void *buffer, size_t capacity, void *data)
{
    wrapped_text *wrapped = data;
    size_t filled = 0;
    while (filled < capacity && wrapped->part < 4) {
        size_t *left =
            wrapped->part == 1 && wrapped->padding > 0 ? &wrapped->padding : &wrapped->lengths[wrapped->part];
        size_t count = *left < capacity - filled ? *left : capacity - filled;
        if (left == &wrapped->padding) {
            memset((char *)buffer + filled, 'x', count);
        } else {
            memcpy((char *)buffer + filled, wrapped->parts[wrapped->part], count);
            wrapped->parts[wrapped->part] += count;
            wrapped->part += count == *left;
        }
        *left -= count;
        filled += count;
    }
    return filled;
}

/* padding: the bytes of the longest token. NULL: malformed, or out of memory. */
static json_t *parse_intact(const char *text, size_t length, size_t padding, size_t flags)
{
    wrapped_text wrapped = {{"[\"", "\",", text, "]"}, {2, 2, length, 1}, padding, 0};
    json_t *array = json_load_callback(read_wrapped, &wrapped, flags, NULL);
    json_t *value = NULL;
    if (json_array_size(array) == 2 && json_string_length(json_array_get(array, 0)) == padding)
        value = json_incref(json_array_get(array, 1));
    json_decref(array);
    return value;
}

/* What jansson's words leave out; NULL: nothing. */
static const char *hint(const json_error_t *problem)
{
    switch (json_error_code(problem)) {
    case json_error_null_character:
        return "a string holds a zero byte";
    case json_error_null_byte_in_key:
        return "a key holds a zero byte";
    case json_error_numeric_overflow:
        return strstr(problem->text, "integer") ? "integers must be from -2^63 to 2^63 - 1"
                                                : "numbers must be within 1.8e308 of zero";
    default:
        return NULL;
    }
}

/*
 * jansson adds the text where parsing stopped (near 'TEXT'). It is left out, but for a key that is there twice: the
 * file may be a link to one that is no JSON and nobody else's business, such as a file of passwords.
 */
static zimage_status fail_parse(const char *path, const char *name_of_text, json_error_t *problem, zimage_error *error)
{
    const char *more = hint(problem);
    char *near = strstr(problem->text, " near '");
    if (near && json_error_code(problem) != json_error_duplicate_key)
        *near = 0;
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: %s is not valid JSON: line %d, column %d: %s%s%s", path,
                   name_of_text, problem->line, problem->column, problem->text, more ? "; " : "", more ? more : "");
}

zimage_status zi_json_parse(const char *path, const char *name_of_text, const zi_json_limits *limits, const char *text,
                            size_t length, json_t **value, zimage_error *error)
{
    *value = NULL;
    if (length > limits->bytes)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: %s has %zu bytes, expected at most %zu", path, name_of_text,
                       length, limits->bytes);
    const scan s = scan_text(text, length);
    ZI_TRY(check_scan(path, name_of_text, limits, &s, error));
    const size_t flags = JSON_REJECT_DUPLICATES | (limits->only_reals ? JSON_DECODE_INT_AS_REAL : 0);
    *value = parse_intact(text, length, s.longest, flags);
    if (*value)
        return ZIMAGE_OK;
    /* A second time without the wrapper, to learn the fault and its line. No fault: memory ran out the first time. */
    json_error_t problem = {0};
    json_t *again = json_loadb(text, length, flags | JSON_DECODE_ANY, &problem);
    if (again || json_error_code(&problem) == json_error_out_of_memory || problem.text[0] == 0) {
        json_decref(again);
        return zi_fail(error, ZIMAGE_ERROR_MEMORY, "%s: out of memory while reading %s", path, name_of_text);
    }
    return fail_parse(path, name_of_text, &problem, error);
}

/* zi_json_parse of a text that must be an object. */
static zimage_status parse_object(const char *path, const char *name_of_text, const zi_json_limits *limits,
                                  const char *text, size_t length, json_t **object, zimage_error *error)
{
    char buffer[64];
    ZI_TRY(zi_json_parse(path, name_of_text, limits, text, length, object, error));
    if (json_is_object(*object))
        return ZIMAGE_OK;
    zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: %s holds %s, expected a JSON object", path, name_of_text,
            zi_json_describe(*object, buffer, sizeof buffer));
    json_decref(*object);
    *object = NULL;
    return ZIMAGE_ERROR_FORMAT;
}

zimage_status zi_json_load_within(const char *path, const zi_json_limits *limits, json_t **object, zimage_error *error)
{
    char *text = NULL;
    size_t length = 0;
    *object = NULL;
    ZI_TRY(zi_read_file(path, limits->bytes, &text, &length, error));
    if (length == 0) {
        free(text);
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: the file is empty, expected a JSON object", path);
    }
    zimage_status status = parse_object(path, "the file", limits, text, length, object, error);
    free(text);
    return status;
}

zimage_status zi_json_load(const char *path, json_t **object, zimage_error *error)
{
    return zi_json_load_within(path, &zi_config_limits, object, error);
}

zimage_status zi_config_read(const char *path, const char *text, zi_config_reader *read, void *config, size_t size,
                             zimage_error *error)
{
    json_t *object = NULL;
    memset(config, 0, size);
    if (text)
        ZI_TRY(parse_object(path, "the configuration", &zi_config_limits, text, strlen(text), &object, error));
    else
        ZI_TRY(zi_json_load(path, &object, error));
    const zi_json_reader reader = {object, path, error};
    zimage_status status = read(&reader, config);
    json_decref(object);
    return status;
}

const char *zi_json_describe(const json_t *value, char *buffer, size_t size)
{
    if (!value)
        return "missing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        snprintf(buffer, size, "\"%.40s\"", json_string_value(value));
        return buffer;
    case JSON_INTEGER:
        snprintf(buffer, size, "%lld", (long long)json_integer_value(value));
        return buffer;
    case JSON_REAL:
        snprintf(buffer, size, "%#.6g", json_real_value(value)); /* "3.00000": visibly not an integer */
        return buffer;
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        break;
    }
    return "null";
}

/* config.json: "x": "abc", expected WHAT */
static zimage_status fail_field(const zi_json_reader *json, const char *field, const json_t *value, const char *what)
{
    char buffer[64];
    return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: \"%s\": %s, expected %s", json->path, field,
                   zi_json_describe(value, buffer, sizeof buffer), what);
}

static zimage_status fail_integer(const zi_json_reader *json, const char *field, const json_t *value, int64_t low,
                                  int64_t high)
{
    char what[96];
    snprintf(what, sizeof what, "an integer from %lld to %lld", (long long)low, (long long)high);
    return fail_field(json, field, value, what);
}

static int is_absent(const json_t *value)
{
    return !value || json_is_null(value);
}

static int is_integer_within(const json_t *value, int64_t low, int64_t high)
{
    return json_is_integer(value) && json_integer_value(value) >= low && json_integer_value(value) <= high;
}

zimage_status zi_json_int(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                          const int64_t *fallback, int64_t *value)
{
    const json_t *found = json_object_get(json->object, field);
    if (is_absent(found) && fallback) {
        *value = *fallback;
        return ZIMAGE_OK;
    }
    if (!is_integer_within(found, low, high))
        return fail_integer(json, field, found, low, high);
    *value = json_integer_value(found);
    return ZIMAGE_OK;
}

zimage_status zi_json_number(const zi_json_reader *json, const char *field, double low, double high,
                             const double *fallback, double *value)
{
    const json_t *found = json_object_get(json->object, field);
    if (is_absent(found) && fallback) {
        *value = *fallback;
        return ZIMAGE_OK;
    }
    double number = json_is_number(found) ? json_number_value(found) : NAN;
    if (!isfinite(number) || number < low || number > high) {
        char what[96];
        snprintf(what, sizeof what, "a number from %.10g to %.10g", low, high);
        return fail_field(json, field, found, what);
    }
    *value = number;
    return ZIMAGE_OK;
}

zimage_status zi_json_bool(const zi_json_reader *json, const char *field, const int *fallback, int *value)
{
    const json_t *found = json_object_get(json->object, field);
    if (is_absent(found) && fallback) {
        *value = *fallback;
        return ZIMAGE_OK;
    }
    if (!json_is_boolean(found))
        return fail_field(json, field, found, "true or false");
    *value = json_is_true(found);
    return ZIMAGE_OK;
}

zimage_status zi_json_string(const zi_json_reader *json, const char *field, const char *fallback, const char **value)
{
    const json_t *found = json_object_get(json->object, field);
    if (is_absent(found) && fallback) {
        *value = fallback;
        return ZIMAGE_OK;
    }
    if (!json_is_string(found))
        return fail_field(json, field, found, "a string");
    *value = json_string_value(found);
    return ZIMAGE_OK;
}

zimage_status zi_json_int_array(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                                int64_t *values, size_t capacity, size_t *count)
{
    const json_t *found = json_object_get(json->object, field);
    *count = 0;
    if (!json_is_array(found))
        return fail_field(json, field, found, "an array of integers");
    size_t length = json_array_size(found);
    if (length == 0 || length > capacity)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: \"%s\": %zu elements, expected 1 to %zu", json->path,
                       field, length, capacity);
    for (size_t i = 0; i < length; i++) {
        const json_t *element = json_array_get(found, i);
        if (!is_integer_within(element, low, high)) {
            char name[256];
            snprintf(name, sizeof name, "%s[%zu]", field, i);
            return fail_integer(json, name, element, low, high);
        }
        values[i] = json_integer_value(element);
    }
    *count = length;
    return ZIMAGE_OK;
}
