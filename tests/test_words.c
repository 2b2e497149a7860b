/* zimage words, and warnings of what a model does not know: the list words.txt in its folder. */
#include "program.h"
#include "shared/fold.h"
#include "shared/vocabulary.h"

#define BUNDLED ZIMAGE_TEST_DATA "/../../models/emoji"

static outcome o;

/* ---- texts as they are compared ---- */

static void texts_are_folded(void **state)
{
    static const struct {
        const char *text, *key;
    } cases[] = {
        {"", ""},
        {" ,.!? \n", ""},
        {"A Cat, please!", "a cat please"},
        {"\xc3\x89L\xc3\x89PHANT", "\xc3\xa9l\xc3\xa9phant"},
        {"e\xcc\x81le\xcc\x81phant", "\xc3\xa9l\xc3\xa9phant"}, /* letters and marks */
        {"GRO\xc3\x9f gro\xc3\x9f", "gross gross"},             /* a full folding */
        {"\xce\xa3\xce\xbf\xcf\x86\xce\xbf\xcf\x82", "\xcf\x83\xce\xbf\xcf\x86\xce\xbf\xcf\x83"}, /* final sigma */
        {"ＣＡＴ ﬁsh", "cat fish"},
        {"sun\xc2\xadset sun\xe2\x80\x8dset", "sunset sunset"}, /* a soft hyphen, a joiner */
        {"猫とCAT", "猫 と cat"},
        {"ｸｼﾞﾗ", "ク ジ ラ"},
        {"か\xe3\x82\x99", "が"},
        {"カー・ペット", "カ ー ペ ッ ト"},
        {"고양이 사진", "고양이 사진"},
        {"3D 50mm \xc2\xb2", "3d 50mm 2"},
        {"🐱cat🐶", "cat"},
        {"a\xffz\xc3(\xed\xa0\x80z", "a z z"}, /* not UTF-8 */
        {"\xcc\x81\xcc\x81 x\xcc\x81", "x\xcc\x81"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folded f, again;
        assert_true(fold_text(cases[i].text, &f));
        if (strcmp(f.key, cases[i].key) != 0)
            fail_msg("\"%s\": \"%s\", expected \"%s\"", cases[i].text, f.key, cases[i].key);
        assert_true(fold_text(f.key, &again));
        assert_string_equal(again.key, f.key);
        size_t spaces = 0;
        for (const char *c = f.key; *c; c++)
            spaces += *c == ' ';
        assert_int_equal(f.count, *f.key ? spaces + 1 : 0);
        fold_free(&f);
        fold_free(&again);
    }
}

/* Marks that could be sorted for hours. */
static void long_texts_take_no_time(void **state)
{
    const size_t count = 500000;
    char *text = malloc(2 * count + 2);
    folded f;
    assert_non_null(text);
    *text = 'a';
    for (size_t i = 0; i < count; i++)
        memcpy(text + 1 + 2 * i, i % 2 ? "\xcc\x81" : "\xcc\xa3", 2);
    text[2 * count + 1] = 0;
    assert_true(fold_text(text, &f));
    assert_int_equal(f.count, 1);
    assert_int_equal(f.tokens[0].to, 2 * count + 1);
    fold_free(&f);
    free(text);
}

/* ---- the program ---- */

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
    words(folder, "mot", 0); /* the beginning of a word, if it is no word itself */
    assert_string_equal(o.out, "automobile: motor car (not known)\n");
    words(folder, "auto", 0);
    assert_string_equal(o.out, "automobile: Auto\n");
    words(folder, "autmobile", 1);
    assert_non_null(strstr(o.err, "does not know \"autmobile\"; nearest: automobile"));
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

/* One warning names each unknown part, as it was typed, with what is nearest by the list or by spelling. */
static void prompts_are_compared(void **state)
{
    static const struct {
        const char *prompt, *warning;
    } cases[] = {
        {"a Car on a blue background", "the model does not know \"Car\" (nearest: \"automobile\")\n"},
        {"An Apple, an apple", "the model does not know \"Apple\" (nearest: \"red apple\")\n"},
        {"2 motor\tCARS", "the model does not know \"motor cars\" (nearest: \"automobile\")\n"},
        {"a zebra on an autmobile", "the model does not know \"zebra\", \"autmobile\" (nearest: \"automobile\")\n"},
        {"a zebra", "the model does not know \"zebra\"\n"},
        {"3 automobiles, red apples, x 2, 5th", NULL},
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
        const char *warning = strstr(o.err, "the model does not know");
        if (!cases[i].warning != !warning || (warning && strncmp(warning, cases[i].warning, strlen(cases[i].warning))))
            fail_msg("%s: %s", cases[i].prompt, o.err);
    }
}

static void a_model_without_a_list_warns_of_nothing(void **state)
{
    const char *folder = model("");
    unlink(in_folder("model/words.txt"));
    words(folder, NULL, 2);
    assert_non_null(strstr(o.err, "there is no words.txt, expected a list"));
    const char *const arguments[] = {"generate", "a zebra", "-m", folder, "--size",           "32x32",
                                     "--steps",  "1",       "-q", "-o",   in_folder("x.png"), NULL};
    run_program(arguments, &o);
    assert_int_equal(o.code, 0);
    assert_null(strstr(o.err, "does not know"));
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

/* ---- the bundled model's list ---- */

static vocabulary *bundled_list(void)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    vocabulary *list = NULL;
    if (vocabulary_read(BUNDLED, &list, &error) != ZIMAGE_OK || !list)
        fail_msg("%s", error.message);
    return list;
}

/* Each name is found by its own spelling and by its key, and one that is known is not warned of. */
static void names_find_themselves(void **state)
{
    vocabulary *list = bundled_list();
    char text[VOCABULARY_WARNING];
    assert_true(vocabulary_count(list) > 30000);
    for (size_t i = 0; i < vocabulary_count(list); i++) {
        const vocabulary_name *name = vocabulary_at(list, i);
        folded f;
        assert_true(fold_text(name->key, &f));
        assert_string_equal(f.key, name->key);
        fold_free(&f);
        if (*name->key && (name->is_known || !name->thing) && vocabulary_warning(list, "it", name->text, text))
            fail_msg("%s: %s", name->text, text);
        if (*name->key && name->thing && name->is_known && !vocabulary_nearest(list, name->text))
            fail_msg("%s: not found", name->text);
    }
    vocabulary_free(list);
}

/* What people type: words that say nothing about the drawing are no reason to warn, in any language. */
static void prompts_that_are_known(void **state)
{
    static const char *const prompts[] = {
        "a cat",
        "Two cats, please!",
        "a photo of a dog",
        "a beautiful picture of a house seen from above, highly detailed, very realistic, 8k, HDR",
        "An image of three hot dogs in the style of Noto",
        "a 3D render of a robot, best quality",
        "don't draw a bear; it's a panda that we'd like, isn't it?",
        "give me some cute cartoon icons of a snowman without a hat",
        "piano & pizza (1990s), 5 x 7",
        "a dog on the left, a cat at the top",
        "flag of Japan",
        "a car",
        "a tree",
        "Apple",
        "鯨",
        "icecream",
        "ＣＡＴ",
        "ein Foto von einem Hund",
        "ein kleines rotes Auto, sehr detailliert, auf weißem Hintergrund",
        "ein schönes Bild mit drei Pizzas",
        "eine Zeichnung im Stil von Noto: die Pizza ist unten",
        "un chat noir sur fond blanc",
        "une photo d'une voiture rouge",
        "une très belle image de deux éléphants, qualité parfaite",
        "une maison blanche à gauche, s'il vous plaît",
        "un gato negro",
        "una foto de un perro, muy detallada, de alta calidad",
        "dos elefantes rojos",
        "una casa blanca a la derecha",
        "一只猫",
        "一张可爱的猫的照片，高清",
        "蓝色背景上的熊猫",
        "上面的房子",
        "かわいい猫の写真",
        "青い背景のパンダ",
        "左に猫、右に犬",
        "高品質なロボットのイラスト",
        "ﾈｺ",
    };
    vocabulary *list = bundled_list();
    char text[VOCABULARY_WARNING];
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
        if (vocabulary_warning(list, "it", prompts[i], text))
            fail_msg("%s: %s", prompts[i], text);
    vocabulary_free(list);
}

/* What the model can't draw is named, and nothing else. */
static void prompts_that_are_not_known(void **state)
{
    static const struct {
        const char *prompt, *warning;
    } cases[] = {
        {"the very best skyscraper of all", "it does not know \"skyscraper\""},
        {"a Cyberpunk robot, a cyberpunk cat", "it does not know \"Cyberpunk\""},
        {"a strawbery", "it does not know \"strawbery\" (nearest: \"strawberry\")"},
        {"ein Elefannt", "it does not know \"Elefannt\" (nearest: \"Elefant\")"},
        {"ein Hund auf einer Wiese", "it does not know \"Wiese\" (nearest: \"wise\")"},
        {"un robot de Miyazaki", "it does not know \"Miyazaki\""},
        {"кошка", "it does not know \"кошка\""},
        {"고양이 사진", "it does not know \"고양이\", \"사진\""},
        {"木と蜃気楼", "it does not know \"蜃気楼\""},
        {"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee",
         "it does not know \"aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd...\""},
        {"qqa qqb qqc qqd qqe qqf", "it does not know \"qqa\", \"qqb\", \"qqc\", \"qqd\", \"qqe\""},
        {"deux oiseaux", "it does not know \"oiseaux\" (nearest: \"oiseau\")"},
        {"five mice", "it does not know \"mice\" (nearest: \"mouse\")"},
        {"two aardvarks under a tree", "it does not know \"aardvarks\""},
    };
    vocabulary *list = bundled_list();
    char text[VOCABULARY_WARNING];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(vocabulary_warning(list, "it", cases[i].prompt, text));
        assert_string_equal(text, cases[i].warning);
    }
    vocabulary_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_folded),          cmocka_unit_test(long_texts_take_no_time),
        cmocka_unit_test(things_are_listed),         cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(prompts_are_compared),      cmocka_unit_test(a_model_without_a_list_warns_of_nothing),
        cmocka_unit_test(damaged_lists_are_refused), cmocka_unit_test(names_find_themselves),
        cmocka_unit_test(prompts_that_are_known),    cmocka_unit_test(prompts_that_are_not_known),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
