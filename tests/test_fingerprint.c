/* The fingerprint of a model: the same for the same configurations and weights, another one for others. */
#include <fcntl.h>

#include "program.h"

static char before[64];

static void read_fingerprint(char text[64])
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_model_info info = {.struct_size = sizeof info};
    if (zimage_model_open(in_folder("model"), NULL, &model, &error) != ZIMAGE_OK ||
        zimage_model_get_info(model, &info, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_model_close(model);
    snprintf(text, 64, "%s", info.fingerprint);
}

static int begin(void **state)
{
    if (folder_make(state) != 0)
        return -1;
    run_shell("cp -R '%s/tiny' '%s' && chmod -R u+w '%s'", ZIMAGE_TEST_DATA, in_folder("model"), in_folder("model"));
    read_fingerprint(before);
    return 0;
}

/* Runs a command in the model's folder, and says whether the fingerprint is another one than before. */
static void expect(int is_other, const char *command)
{
    char after[64];
    run_shell("cd '%s' && %s", in_folder("model"), command);
    read_fingerprint(after);
    assert_int_equal(strlen(after), 32);
    if (is_other != (strcmp(before, after) != 0))
        fail_msg("%s: %s before, %s after", command, before, after);
    snprintf(before, sizeof before, "%s", after);
}

static void the_same(void **state)
{
    expect(0, "true");
    expect(0, "sed -i.old 's/\"_diffusers_version\": \"[^\"]*\"/\"_diffusers_version\":   \"9.9\"/' "
              "transformer/config.json && grep -q '9\\.9' transformer/config.json && rm transformer/*.old");
    expect(0, "mv ../model ../other && cp -R ../other ../model");
}

static void another_configuration(void **state)
{
    expect(1, "sed -i.old 's/\"shift\": [0-9.]*/\"shift\": 4.5/' scheduler/scheduler_config.json && "
              "rm scheduler/*.old");
}

/* The lowest bit of every byte in the second half of the file, where its numbers are. */
static void another_weight(void **state)
{
    char after[64];
    struct stat status;
    int file = open(in_folder("model/transformer/diffusion_pytorch_model.safetensors"), O_RDWR);
    assert_int_equal(fstat(file, &status), 0);
    for (off_t at = status.st_size / 2; at < status.st_size; at++) {
        uint8_t byte;
        assert_int_equal(pread(file, &byte, 1, at), 1);
        byte ^= 1;
        assert_int_equal(pwrite(file, &byte, 1, at), 1);
    }
    close(file);
    read_fingerprint(after);
    assert_string_not_equal(before, after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same),
        cmocka_unit_test(another_configuration),
        cmocka_unit_test(another_weight),
    };
    return cmocka_run_group_tests(tests, begin, folder_remove);
}
