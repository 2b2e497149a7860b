/* zimage words, and warnings of what a model does not know: the list words.txt in its folder. */
#include "program.h"

static outcome o;

#define LIST                                                                                                           \
    "zimage words 1\n=\ta\tan\ton\tbackground\tblue\tstyle\n"                                                          \
    "automobile\t自動車\tAuto\t~car\t~motor car\nred apple\troter Apfel\t~apple\nwhale\tクジラ\nÉléphant\n"

static const char *model(const char *list)
{
    static char folder[PATH_MAX]; /* in_folder's are used again */
    snprintf(folder, sizeof folder, "%s", in_folder("model"));
    run_shell("rm -rf '%s'; cp -r '%s/tiny' '%s'", folder, ZIMAGE_TEST_DATA, folder);
    FILE *file = fopen(in_folder("model/words.txt"), "wb");
    assert_non_null(file);
    fputs(list, file);
    assert_int_equal(fclose(file), 0);
    return folder;
}

static void words(const char *folder, const char *text, int code)
{
    const char *const arguments[] = {"words", "-m", folder, text, NULL};
    run_program(arguments, &o);
    if (o.code != code)
        fail_msg("%s: exit code %d: %s%s", text ? text : "all", o.code, o.out, o.err);
}

static void things_are_listed(void **state)
{
    const char *folder = model(LIST);
    words(folder, NULL, 0);
    assert_string_equal(o.out, "automobile\nred apple\nwhale\nÉléphant\n");
    words(folder, "Apple", 0); /* in any case */
    assert_string_equal(o.out, "red apple: apple (not known)\n");
    words(folder, "CAR", 0);
    assert_string_equal(o.out, "automobile: car (not known), motor car (not known)\n");
    words(folder, "éléphant", 0); /* letters beyond ASCII, too */
    assert_string_equal(o.out, "Éléphant\n");
    words(folder, "クジラ", 0);
    assert_string_equal(o.out, "whale: クジラ\n");
    words(folder, "whele", 1);
    assert_non_null(strstr(o.err, "knows no \"whele\"; nearest: whale"));
    words(folder, "parliament", 1);
    assert_null(strstr(o.err, "nearest"));
}

static void json_says_the_same(void **state)
{
    const char *const arguments[] = {"words", "-m", model(LIST), "car", "--json", NULL};
    run_program(arguments, &o);
    assert_int_equal(o.code, 0);
    json_t *object = json_loads(o.out, 0, NULL);
    json_t *thing = json_array_get(json_object_get(object, "things"), 0);
    assert_string_equal(json_string_value(json_object_get(thing, "thing")), "automobile");
    assert_int_equal(json_array_size(json_object_get(thing, "names")), 2);
    assert_true(json_is_false(json_object_get(json_array_get(json_object_get(thing, "names"), 0), "known")));
    json_decref(object);
}

/* Each unknown part is named once, with what is nearest by the list or by spelling; what is known is not named. */
static void prompts_are_compared(void **state)
{
    static const struct {
        const char *prompt, *warning;
    } cases[] = {
        {"a car on a blue background", "knows no \"car\"; nearest: \"automobile\""},
        {"An Apple", "knows no \"apple\"; nearest: \"red apple\""},
        {"autmobile", "knows no \"autmobile\"; nearest: \"automobile\""},
        {"クジウ、blue", "knows no \"クジウ\"; nearest: \"whale\"\n"}, /* characters that are no name are one word */
        {"a zebra", "knows no \"zebra\"\n"},
        {"3 automobiles, red apple", NULL},
        {"Roter Apfel", NULL},
        {"a 自動車!", NULL},
    };
    const char *folder = model(LIST);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const arguments[] = {
            "generate", cases[i].prompt,    "-m", folder, "--size", "32x32", "--steps", "1", "-q",
            "-o",       in_folder("x.png"), NULL};
        run_program(arguments, &o);
        if (o.code)
            fail_msg("%s: %s", cases[i].prompt, o.err);
        const char *warning = strstr(o.err, "knows no");
        if (!cases[i].warning != !warning || (warning && strncmp(warning, cases[i].warning, strlen(cases[i].warning))))
            fail_msg("%s: %s", cases[i].prompt, o.err);
    }
}

static void a_model_without_a_list_warns_of_nothing(void **state)
{
    const char *folder = model("");
    unlink(in_folder("model/words.txt"));
    words(folder, NULL, 2);
    assert_non_null(strstr(o.err, "has no words.txt"));
    const char *const arguments[] = {"generate", "a zebra", "-m", folder, "--size",           "32x32",
                                     "--steps",  "1",       "-q", "-o",   in_folder("x.png"), NULL};
    run_program(arguments, &o);
    assert_int_equal(o.code, 0);
    assert_null(strstr(o.err, "knows no"));
}

/* One sentence that says where and what; an image is made all the same. */
static void damaged_lists_are_refused(void **state)
{
    static const struct {
        const char *list, *sentence;
    } cases[] = {
        {"", "line 1: expected \"zimage words 1\""},
        {"zimage words 2\n", "line 1: expected \"zimage words 1\""},
        {"zimage words 1\ncat\n\n", "line 3: an empty name"},
        {"zimage words 1\ncat\t\tdog\n", "line 2: an empty name"},
        {"zimage words 1\n~cat\n", "line 2: a line must begin with a name that the model knows"},
        {"zimage words 1\nca\x1b[31mt\n", "line 2: a control character"},
        {"zimage words 1\nca\xc3\n", "line 2: expected UTF-8"},
        {"zimage words 1\n\xed\xa0\x80\n", "line 2: expected UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *folder = model(cases[i].list);
        words(folder, NULL, 1);
        if (!strstr(o.err, cases[i].sentence))
            fail_msg("%zu: %s", i, o.err);
    }
    const char *folder = in_folder("model");
    const char *const arguments[] = {"generate", "a zebra", "-m", folder, "--size",           "32x32",
                                     "--steps",  "1",       "-q", "-o",   in_folder("x.png"), NULL};
    run_program(arguments, &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.err, "warning: "));
    run_shell("cd '%s'; printf 'zimage words 1\\n' >words.txt; head -c 160 /dev/zero | tr '\\0' x >>words.txt", folder);
    words(folder, NULL, 0);
    run_shell("printf x >>'%s/words.txt'", folder);
    words(folder, NULL, 1);
    assert_non_null(strstr(o.err, "a name of more than 160 bytes"));
    run_shell("head -c 4194305 /dev/zero >'%s/words.txt'", folder);
    words(folder, NULL, 1);
    assert_non_null(strstr(o.err, "expected at most 4 MiB"));
    run_shell("rm '%s/words.txt'; mkfifo '%s/words.txt'", folder, folder);
    words(folder, NULL, 1);
    assert_non_null(strstr(o.err, "expected a regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(things_are_listed),         cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(prompts_are_compared),      cmocka_unit_test(a_model_without_a_list_warns_of_nothing),
        cmocka_unit_test(damaged_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
