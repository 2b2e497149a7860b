/*
 * Models that share weights: a Z-Image and a FLUX.2-klein with equal text encoders of 4 MiB hold one copy of it,
 * whether the encoder is one file, a file of two names, two files, or cut into other shards. Their images are those
 * that each makes alone, whichever model is closed first.
 */
#include <fcntl.h>
#include <pthread.h>

#include "base/system.h"
#include "engine/session.h"
#include "model_files.h"

#define LAYERS   30 /* of the text encoder: Z-Image reads 29, FLUX.2-klein 27 */
#define FEATURES 12
#define SIDE     32
#define BYTES    (SIDE * SIDE * 3)
#define MIB      1048576.0

enum { Z_IMAGE, KLEIN, FAMILIES };

static double encoder_bytes;
static uint8_t expected[FAMILIES][BYTES]; /* the images of each model alone */

/* ---- files ------------------------------------------------------------------------------------------------------- */

static json_t *deep_encoder(void)
{
    json_t *config = encoder_config(LAYERS);
    json_object_set_new(config, "intermediate_size", json_integer(is_brief() ? 512 : 2048));
    return config;
}

static void shell(const char *format, const char *a, const char *b)
{
    char command[4 * PATH_MAX];
    snprintf(command, sizeof command, format, a, b);
    if (system(command) != 0)
        fail_msg("%s failed", command);
}

/* Changes the last byte of a file. */
static void change_last_byte(const char *path)
{
    uint8_t byte;
    int file = open(path, O_RDWR);
    off_t last = lseek(file, -1, SEEK_END);
    assert_true(last > 0);
    assert_int_equal(pread(file, &byte, 1, last), 1);
    byte ^= 1;
    assert_int_equal(pwrite(file, &byte, 1, last), 1);
    close(file);
}

/* Every second tensor of the store, from `first` on, as a shard; adds their names to the map. */
static void write_shard(const zi_store *store, size_t first, const char *folder, const char *name, json_t *map)
{
    json_t *header = json_object();
    json_int_t at = 0;
    char path[PATH_MAX];
    for (size_t i = first; i < zi_store_count(store); i += 2) {
        const zi_weight *weight = zi_store_at(store, i);
        json_t *shape = json_array();
        for (int d = 0; d < weight->dims; d++)
            json_array_append_new(shape, json_integer(weight->shape[d]));
        json_object_set_new(header, weight->name,
                            json_pack("{s: s, s: o, s: [I, I]}", "dtype", zi_store_dtype_of(store, i), "shape", shape,
                                      "data_offsets", at, at + (json_int_t)weight->bytes));
        json_object_set_new(map, weight->name, json_string(name));
        at += (json_int_t)weight->bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t length = strlen(text);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(&length, sizeof length, 1, file);
    fwrite(text, 1, length, file);
    for (size_t i = first; i < zi_store_count(store); i += 2)
        fwrite(zi_store_at(store, i)->data, 1, zi_store_at(store, i)->bytes, file);
    assert_int_equal(fclose(file), 0);
    free(text);
    json_decref(header);
}

/* The encoder of `from` as two shards, beside its configuration. */
static void write_shards(const char *from, const char *folder)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store;
    char path[PATH_MAX];
    json_t *map = json_object();
    assert_int_equal(zi_store_open(from, "model", &store, NULL, &error), ZIMAGE_OK);
    write_shard(store, 0, folder, "model-00001-of-00002.safetensors", map);
    write_shard(store, 1, folder, "model-00002-of-00002.safetensors", map);
    zi_store_free(store);
    json_t *index = json_pack("{s: o}", "weight_map", map);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    assert_int_equal(json_dump_file(index, path, 0), 0);
    json_decref(index);
}

