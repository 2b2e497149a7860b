/* Chat templates: the interpreter against Jinja, what it refuses, hostile templates. */
#include "support.h"

#include <jansson.h>
#include <time.h>

#include "text/jinja.h"

/* The tokens that the golden's templates know. */
static const zi_chat_token TOKENS[] = {
    {"eos_token", (char *)"<|im_end|>"}, {"pad_token", (char *)"<|endoftext|>"}, {"bos_token", NULL}};

static zimage_status render(const char *source, const char *prompt, int thinking, char **text, size_t *length,
                            zimage_error *error)
{
    const zi_chat chat = {.source = source,
                          .name = "FILE",
                          .content = prompt,
                          .length = strlen(prompt),
                          .thinking = thinking,
                          .tokens = TOKENS,
                          .token_count = sizeof TOKENS / sizeof TOKENS[0]};
    return zi_jinja_render(&chat, text, length, error);
}

static void texts_equal_those_of_jinja(void **state)
{
    json_t *cases = json_load_file(ZIMAGE_TEST_DATA "/chat-templates.json", 0, NULL);
    assert_true(json_array_size(cases) > 300);
    size_t wrong = 0, refused = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *entry = json_array_get(cases, i);
        const char *source = json_string_value(json_array_get(entry, 0));
        const char *wanted = json_string_value(json_array_get(entry, 3));
        zimage_error error = ZIMAGE_ERROR_INIT;
        char *text = NULL;
        size_t length = 0;
        if (render(source, json_string_value(json_array_get(entry, 1)), json_is_true(json_array_get(entry, 2)), &text,
                   &length, &error) != ZIMAGE_OK) {
            refused++; /* rare operations */
            continue;
        }
        if ((length != strlen(wanted) || memcmp(text, wanted, length) != 0) && wrong++ < 5)
            printf("\"%s\" gives \"%.*s\", expected \"%s\"\n", source, (int)length, text, wanted);
        free(text);
    }
    printf("chat templates: %zu cases, %zu wrong, %zu refused\n", json_array_size(cases), wrong, refused);
    assert_int_equal(wrong, 0);
    assert_true(refused * 5 < json_array_size(cases));
    json_decref(cases);
}

typedef struct bad_template {
    const char *source, *message;
} bad_template;

static const bad_template BAD_TEMPLATES[] = {
    {"{{", "a tag without an end"},
    {"a\n{{ 'x }}", "line 2 of the chat template has a string without an end"},
    {"{{ '\\x41' }}", "a string with an unusual escape"},
    {"{{ 1.5 }}", "a number that is not a short integer"},
    {"{{ 99999999999 }}", "a number that is not a short integer"},
    {"{{ 9999999999 }}", "a large number"},
    {"{{ 2000000000 + 2000000000 }}", "a large number"},
    {"{{ 5 / 2 }}", "such arithmetic"},
    {"{{ }}", "something else than the expected expression"},
    {"{{ a b }}", "the expected end of a tag"},
    {"{{ a @ b }}", "an unknown character"},
    {"{{ (1, 2) }}", "a tuple"},
    {"{{ {'a': {}} }}", "a dictionary"},
    {"{{ 1 < 2 < 3 }}", "a chain of comparisons"},
    {"{% if 1 %}", "a statement without an end"},
    {"{% for m in messages %}", "a statement without an end"},
    {"{# x", "a comment without an end"},
    {"{% endif %}", "the statement \"endif\""},
    {"{% include 'x' %}", "the statement \"include\""},
    {"{% raw %}{% endraw %}", "the statement \"raw\""},
    {"{% for a, b in messages %}{% endfor %}", "a loop with several variables"},
    {"{% for a in 'abc' %}{% endfor %}", "a loop over such a value"},
    {"{% set a.b = 1 %}", "a field that is set in something else than a namespace"},
    {"{{ messages }}", "a value that is not a text, written as one"},
    {"{{ messages | tojson }}", "the filter \"tojson\""},
    {"{{ messages is divisibleby(3) }}", "the test \"divisibleby\""},
    {"{{ nope.x }}", "an attribute of an undefined value"},
    {"{{ 'x'.upper() }}", "an unknown attribute of a text"},
    {"{{ messages[0].items() }}", "an unknown method of a dictionary"},
    {"{{ nope() }}", "a call of such a value"},
    {"{% macro m() %}{% endmacro %}{{ m() }}", "a call of such a value"},
    {"{{ range(3) }}", "the function \"range\""},
    {"{{ strftime_now('%Y') }}", "the function \"strftime_now\""},
    {"{{ 'a' + 1 }}", "an operation with such values"},
    {"{{ raise_exception('no ' ~ 'way') }}", "the chat template refuses the prompt: no way"},
};

static void other_templates_are_refused(void **state)
{
    for (size_t i = 0; i < sizeof BAD_TEMPLATES / sizeof BAD_TEMPLATES[0]; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        char *text = NULL;
        size_t length = 7;
        zimage_status status = render(BAD_TEMPLATES[i].source, "a", 1, &text, &length, &error);
        if (status == ZIMAGE_OK || text || length || strncmp(error.message, "FILE: ", 6) != 0 ||
            !strstr(error.message, BAD_TEMPLATES[i].message))
            fail_msg("%s: %d: %s", BAD_TEMPLATES[i].source, status, error.message);
    }
}

static char *repeated(const char *begin, const char *unit, size_t count, const char *end)
{
    size_t length = strlen(begin) + count * strlen(unit) + strlen(end);
    char *text = malloc(length + 1), *at = stpcpy(text, begin);
    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, unit);
    stpcpy(at, end);
    return text;
}

/* Each is refused, or rendered, in a short time. 20 s are enough under valgrind, too. */
static void hostile_templates_take_seconds(void **state)
{
    static const struct {
        const char *begin, *unit, *end;
        size_t count;
    } CASES[] = {
        {"{{ ", "(", "", 100000},
        {"{{ ", "-", "1 }}", 100000},
        {"{{ ", "not ", "1 }}", 100000},
        {"{{ ", "[", "", 100000},
        {"{{ 'a'", " ~ 'a'", " }}", 20000},
        {"", "{% if 1 %}", "", 100000},
        {"{% if 0 %}", "{% elif 0 %}", "{% endif %}", 50000},
        {"{% set x = 'ab' %}", "{% set x = x + x %}", "{{ x }}", 60},
        {"{% set x = 'a' * 3 %}", "", "", 0},
        {"{% set x = messages[0].content.split(' ') %}", "{% for a in x %}", "{{ a }}", 90},
        {"", "{% for a in messages[0].content.split(' ') %}{% for b in messages[0].content.split(' ') %}", "x", 20},
        {"", "a\n\n   ", "{% if 1 %}", 150000},
        {"", "{{ 1 }} ", "", 100000},
        {"{{ messages[0]", ".content", " }}", 100000},
    };
    char *prompt = repeated("", "a ", 1 << 19, "");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char *source = repeated(CASES[i].begin, CASES[i].unit, CASES[i].count, CASES[i].end), *text = NULL;
        zimage_error error = ZIMAGE_ERROR_INIT;
        size_t length;
        clock_t start = clock();
        (void)render(source, prompt, 1, &text, &length, &error);
        double taken = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (taken > 20)
            fail_msg("%.60s takes %.1f s", source, taken);
        free(text);
        free(source);
    }
    free(prompt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_equal_those_of_jinja),
        cmocka_unit_test(other_templates_are_refused),
        cmocka_unit_test(hostile_templates_take_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
