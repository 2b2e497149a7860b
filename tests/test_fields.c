/*
 * Folders from strangers: each field of each configuration of both families is left out, or has a value that is wrong
 * or huge. The folder is refused with a sentence that names it, or it makes an image; nothing else. A run tries some of
 * the values for each field; test_fields --all tries all.
 */
#include <jansson.h>

#include "files.h"
#include "program.h"
#include "zimage.h"

/* NULL: the field is left out. */
static const char *const values[] = {
    NULL,
    "null",
    "true",
    "-1",
    "0",
    "3",
    "2147483648",
    "9223372036854775807",
    "1e300",
    "-1e-300",
    "\"x\"",
    "\"\\u001b\"",
    "[]",
    "[0]",
    "[2147483648, -1]",
    "{}",
    "{\"rope_type\": 7}",
};
#define VALUES (sizeof values / sizeof *values)

#define SOME       12 /* without --all one of so many is tried */
#define SOME_BRIEF 48

static int all, fields_seen, refused, made;

/* The smallest image, from an image. */
static void check_model(zimage_model *model, const char *what)
{
    static const uint8_t pixels[64 * 64 * 3];
    const zimage_session_params params = {.struct_size = sizeof params, .threads = 1};
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_request request = {.struct_size = sizeof request, .prompt = "a", .steps = 1, .memory_limit = 1 << 30};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session *session = NULL;
    zimage_image *input = NULL, *image = NULL;
    assert_int_equal(zimage_model_get_info(model, &info, &error), ZIMAGE_OK);
    if (info.size_multiple < 1 || info.latent_channels < 1 || info.default_steps < 1)
        fail_msg("%s: sizes of the model: %d, %d, %d", what, info.size_multiple, info.latent_channels,
                 info.default_steps);
    assert_int_equal(zimage_session_open(model, &params, &session, &error), ZIMAGE_OK);
    assert_int_equal(zimage_image_from_pixels(pixels, 64, 64, sizeof pixels / 64, 3, &input, &error), ZIMAGE_OK);
    const zimage_image *images[] = {input};
    request.width = request.height = info.size_multiple;
    request.images = images;
    request.image_count = 1;
    zimage_status status = zimage_generate(session, &request, &image, &error);
    if (status != ZIMAGE_OK && (!error.message[0] || image || status == ZIMAGE_ERROR_INTERNAL))
        fail_msg("%s: no image: %s", what, error.message);
    zimage_image_free(input);
    zimage_image_free(image);
    zimage_session_close(session);
}

static void open_changed(const char *folder, const char *what)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_status status = zimage_model_open(folder, NULL, &model, &error);
    if (status == ZIMAGE_OK) {
        check_model(model, what);
        made++;
    } else {
        if (status == ZIMAGE_ERROR_MEMORY || status == ZIMAGE_ERROR_INTERNAL || !strstr(error.message, folder) ||
            strchr(error.message, '\n') || strchr(error.message, '\x1b'))
            fail_msg("%s: status %d: %s", what, (int)status, error.message);
        refused++;
    }
    zimage_model_close(model);
}

/* Each field of the object in turn, and those of objects in it; root is the file's content. */
static void change_fields(const char *folder, const char *path, json_t *root, json_t *object)
{
    json_t *fields = json_deep_copy(object), *field;
    const char *name;
    json_object_foreach(fields, name, field)
    {
        fields_seen++;
        for (size_t i = 0; i < VALUES; i++) {
            char what[512];
            if (!all && (i + (size_t)fields_seen) % (is_brief() ? SOME_BRIEF : SOME))
                continue;
            snprintf(what, sizeof what, "%s: %s: %s", path + strlen(folder), name, values[i] ? values[i] : "left out");
            if (values[i])
                json_object_set_new(object, name, json_loads(values[i], JSON_DECODE_ANY, NULL));
            else
                json_object_del(object, name);
            assert_int_equal(json_dump_file(root, path, 0), 0);
            open_changed(folder, what);
            json_object_set(object, name, field);
        }
        if (json_is_object(field))
            change_fields(folder, path, root, json_object_get(object, name));
    }
    json_decref(fields);
}

static void change_folder(const char *folder, const char *model)
{
    static const char *const files[] = {
        "model_index.json", "transformer/config.json",         "text_encoder/config.json",
        "vae/config.json",  "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"};
    refused = made = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        json_t *root = json_load_file(path, 0, NULL);
        if (!root)
            continue;
        json_t *copy = json_deep_copy(root);
        change_fields(folder, path, copy, copy);
        json_decref(copy);
        assert_int_equal(json_dump_file(root, path, 0), 0);
        json_decref(root);
    }
    printf("%s: %d changes are refused, %d make an image\n", model, refused, made);
    assert_true(refused > 10 && made > 3);
}

static void z_image(void **state)
{
    const char *folder = temporary("z-image");
    run_shell("cp -r '%s/tiny' '%s'", ZIMAGE_TEST_DATA, folder);
    change_folder(folder, "Z-Image");
}

static void klein(void **state)
{
    const char *folder = temporary("klein");
    run_shell("cp -r '%s/tiny-klein' '%s'", ZIMAGE_TEST_DATA, folder);
    change_folder(folder, "FLUX.2-klein");
}

/* Packed by mflux, without model_index.json and scheduler/. */
static void packed_klein(void **state)
{
    const char *folder = temporary("packed");
    run_shell("cp -r '%s/mlx/klein' '%s'", ZIMAGE_TEST_DATA, folder);
    run_shell("cd '%s/tiny-klein' && cp -r text_encoder tokenizer '%s'", ZIMAGE_TEST_DATA, folder);
    change_folder(folder, "FLUX.2-klein, packed");
}

/* test_fields [--all] */
int main(int argc, char **argv)
{
    all = argc > 1 && strcmp(argv[1], "--all") == 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(z_image), cmocka_unit_test(klein),
                                       cmocka_unit_test(packed_klein)};
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