static int group_make(void **state)
{
    if (make_temporary_folder(state) || mkdir(temporary("transformer"), 0700) || mkdir(temporary("first"), 0700))
        return -1;
    (void)write_transformer(temporary("transformer"), 2, FEATURES, ZI_F32);
    encoder_bytes =
        (double)write_network(&zi_family_zimage, ZI_TEXT_ENCODER, deep_encoder(), ZI_BF16, temporary("first"));
    shell("cp -r '%s' '%s'", temporary("first"), temporary("copy"));
    shell("cp -r '%s' '%s'", temporary("first"), temporary("other"));
    shell("cp -rl '%s' '%s'", temporary("first"), temporary("link"));
    change_last_byte(temporary("other/model.safetensors"));
    shell("mkdir '%2$s' && cp '%1$s/config.json' '%2$s'", temporary("first"), temporary("shards"));
    write_shards(temporary("first"), temporary("shards"));
    return 0;
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

static zimage_model *open_model(int family, const char *encoder)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_model_params params = {.struct_size = sizeof params, .text_encoder = temporary(encoder)};
    if (family == Z_IMAGE)
        params.transformer = temporary("transformer");
    if (zimage_model_open(family == Z_IMAGE ? ZIMAGE_TEST_DATA "/tiny" : ZIMAGE_TEST_DATA "/tiny-klein", &params,
                          &model, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return model;
}

static zimage_session *open_session(zimage_model *model)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session *session = NULL;
    const zimage_session_params params = {.struct_size = sizeof params, .threads = 1, .compute = ZIMAGE_COMPUTE_F32};
    if (zimage_session_open(model, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static const zimage_request request = {
    .struct_size = sizeof request, .prompt = "a red apple", .width = SIDE, .height = SIDE, .steps = 1, .seed = 3};

static zimage_status generate(zimage_session *session, int release, uint8_t pixels[BYTES], zimage_error *error)
{
    zimage_image *image = NULL;
    zimage_request own = request;
    own.release_weights = release;
    zimage_status status = zimage_generate(session, &own, &image, error);
    if (status == ZIMAGE_OK)
        memcpy(pixels, zimage_image_pixels(image), BYTES);
    zimage_image_free(image);
    return status;
}

static void assert_image(zimage_session *session, int family, int release)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    uint8_t pixels[BYTES];
    if (generate(session, release, pixels, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_memory_equal(pixels, expected[family], BYTES);
}

static const zi_store *encoder_of(const zimage_model *model)
{
    return model->inner->stores[ZI_TEXT_ENCODER];
}

/* How many tensors of the encoders are one and the same in memory. */
static size_t shared(const zimage_model *a, const zimage_model *b)
{
    size_t count = 0;
    assert_int_equal(zi_store_count(encoder_of(a)), zi_store_count(encoder_of(b)));
    for (size_t i = 0; i < zi_store_count(encoder_of(a)); i++) {
        const zi_weight *x = zi_store_at(encoder_of(a), i), *y = zi_store_at(encoder_of(b), i);
        assert_string_equal(x->name, y->name);
        assert_true((x->data == y->data) == (x->id == y->id));
        count += x->data == y->data;
    }
    return count;
}

/* Expects so many files of models in the process's memory map, each as often as it is mapped. Only Linux lists them. */
static void expect_mapped(int files)
{
#if defined(__linux__)
    char line[PATH_MAX + 200];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        count += strstr(line, temporary_folder) && strstr(line, "/model");
    fclose(maps);
    assert_int_equal(count, files);
#endif
}

static void alone(void **state)
{
    for (int family = 0; family < FAMILIES; family++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_model *model = open_model(family, "first");
        zimage_session *session = open_session(model);
        assert_int_equal(generate(session, 0, expected[family], &error), ZIMAGE_OK);
        zimage_session_close(session);
        zimage_model_close(model);
    }
    expect_mapped(0);
}

/* ---- what is shared ---------------------------------------------------------------------------------------------- */

/* Two models; the one that was opened as number `closed` is closed before the other one makes a second image. */
static void check_pair(const char *encoder, int first_family, int closed)
{
    const int families[2] = {first_family, !first_family};
    zimage_model *models[2] = {open_model(families[0], "first"), open_model(families[1], encoder)};
    zimage_session *sessions[2] = {open_session(models[0]), open_session(models[1])};
    assert_int_equal(shared(models[0], models[1]), zi_store_count(encoder_of(models[0])));
    expect_mapped(1);
    for (int i = 0; i < 2; i++)
        assert_image(sessions[i], families[i], 0);
    zimage_session_close(sessions[closed]);
    zimage_model_close(models[closed]);
    expect_mapped(1);
    assert_image(sessions[!closed], families[!closed], 1);
    zimage_session_close(sessions[!closed]);
    zimage_model_close(models[!closed]);
    expect_mapped(0);
}

static void equal_encoders_are_one(void **state)
{
    check_pair("first", Z_IMAGE, 0);
    check_pair("link", KLEIN, 1);
    check_pair("copy", Z_IMAGE, 1);
    check_pair("copy", KLEIN, 0);
    check_pair("shards", KLEIN, 0);
}

/* Of shards, tensors come from a single file and from shards that were opened before. */
static void three_models(void **state)
{
    zimage_model *other = open_model(Z_IMAGE, "other"), *shards = open_model(KLEIN, "shards"),
                 *first = open_model(Z_IMAGE, "first");
    size_t count = zi_store_count(encoder_of(first));
    assert_int_equal(shared(other, shards), count - 1);
    assert_int_equal(shared(first, shards), count);
    expect_mapped(2); /* the file "other", and the shard with the tensor that differs */
    zimage_model_close(other);
    zimage_model_close(shards);
    zimage_session *session = open_session(first);
    assert_image(session, Z_IMAGE, 0);
    zimage_model_close(first);
    zimage_session_close(session);
    expect_mapped(0);
}

static void one_byte_makes_a_difference(void **state)
{
    zimage_model *first = open_model(Z_IMAGE, "first"), *other = open_model(KLEIN, "other");
    assert_int_equal(shared(first, other), zi_store_count(encoder_of(first)) - 1);
    expect_mapped(2);
    zimage_model_close(first);
    zimage_model_close(other);
}

/* A file that was written since it was mapped may have other bytes than its header says. */
static void written_files_are_not_shared(void **state)
{
    zimage_model *first = open_model(Z_IMAGE, "copy");
    assert_int_equal(utimensat(AT_FDCWD, temporary("copy/model.safetensors"), NULL, 0), 0);
    zimage_model *second = open_model(KLEIN, "copy"), *third = open_model(KLEIN, "first");
    assert_int_equal(shared(first, second), 0);
    assert_int_equal(shared(second, third), zi_store_count(encoder_of(third)));
    zimage_model_close(first);
    zimage_model_close(second);
    zimage_model_close(third);
}

/* Equal numbers with other scales are other weights; and copies that were made while binding belong to their model. */
static void packed_weights_are_shared(void **state)
{
    static const char *const folder = ZIMAGE_TEST_DATA "/mlx/mflux";
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *models[3] = {NULL};
    shell("cp -r '%s' '%s'", folder, temporary("packed"));
    zimage_model_params params = {.struct_size = sizeof params, .tokenizer = ZIMAGE_TEST_DATA "/tiny/tokenizer"};
    for (int i = 0; i < 3; i++) {
        params.dequantize = i == 2 ? ZIMAGE_DEQUANTIZE_F32 : ZIMAGE_DEQUANTIZE_NONE;
        if (zimage_model_open(i ? temporary("packed") : folder, &params, &models[i], &error) != ZIMAGE_OK)
            fail_msg("%s", error.message);
    }
    assert_int_equal(shared(models[0], models[1]), zi_store_count(encoder_of(models[0])));
    for (size_t i = 0; i < zi_store_count(encoder_of(models[0])); i++) {
        const zi_weight *packed = zi_store_at(encoder_of(models[0]), i), *own = zi_store_at(encoder_of(models[2]), i);
        assert_true((packed->data == own->data) == (packed->dtype != ZI_GROUPED));
    }
    for (int i = 0; i < 3; i++)
        zimage_model_close(models[i]);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* MiB that the image of a model adds to the process. */
static double added_by_image(zimage_session *session, int family, int release)
{
    double before = (double)zi_resident_bytes();
    assert_image(session, family, release);
    return ((double)zi_resident_bytes() - before) / MIB;
}

/* Added by the first model; by a second one with a copy of its encoder; with one that differs in its last tensor. Then
 * what the second gives back beside the first, and once the first has no session. */
static void measure(int ignored, double *numbers)
{
    zimage_model *first = open_model(Z_IMAGE, "first"), *copy = open_model(KLEIN, "copy");
    zimage_session *one = open_session(first), *two = open_session(copy);
    numbers[0] = added_by_image(one, Z_IMAGE, 0);
    numbers[1] = added_by_image(two, KLEIN, 0);
    numbers[2] = added_by_image(two, KLEIN, 1);
    zimage_session_close(one);
    numbers[3] = added_by_image(two, KLEIN, 1);
    zimage_session_close(two);
    zimage_model_close(copy);
    zimage_model_close(first);
}

static void encoder_is_in_memory_once(void **state)
{
    double mib[4], encoder = encoder_bytes / MIB;
    in_a_process(measure, 0, mib, 4);
    printf("encoder of %.1f MiB: the first model's image adds %.1f MiB, the second's %.1f; it gives back %.1f beside a "
           "session of the first, %.1f alone\n",
           encoder, mib[0], mib[1], -mib[2], -mib[3]);
    if (MEMORY_IS_OURS) {
        assert_true(mib[0] > 0.9 * encoder);
        assert_true(mib[1] < 0.3 * encoder);
        assert_true(-mib[2] < 0.2 * encoder);
        assert_true(-mib[3] > 0.7 * encoder);
    }
}

/* The planned peak of decoding, in MiB, with a limit. */
static double planned_decoding(zimage_session *session)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_plan *plan = NULL;
    zimage_stage_info stage = {.struct_size = sizeof stage};
    zimage_request own = request;
    own.memory_limit = (uint64_t)1 << 40;
    assert_int_equal(zimage_plan_make(session, &own, &plan, &error), ZIMAGE_OK);
    assert_int_equal(zimage_plan_get_stage(plan, ZIMAGE_STAGE_DECODE, &stage, &error), ZIMAGE_OK);
    zimage_plan_free(plan);
    return (double)stage.peak_bytes / MIB;
}

/* A shared encoder stays while a session of the other model is open; the model's own networks do not. */
static void plans_know_of_other_models(void **state)
{
    zimage_model *first = open_model(Z_IMAGE, "first"), *copy = open_model(KLEIN, "copy");
    zimage_session *one = open_session(first), *two = open_session(copy);
    double together = planned_decoding(two);
    zimage_session_close(one);
    double alone = planned_decoding(two);
    assert_true(together - alone > 0.8 * encoder_bytes / MIB);
    assert_true(together - alone < 1.01 * encoder_bytes / MIB);
    zimage_session_close(two);
    zimage_model_close(copy);
    zimage_model_close(first);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

typedef struct worker {
    int family, rounds;
    const char *encoder;
    char folder[2 * PATH_MAX], transformer[2 * PATH_MAX];
    char problem[200]; /* empty: every image was as expected */
} worker;

static void use_model(worker *w, zimage_model *model)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session *session = NULL;
    uint8_t pixels[BYTES];
    const zimage_session_params params = {.struct_size = sizeof params, .threads = 1, .compute = ZIMAGE_COMPUTE_F32};
    zimage_status status = zimage_session_open(model, &params, &session, &error);
    if (status == ZIMAGE_OK)
        status = generate(session, w->rounds % 2, pixels, &error);
    if (status != ZIMAGE_OK)
        snprintf(w->problem, sizeof w->problem, "%.190s", error.message);
    else if (memcmp(pixels, expected[w->family], BYTES) != 0)
        snprintf(w->problem, sizeof w->problem, "another image");
    zimage_session_close(session);
}

/* No assertions: cmocka's belong to the main thread. */
static void *work(void *argument)
{
    worker *w = argument;
    zimage_model_params params = {.struct_size = sizeof params, .text_encoder = w->folder};
    params.transformer = w->family == Z_IMAGE ? w->transformer : NULL;
    for (; w->rounds > 0 && !w->problem[0]; w->rounds--) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_model *model = NULL;
        if (zimage_model_open(w->family == Z_IMAGE ? ZIMAGE_TEST_DATA "/tiny" : ZIMAGE_TEST_DATA "/tiny-klein", &params,
                              &model, &error) == ZIMAGE_OK)
            use_model(w, model);
        else
            snprintf(w->problem, sizeof w->problem, "%.190s", error.message);
        zimage_model_close(model);
    }
    return NULL;
}

static void models_come_and_go(void **state)
{
    worker workers[] = {{.family = Z_IMAGE, .rounds = 2, .encoder = "first"},
                        {.family = KLEIN, .rounds = 3, .encoder = "copy"},
                        {.family = KLEIN, .rounds = 2, .encoder = "link"},
                        {.family = Z_IMAGE, .rounds = 2, .encoder = "shards"}};
    enum { WORKERS = sizeof workers / sizeof *workers };
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        snprintf(workers[i].folder, sizeof workers[i].folder, "%s/%s", temporary_folder, workers[i].encoder);
        snprintf(workers[i].transformer, sizeof workers[i].transformer, "%s/transformer", temporary_folder);
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < WORKERS; i++)
        if (workers[i].problem[0])
            fail_msg("worker %d: %s", i, workers[i].problem);
    expect_mapped(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),
        cmocka_unit_test(equal_encoders_are_one),
        cmocka_unit_test(three_models),
        cmocka_unit_test(one_byte_makes_a_difference),
        cmocka_unit_test(packed_weights_are_shared),
        cmocka_unit_test(encoder_is_in_memory_once),
        cmocka_unit_test(plans_know_of_other_models),
        cmocka_unit_test(models_come_and_go),
        cmocka_unit_test(written_files_are_not_shared),
    };
    return cmocka_run_group_tests(tests, group_make, remove_temporary_folder);
}
