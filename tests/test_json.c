/* JSON files, and the fields of configurations. */
#include "base/json.h"
#include "files.h"

static json_t *load_json(const char *text)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    json_t *object = NULL;
    write_text(temporary("config.json"), text);
    if (zi_json_load(temporary("config.json"), &object, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return object;
}

static void json_fields_are_read(void **state)
{
    json_t *object = load_json("{\"i\": -3, \"r\": 0.5, \"t\": true, \"s\": \"text\", \"n\": null, \"a\": [1, 2]}");
    const zi_json_reader json = {object, "f", NULL};
    const int64_t seven = 7;
    const double half = 0.25;
    const int yes = 1;
    int64_t integer, array[2];
    double number;
    int boolean;
    const char *string;
    size_t count;
    assert_int_equal(zi_json_int(&json, "i", -5, 5, NULL, &integer), ZIMAGE_OK);
    assert_int_equal(integer, -3);
    assert_int_equal(zi_json_int(&json, "n", 0, 9, &seven, &integer), ZIMAGE_OK);
    assert_int_equal(integer, 7);
    assert_int_equal(zi_json_number(&json, "i", -5, 5, NULL, &number), ZIMAGE_OK);
    assert_true(number == -3);
    assert_int_equal(zi_json_number(&json, "r", 0, 1, NULL, &number), ZIMAGE_OK);
    assert_true(number == 0.5);
    assert_int_equal(zi_json_number(&json, "absent", 0, 1, &half, &number), ZIMAGE_OK);
    assert_true(number == 0.25);
    assert_int_equal(zi_json_bool(&json, "t", NULL, &boolean), ZIMAGE_OK);
    assert_int_equal(boolean, 1);
    assert_int_equal(zi_json_bool(&json, "n", &yes, &boolean), ZIMAGE_OK);
    assert_int_equal(boolean, 1);
    assert_int_equal(zi_json_string(&json, "s", NULL, &string), ZIMAGE_OK);
    assert_string_equal(string, "text");
    assert_int_equal(zi_json_string(&json, "n", "other", &string), ZIMAGE_OK);
    assert_string_equal(string, "other");
    assert_int_equal(zi_json_int_array(&json, "a", 1, 2, array, 2, &count), ZIMAGE_OK);
    assert_int_equal(count, 2);
    assert_int_equal(array[1], 2);
    json_decref(object);
}

static void json_fields_are_checked(void **state)
{
    json_t *object = load_json("{\"i\": -3, \"r\": 3.0, \"huge\": 9007199254740993, \"s\": \"text\", \"n\": null, "
                               "\"o\": {}, \"a\": [1, 2.5], \"e\": [], \"f\": false}");
    const struct {
        const char *field, *says;
    } integers[] = {
        {"i", ": -3, expected an integer from 1 to 100"},
        {"r", ": 3.00000,"},
        {"huge", ": 9007199254740993,"},
        {"s", ": \"text\","},
        {"n", ": null,"},
        {"o", ": an object,"},
        {"a", ": an array,"},
        {"f", ": false,"},
        {"absent", ": missing,"},
    };
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zi_json_reader json = {object, "dir/config.json", &error};
    const int64_t fallback = 5;
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        int64_t value = 42;
        char field[32];
        snprintf(field, sizeof field, "\"%s\"", integers[i].field);
        assert_error(&error, zi_json_int(&json, integers[i].field, 1, 100, NULL, &value), ZIMAGE_ERROR_MODEL,
                     "dir/config.json: ", field, integers[i].says);
        assert_int_equal(value, 42);
    }
    int64_t values[2];
    size_t count;
    double number;
    int boolean;
    const char *string;
    assert_error(&error, zi_json_int(&json, "i", 1, 100, &fallback, values), ZIMAGE_ERROR_MODEL, "-3", NULL, NULL);
    assert_error(&error, zi_json_number(&json, "i", 0, 0.5, NULL, &number), ZIMAGE_ERROR_MODEL, "\"i\"",
                 "a number from 0 to 0.5", NULL);
    assert_error(&error, zi_json_number(&json, "s", 0, 1, NULL, &number), ZIMAGE_ERROR_MODEL, "\"s\"", NULL, NULL);
    assert_error(&error, zi_json_bool(&json, "i", NULL, &boolean), ZIMAGE_ERROR_MODEL, "\"i\"", "true or false", NULL);
    assert_error(&error, zi_json_string(&json, "absent", NULL, &string), ZIMAGE_ERROR_MODEL, "missing", "a string",
                 NULL);
    assert_error(&error, zi_json_int_array(&json, "a", 1, 9, values, 2, &count), ZIMAGE_ERROR_MODEL,
                 "\"a[1]\": 2.50000", NULL, NULL);
    assert_error(&error, zi_json_int_array(&json, "a", 1, 9, values, 1, &count), ZIMAGE_ERROR_MODEL,
                 "\"a\": 2 elements", "1 to 1", NULL);
    assert_error(&error, zi_json_int_array(&json, "e", 1, 9, values, 2, &count), ZIMAGE_ERROR_MODEL,
                 "\"e\": 0 elements", NULL, NULL);
    assert_error(&error, zi_json_int_array(&json, "i", 1, 9, values, 2, &count), ZIMAGE_ERROR_MODEL,
                 "an array of integers", NULL, NULL);
    json_decref(object);
}

