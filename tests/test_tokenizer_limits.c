/* Time and memory of the tokenizer: hostile texts and files. */
#include "tokenizer.h"

/* A megabyte of each. 120 s are enough even under valgrind, and too short for a step of quadratic time. */
static void a_megabyte_takes_seconds(void **state)
{
    static const char *const UNITS[] = {"a",
                                        " ",
                                        "\n",
                                        "<",
                                        "<|im_",
                                        "\u0316\u0300",
                                        "\u0301",
                                        "中文",
                                        "1",
                                        "'",
                                        "<|im_end|>",
                                        " \u00A0",
                                        "\U00031350",
                                        "x \n",
                                        "the quick brown fox. ",
                                        "\u1100\u1161\u11A8"};
    const size_t size = 1 << 20;
    zi_tokenizer *tokenizer = load(qwen3_file());
    char *text = malloc(size);
    assert_non_null(text);
    double slowest = 0;
    for (size_t i = 0; i < sizeof UNITS / sizeof UNITS[0]; i++) {
        size_t unit = strlen(UNITS[i]), length = size / unit * unit, count;
        for (size_t at = 0; at < length; at += unit)
            memcpy(text + at, UNITS[i], unit);
        double start = seconds();
        free(encode(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, text, length, &count));
        double taken = seconds() - start;
        slowest = taken > slowest ? taken : slowest;
        assert_true(count > 8);
    }
    printf("a megabyte: %.2f s at most\n", slowest);
    free(text);
    zi_tokenizer_free(tokenizer);
    assert_true(slowest < 120);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_megabyte_takes_seconds),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