static void json_files_are_checked(void **state)
{
    const struct {
        const char *text, *says;
    } cases[] = {
        {"", "empty"},
        {"[1]", "an array"},
        {"3", "holds 3,"},
        {"{} {}", "end of file"},
        {"{}]", "end of file"},
        {"{},{}", "end of file"},
        {"{\"a\": 1,\n\"a\": 2}", "line 2"},
        {"{\"a\": 1", "line 1"},
        {"{\"a\": \"b\\u0000\"}", "a string holds a zero byte"},
        {"{\"a\\u0000b\": 1}", "a key holds a zero byte"},
        {"{\"a\": 99999999999999999999}", "-2^63"},
        {"{\"a\": 1e999}", "1.8e308"},
        {"{\"a\xff\": 1}", "decode byte"},
        {"{\"a\\u0000b\": 1}", "line 1"},
        {"{\"a\": NaN}", "invalid token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        json_t *object;
        write_text(temporary("bad.json"), cases[i].text);
        assert_error(&error, zi_json_load(temporary("bad.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                     "bad.json: ", cases[i].says, NULL);
        assert_null(object);
    }
    zimage_error error = ZIMAGE_ERROR_INIT;
    json_t *object;
    char deep[100001];
    memset(deep, '[', 100000);
    deep[100000] = 0;
    write_text(temporary("deep.json"), deep);
    assert_error(&error, zi_json_load(temporary("deep.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                 "deep.json: ", "depth", NULL);
    assert_int_equal(truncate(temporary("deep.json"), (off_t)1 << 20), 0);
    assert_error(&error, zi_json_load(temporary("deep.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                 "deep.json: ", "depth of 100000, expected at most 32", NULL);
    assert_int_equal(truncate(temporary("deep.json"), ((off_t)1 << 20) + 1), 0);
    assert_error(&error, zi_json_load(temporary("deep.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                 "deep.json: ", "1048577 bytes, expected at most 1048576", NULL);
    assert_error(&error, zi_json_load(temporary("absent.json"), &object, &error), ZIMAGE_ERROR_FILE, "absent.json",
                 NULL, NULL);
}

/* "[0,[...],[...]]" with so many lists of two */
static char *many_lists(size_t lists)
{
    char *text = malloc(2 + 6 * lists + 2), *end = text + sprintf(text, "[0");
    for (size_t i = 0; i < lists; i++)
        end += sprintf(end, ",[1,2]");
    strcpy(end, "]");
    return text;
}

/* What would take more memory than it is worth is refused before it is parsed; brackets in texts do not count. */
static void texts_are_limited(void **state)
{
    const zi_json_limits limits = {.bytes = 1000, .values = 32, .depth = 3, .members = 12};
    const struct {
        const char *text, *says;
    } cases[] = {
        {"[[[1]]]", NULL},
        {"[[[[1]]]]", "the text nests arrays and objects to a depth of 4, expected at most 3"},
        {"{\"a\": {\"b\": {\"c\": {}}}}", "depth of 4"},
        {"[\"[[[[[[[\\\"[[[[,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,\"]", NULL},
        {"[1,2,3,4,5,6,7,8,9,10,11,12]", NULL},
        {"[1,2,3,4,5,6,7,8,9,10,11,12,13]", "the text holds 13 entries, expected at most 12"},
        {"[[1,2,3,4,5,6,7,8,9,10,11,12,13,14]]", NULL},
        {"]]]]][", "not valid JSON"},
    };
    zimage_error error = ZIMAGE_ERROR_INIT;
    json_t *value;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_status status =
            zi_json_parse("f", "the text", &limits, cases[i].text, strlen(cases[i].text), &value, &error);
        if (cases[i].says)
            assert_error(&error, status, ZIMAGE_ERROR_FORMAT, "f: ", cases[i].says, NULL);
        else
            assert_int_equal(status, ZIMAGE_OK);
        json_decref(value);
    }
    char *text = many_lists(10);
    assert_int_equal(zi_json_parse("f", "the text", &limits, text, strlen(text), &value, &error), ZIMAGE_OK);
    json_decref(value);
    free(text);
    text = many_lists(11);
    assert_error(&error, zi_json_parse("f", "the text", &limits, text, strlen(text), &value, &error),
                 ZIMAGE_ERROR_FORMAT, "f: the text holds 34 values, expected at most 32", NULL, NULL);
    free(text);
    text = many_lists(200);
    assert_error(&error, zi_json_parse("f", "the text", &limits, text, strlen(text), &value, &error),
                 ZIMAGE_ERROR_FORMAT, "f: the text has 1203 bytes, expected at most 1000", NULL, NULL);
    assert_null(value);
    free(text);
}

/* A file in the folder of a model may be a link to a file that is no model's. */
static void words_of_other_files_are_not_quoted(void **state)
{
    static const char *const texts[] = {
        "hunter2:x:0:0\n", "{hunter2",   "{\"a\": hunter2}",           "{\"hunter2\": 3 hunter2",
        "{} hunter2",      "[\"hunter2", "{\"a\": \"hunter2\\u0000\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        json_t *object;
        write_text(temporary("other.json"), texts[i]);
        assert_error(&error, zi_json_load(temporary("other.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                     "other.json: the file is not valid JSON: line 1", NULL, NULL);
        assert_null(strstr(error.message, "hunter2"));
    }
}

typedef struct counted {
    int64_t count;
    double unread;
} counted;

static zimage_status read_count(const zi_json_reader *json, void *out)
{
    return zi_json_int(json, "count", 1, 9, NULL, &((counted *)out)->count);
}

static void configurations_are_read(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    counted config = {5, 5};
    write_text(temporary("count.json"), "{\"count\": 3}");
    assert_int_equal(zi_config_read(temporary("count.json"), NULL, read_count, &config, sizeof config, &error),
                     ZIMAGE_OK);
    assert_int_equal(config.count, 3);
    assert_true(config.unread == 0);
    assert_int_equal(zi_config_read("name", "{\"count\": 4}", read_count, &config, sizeof config, &error), ZIMAGE_OK);
    assert_int_equal(config.count, 4);
    assert_error(&error, zi_config_read("name", "{\"count\": 10}", read_count, &config, sizeof config, &error),
                 ZIMAGE_ERROR_MODEL, "name: \"count\": 10, expected an integer from 1 to 9", NULL, NULL);
    assert_error(&error, zi_config_read("name", "[3]", read_count, &config, sizeof config, &error), ZIMAGE_ERROR_FORMAT,
                 "name: the configuration holds an array, expected a JSON object", NULL, NULL);
    assert_error(&error, zi_config_read("name", "{", read_count, &config, sizeof config, &error), ZIMAGE_ERROR_FORMAT,
                 "name: the configuration is not valid JSON", NULL, NULL);
    assert_error(&error, zi_config_read(temporary("no.json"), NULL, read_count, &config, sizeof config, &error),
                 ZIMAGE_ERROR_FILE, "no.json", NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_fields_are_read),
        cmocka_unit_test(json_fields_are_checked),
        cmocka_unit_test(json_files_are_checked),
        cmocka_unit_test(texts_are_limited),
        cmocka_unit_test(words_of_other_files_are_not_quoted),
        cmocka_unit_test(configurations_are_read),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
