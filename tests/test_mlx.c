/*
 * Checkpoints that MLX's quantiser packed: numbers and products against those of MLX, whole folders in both layouts
 * against diffusers with the weights that MLX dequantises, and every fault that such a file can have.
 */
#define ZIMAGE_EXPERIMENTAL
#include "files.h"
#include "fixture.h"
#include "program.h"
#include "session.h"
#include "tables.h"

#define ROWS    2
#define COLUMNS 128

static const int bits_of[] = {1, 2, 3, 4, 5, 6, 8}, groups_of[] = {32, 64, 128};
static const char *const kinds[] = {"f32", "f16", "bf16"};

typedef void check_case(zi_store *store, const char *name, const zi_weight *weight, void *user);

static zimage_status bind_matrix(zi_store *store, const char *name, int64_t rows, int64_t columns,
                                 const zi_weight **weight, zimage_error *error)
{
    zi_binder *binder;
    const int64_t shape[] = {rows, columns};
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    zi_bind(binder, weight, 2, shape, "%s", name);
    zi_bind_ignore(binder, "");
    return zi_binder_finish(binder, NULL, error);
}

/* Calls check for the weight of every combination in mlx/tensors.safetensors, after binding it as type `as`. */
static void each_case(zi_dtype as, check_case *check, void *user)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = fixture_open("mlx/tensors.safetensors");
    zi_store_dequantize(store, as);
    for (int b = 0; b < 7; b++)
        for (int g = 0; g < 3; g++)
            for (int k = 0; k < 3; k++) {
                char name[64], full[80];
                const zi_weight *weight;
                snprintf(name, sizeof name, "b%d.g%d.%s", bits_of[b], groups_of[g], kinds[k]);
                snprintf(full, sizeof full, "%s.weight", name);
                if (bind_matrix(store, full, ROWS, COLUMNS, &weight, &error) != ZIMAGE_OK)
                    fail_msg("%s", error.message);
                assert_int_equal(weight->dtype, as);
                assert_true(as != ZI_GROUPED || (weight->bits == bits_of[b] && weight->group == groups_of[g]));
                check(store, name, weight, user);
            }
    zi_store_free(store);
}

static float *golden(zi_store *store, const char *name, const char *what)
{
    char full[80];
    snprintf(full, sizeof full, "%s.%s", name, what);
    return fixture_floats(store, full, NULL);
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static void check_values(zi_store *store, const char *name, const zi_weight *weight, void *user)
{
    float *want = golden(store, name, "values"), got[ROWS * COLUMNS + 1];
    zi_weight_unpack(weight, 0, ROWS * COLUMNS, got);
    if (memcmp(got, want, ROWS * COLUMNS * sizeof *want) != 0)
        fail_msg("%s: the values are not MLX's", name);
    for (int64_t first = 0; first < ROWS * COLUMNS; first += 13)
        for (int64_t count = 0; first + count <= ROWS * COLUMNS; count += 17) {
            got[count] = 1e30f;
            zi_weight_unpack(weight, first, count, got);
            assert_memory_equal(got, want + first, (size_t)count * sizeof *want);
            assert_true(got[count] == 1e30f); /* nothing after the range is written */
        }
    const zi_weight last = zi_weight_slice(weight, ROWS - 1, 1);
    assert_int_equal(last.bytes, weight->bytes / ROWS);
    zi_weight_unpack(&last, 0, COLUMNS, got);
    assert_memory_equal(got, want + (ROWS - 1) * COLUMNS, COLUMNS * sizeof *want);
    free(want);
}

/* Exactly equal: scale * q rounded to float32, then + bias rounded, as mlx.core.dequantize does with float32 scales. */
static void values_equal_mlx(void **state)
{
    each_case(ZI_GROUPED, check_values, NULL);
    each_case(ZI_F32, check_values, NULL);
}

static void check_rounded(zi_store *store, const char *name, const zi_weight *weight, void *user)
{
    float *want = golden(store, name, "values"), got[ROWS * COLUMNS];
    zi_weight_unpack(weight, 0, ROWS * COLUMNS, got);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        assert_true(fabsf(got[i] - want[i]) <= ldexpf(fabsf(want[i]), -8)); /* half a unit of 8 bits */
    free(want);
}

static void expanding_to_bf16_rounds(void **state)
{
    static const struct {
        float value;
        uint16_t bits;
    } cases[] = {{1, 0x3F80},          {0x1.01p0f, 0x3F80},       {0x1.010002p0f, 0x3F81}, {0x1.03p0f, 0x3F82},
                 {-0x1.03p0f, 0xBF82}, {0x1.FFFFFEp127f, 0x7F80}, {INFINITY, 0x7F80},      {0, 0},
                 {-0.0f, 0x8000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(zi_f32_to_bf16(cases[i].value), cases[i].bits);
    assert_true(isnan(zi_bf16_to_f32(zi_f32_to_bf16(NAN))));
    each_case(ZI_BF16, check_rounded, NULL);
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

typedef struct product_check {
    zi_run *run;
    double worst;
} product_check;

/*
 * A product of `tokens` rows, which repeat the two rows of x. With few rows the CPU backend takes its skinny product,
 * with many its panels.
 */
static void check_product_of(product_check *check, zi_store *store, const char *name, const zi_weight *weight,
                             int64_t tokens)
{
    const int64_t x_shape[] = {tokens, COLUMNS}, y_shape[] = {tokens, ROWS};
    zi_run *run = check->run;
    zi_arena_mark mark = zi_table(run)->mark(run);
    float *rows = fixture_floats(store, "x", NULL), *want = golden(store, name, "product");
    zi_tensor x = table_tensor(run, 2, x_shape, NULL), y = table_tensor(run, 2, y_shape, NULL);
    for (int64_t t = 0; t < tokens; t++)
        memcpy(zi_f32(&x) + t * COLUMNS, rows + t % 2 * COLUMNS, COLUMNS * sizeof *rows);
    table_ok(zi_table(run)->linear(run, &y, &x, weight, NULL, 0));
    for (int64_t t = 0; t < tokens; t += 2)
        check->worst = fmax(check->worst, relative_error(zi_f32(&y) + t * ROWS, want, (size_t)(2 * ROWS)));
    zi_table(run)->release(run, mark);
    free(rows);
    free(want);
}

static void check_product(zi_store *store, const char *name, const zi_weight *weight, void *user)
{
    check_product_of(user, store, name, weight, 2);
    check_product_of(user, store, name, weight, 40);
}

static void products_are_mlx_own(void **state)
{
    for (int t = 0; t < TABLES; t++) {
        product_check check = {table_open(t), 0};
        each_case(ZI_GROUPED, check_product, &check);
        char line[64];
        snprintf(line, sizeof line, "%s: products of MLX weights: worst of 126", zi_table(check.run)->name);
        parity_line(line, check.worst, 2e-6, "");
        table_close(check.run);
    }
}

static void check_embedding(zi_store *store, const char *name, const zi_weight *weight, void *user)
{
    const int64_t shape[] = {3, COLUMNS};
    const int32_t ids[] = {1, 0, 1};
    zi_run *run = user;
    zi_arena_mark mark = zi_table(run)->mark(run);
    float *want = golden(store, name, "values");
    zi_tensor y = table_tensor(run, 2, shape, NULL);
    table_ok(zi_table(run)->embed_rows(run, &y, weight, ids));
    for (int i = 0; i < 3; i++)
        assert_memory_equal(zi_f32(&y) + i * COLUMNS, want + ids[i] * COLUMNS, COLUMNS * sizeof *want);
    zi_table(run)->release(run, mark);
    free(want);
}

static void embedding_rows_are_unpacked(void **state)
{
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        each_case(ZI_GROUPED, check_embedding, run);
        table_close(run);
    }
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static int warned;

static void keep_log(zimage_log_level level, const char *message, void *user)
{
    (void)user;
    warned += level == ZIMAGE_LOG_WARNING;
    if (!strstr(message, "scheduler_config.json"))
        fail_msg("unexpected: %s", message);
}

static zimage_session *open_folder(const char *folder, zimage_dequantize dequantize, int reference)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_model_params model_params = {
        .struct_size = sizeof model_params, .dequantize = dequantize, .log = keep_log};
    const zimage_session_params params = {.struct_size = sizeof params,
                                          .compute = ZIMAGE_COMPUTE_F32,
                                          .log = keep_log,
                                          .threads = 2,
                                          .reference = reference};
    zimage_session *session = NULL;
    if (session_on(folder, &model_params, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static const zi_weight *of_layout(const zi_store *store, const char *layout, const char *what)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", layout, what);
    return fixture_find(store, key);
}

/* Generates the golden's image. */
static zimage_image *generate(zimage_session *session, const zi_store *store, const char *layout)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = {.struct_size = sizeof request};
    zimage_image *image = NULL;
    const zi_weight *prompt = fixture_find(store, "prompt");
    int32_t settings[3];
    char text[200] = "";
    memcpy(text, prompt->data, prompt->bytes);
    memcpy(settings, of_layout(store, layout, "settings")->data, sizeof settings);
    request.prompt = text;
    request.width = settings[0];
    request.height = settings[1];
    request.steps = settings[2];
    memcpy(&request.seed, of_layout(store, layout, "seed")->data, sizeof request.seed);
    if (zimage_generate(session, &request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

static size_t pixel_bytes(const zimage_image *image)
{
    return (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image) * 3;
}

/* The number of bytes that differ by more than `limit`. */
static size_t bytes_off(const uint8_t *a, const uint8_t *b, size_t count, int limit)
{
    size_t off = 0;
    for (size_t i = 0; i < count; i++)
        off += abs((int)a[i] - b[i]) > limit;
    return off;
}

static void compare_image(const zimage_image *image, const zi_store *store, const char *layout, const char *how,
                          double tolerance)
{
    char stage[64], key[64];
    int64_t shape[3];
    size_t count, bytes = pixel_bytes(image);
    const float *latents = zimage_image_latents(image, shape);
    snprintf(key, sizeof key, "%s.latents", layout);
    snprintf(stage, sizeof stage, "%s: image of MLX weights, latents: %s", how, layout);
    float *want = fixture_floats(store, key, &count);
    assert_int_equal(shape[0] * shape[1] * shape[2], count);
    parity(stage, latents, want, count, tolerance);
    free(want);
    const uint8_t *rgb = of_layout(store, layout, "rgb")->data;
    size_t off = bytes_off(zimage_image_pixels(image), rgb, bytes, 0);
    if (tolerance < 1e-4) {
        char note[64];
        snprintf(stage, sizeof stage, "%s: image of MLX weights, pixels: %s", how, layout);
        snprintf(note, sizeof note, " (%zu of %zu bytes off)", off, bytes);
        parity_line(stage, bytes_off(zimage_image_pixels(image), rgb, bytes, 1) ? 2 : off > 0, 1, note);
        assert_true(off * 1000 <= bytes);
    }
}

/* With packed weights and with weights dequantised to float32: the same numbers, perhaps summed in another order. */
static void compare_ways(const zimage_image *packed, const zimage_image *expanded, const char *layout)
{
    const uint8_t *a = zimage_image_pixels(packed), *b = zimage_image_pixels(expanded);
    size_t bytes = pixel_bytes(packed);
    printf("%s: packed and expanded weights: %zu of %zu bytes differ\n", layout, bytes_off(a, b, bytes, 0), bytes);
    assert_true(bytes_off(a, b, bytes, 2) * 1000 <= bytes);
}

static void folders_make_the_images_of_the_reference(void **state)
{
    static const char *const layouts[] = {"uqer1244", "mflux"};
    zi_store *store = fixture_open("mlx/pictures.safetensors");
    for (int i = 0; i < 2; i++) {
        const char *folder = packed_model(layouts[i]);
        warned = 0;
        zimage_session *packed = open_folder(folder, ZIMAGE_DEQUANTIZE_NONE, 0);
        assert_int_equal(warned, 1); /* of the missing schedule */
        zimage_session *reference = open_folder(folder, ZIMAGE_DEQUANTIZE_NONE, 1);
        zimage_session *expanded = open_folder(folder, ZIMAGE_DEQUANTIZE_F32, 0);
        zimage_session *rounded = open_folder(folder, ZIMAGE_DEQUANTIZE_BF16, 0);
        zimage_image *first = generate(packed, store, layouts[i]), *slow = generate(reference, store, layouts[i]);
        zimage_image *same = generate(expanded, store, layouts[i]), *near = generate(rounded, store, layouts[i]);
        compare_image(first, store, layouts[i], "cpu", 2e-5);
        compare_image(slow, store, layouts[i], "reference", 2e-5);
        compare_image(near, store, layouts[i], "cpu, as bf16", 0.01);
        compare_ways(first, same, layouts[i]);
        zimage_image *const images[] = {first, slow, same, near};
        zimage_session *const sessions[] = {packed, reference, expanded, rounded};
        for (int k = 0; k < 4; k++) {
            zimage_image_free(images[k]);
            zimage_session_close(sessions[k]);
        }
    }
    zi_store_free(store);
}

static zimage_status open_status(const char *folder, zimage_error *error)
{
    zimage_session *session = NULL;
    zimage_status status = session_on(folder, NULL, NULL, &session, error);
    zimage_session_close(session);
    return status;
}

static void what_a_folder_may_lack(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const char *folder = packed_model("mflux");
    run_shell("rm '%s/text_encoder/config.json'", folder);
    assert_error(&error, open_status(folder, &error), ZIMAGE_ERROR_FILE,
                 "mflux/text_encoder/config.json: ", "mflux saves none", NULL);
    folder = packed_model("mflux");
    run_shell("rm '%s/transformer/1.safetensors'", folder);
    assert_error(&error, open_status(folder, &error), ZIMAGE_ERROR_FILE, "transformer/1.safetensors", "no such file",
                 NULL);
    folder = packed_model("uqer1244");
    run_shell("cp '%s/tiny/model_index.json' '%s'", ZIMAGE_TEST_DATA, folder);
    assert_error(&error, open_status(folder, &error), ZIMAGE_ERROR_FILE, "scheduler/scheduler_config.json", NULL, NULL);
    run_shell("cp -r '%s/tiny/scheduler' '%s'", ZIMAGE_TEST_DATA, folder);
    assert_int_equal(open_status(folder, &error), ZIMAGE_OK);
    run_shell("rm '%s/transformer/model.safetensors'", folder);
    assert_error(&error, open_status(folder, &error), ZIMAGE_ERROR_FILE, "/transformer: ", "no weights", NULL);
}

static void inspect_describes_packed_matrices(void **state)
{
    static const struct {
        const char *layout, *name, *dtype;
        int64_t rows, columns, bytes;
    } cases[] = {
        {"uqer1244", "layers.0.attention.to_out.weight", "U4 group 32", 64, 64, 2048},
        {"uqer1244", "model.embed_tokens.weight", "U4 group 32", 768, 64, 24576},
        {"uqer1244", "layers.0.attention.to_out.scales", "F16", 64, 2, 256},
        {"mflux", "layers.1.mlp.down_proj.weight", "U8 group 64", 64, 128, 8192}, /* of the layer that is never run */
        {"mflux", "decoder.mid_block.attentions.0.to_q.weight", "BF16", 12, 12, 288},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_inspection *in = NULL;
        zimage_component_info component = {.struct_size = sizeof component};
        zimage_tensor_info tensor = {.struct_size = sizeof tensor};
        int found = 0;
        assert_int_equal(zimage_inspect(packed_model(cases[i].layout), &in, NULL), ZIMAGE_OK);
        for (size_t c = zimage_inspection_components(in); c-- > 0;) {
            assert_int_equal(zimage_inspection_get_component(in, c, &component, NULL), ZIMAGE_OK);
            for (size_t t = 0; t < component.tensors; t++) {
                assert_int_equal(zimage_inspection_get_tensor(in, c, t, &tensor, NULL), ZIMAGE_OK);
                assert_string_not_equal(tensor.dtype, "U32");
                if (strcmp(tensor.name, cases[i].name) != 0)
                    continue;
                found++;
                assert_string_equal(tensor.dtype, cases[i].dtype);
                assert_int_equal(tensor.shape[0], cases[i].rows);
                assert_int_equal(tensor.shape[1], cases[i].columns);
                assert_int_equal(tensor.bytes, cases[i].bytes);
            }
        }
        assert_int_equal(found, 1);
        assert_int_equal(component.parameters, 520720); /* the transformer's, the same as of the float network */
        zimage_inspection_free(in);
    }
}

/* ---- hostile files ----------------------------------------------------------------------------------------------- */

#define WEIGHT(columns, end) "\"x.weight\":{\"dtype\":\"U32\",\"shape\":[4," #columns "],\"data_offsets\":[0," #end "]}"
#define PART(name, dtype, shape, begin, end)                                                                           \
    ",\"x." name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

/* All are bound as [4, 64]. With 4 bits a row has 8 words; with groups of 32 it has 2 scales. */
static void wrong_files_are_reported(void **state)
{
    static const struct {
        const char *header;
        size_t bytes;
        const char *says, *also;
    } cases[] = {
        {WEIGHT(8, 128), 128, "x.scales: missing", "F32, F16 or BF16 [4, 64 / group] with groups of 32, 64 or 128"},
        {WEIGHT(8, 128) PART("scales", "F16", "[4,2]", 128, 144), 144, "x.biases: missing", "expected F16 [4, 2]"},
        {WEIGHT(8, 128) PART("biases", "F16", "[4,2]", 128, 144), 144, "x.scales: missing", "expected"},
        {WEIGHT(8, 128) PART("scales", "F16", "[4,3]", 128, 152) PART("biases", "F16", "[4,3]", 152, 176), 176,
         "x.scales: F16 [4, 3]", "[4, 64 / group]"},
        {WEIGHT(8, 128) PART("scales", "F16", "[4,4]", 128, 160) PART("biases", "F16", "[4,4]", 160, 192), 192,
         "x.scales: F16 [4, 4]", "groups of 32, 64 or 128"},
        {WEIGHT(8, 128) PART("scales", "F16", "[4,0]", 128, 128) PART("biases", "F16", "[4,0]", 128, 128), 128,
         "x.scales: F16 [4, 0]", "[4, 64 / group]"},
        {WEIGHT(8, 128) PART("scales", "F16", "[3,2]", 128, 140) PART("biases", "F16", "[4,2]", 140, 156), 156,
         "x.scales: F16 [3, 2]", "expected"},
        {WEIGHT(8, 128) PART("scales", "F16", "[8]", 128, 144) PART("biases", "F16", "[8]", 144, 160), 160,
         "x.scales: F16 [8]", "expected"},
        {WEIGHT(8, 128) PART("scales", "I16", "[4,2]", 128, 144) PART("biases", "I16", "[4,2]", 144, 160), 160,
         "x.scales: I16 [4, 2]", "F32, F16 or BF16"},
        {WEIGHT(8, 128) PART("scales", "U8", "[4,2]", 128, 136) PART("biases", "U8", "[4,2]", 136, 144), 144,
         "x.scales: U8 [4, 2]", "F32, F16 or BF16"},
        {WEIGHT(8, 128) PART("scales", "F8_E4M3", "[4,2]", 128, 136) PART("biases", "F8_E4M3", "[4,2]", 136, 144), 144,
         "x.scales: F8_E4M3 [4, 2]", "F32, F16 or BF16"},
        {WEIGHT(8, 128) PART("scales", "F16", "[4,2]", 128, 144) PART("biases", "BF16", "[4,2]", 144, 160), 160,
         "x.biases: BF16 [4, 2]", "expected F16 [4, 2]"},
        {WEIGHT(8, 128) PART("scales", "F16", "[4,2]", 128, 144) PART("biases", "F16", "[4,1]", 144, 152), 152,
         "x.biases: F16 [4, 1]", "expected F16 [4, 2]"},
        {WEIGHT(7, 112) PART("scales", "F16", "[4,2]", 112, 128) PART("biases", "F16", "[4,2]", 128, 144), 144,
         "x.weight: U32 [4, 7]", "[4, 64 * bits / 32] with 1 to 6 or 8 bits"},
        {WEIGHT(14, 224) PART("scales", "F16", "[4,2]", 224, 240) PART("biases", "F16", "[4,2]", 240, 256), 256,
         "x.weight: U32 [4, 14]", "1 to 6 or 8 bits"}, /* 7 bits */
        {WEIGHT(64, 1024) PART("scales", "F16", "[4,2]", 1024, 1040) PART("biases", "F16", "[4,2]", 1040, 1056), 1056,
         "x.weight: U32 [4, 64]", "1 to 6 or 8 bits"}, /* 32 bits */
        {WEIGHT(0, 0) PART("scales", "F16", "[4,2]", 0, 16) PART("biases", "F16", "[4,2]", 16, 32), 32,
         "x.weight: U32 [4, 0]", "1 to 6 or 8 bits"},
        {"\"x.weight\":{\"dtype\":\"U32\",\"shape\":[5,8],\"data_offsets\":[0,160]}", 160, "x.weight: U32 [5, 8]",
         "expected U32 [4, 64 * bits / 32]"},
        {"\"x.weight\":{\"dtype\":\"U32\",\"shape\":[32],\"data_offsets\":[0,128]}", 128, "x.weight: U32 [32]",
         "expected U32"},
        {"\"x.weight\":{\"dtype\":\"I32\",\"shape\":[4,8],\"data_offsets\":[0,128]}", 128, "x.weight: [4, 8]",
         "expected [4, 64]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[1000];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_store *store;
        const zi_weight *weight;
        snprintf(header, sizeof header, "{%s}", cases[i].header);
        write_safetensors(in_folder("x.safetensors"), header, cases[i].bytes);
        if (zi_store_open_file(in_folder("x.safetensors"), &store, &error) != ZIMAGE_OK)
            fail_msg("%s", error.message);
        zimage_status status = bind_matrix(store, "x.weight", 4, 64, &weight, &error);
        assert_error(&error, status, ZIMAGE_ERROR_MODEL, "x.safetensors: 1 tensor ", cases[i].says, cases[i].also);
        assert_null(weight);
        zi_store_free(store);
    }
}

/* Words and scales may lie at odd offsets of the file. And a vector is never a packed matrix. */
static void places_need_no_alignment(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store;
    zi_binder *binder;
    const zi_weight *weight, *pad;
    const int64_t shape[] = {1, 64};
    float values[64];
    write_safetensors(in_folder("x.safetensors"),
                      "{\"odd\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                      "\"x.weight\":{\"dtype\":\"U32\",\"shape\":[1,8],\"data_offsets\":[1,33]},"
                      "\"x.scales\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[33,37]},"
                      "\"x.biases\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[37,41]},"
                      "\"pad\":{\"dtype\":\"U32\",\"shape\":[1,8],\"data_offsets\":[41,73]}}",
                      73);
    assert_int_equal(zi_store_open_file(in_folder("x.safetensors"), &store, &error), ZIMAGE_OK);
    assert_int_equal(bind_matrix(store, "x.weight", 1, 64, &weight, &error), ZIMAGE_OK);
    zi_weight_unpack(weight, 0, 64, values);
    for (int i = 0; i < 64; i++) { /* the byte at offset n of the data is n */
        int group = i / 32;
        float scale = zi_bf16_to_f32((uint16_t)((34 + 2 * group) << 8 | (33 + 2 * group)));
        float bias = zi_bf16_to_f32((uint16_t)((38 + 2 * group) << 8 | (37 + 2 * group)));
        float product = scale * (float)((1 + i / 2) >> i % 2 * 4 & 15);
        assert_true(values[i] == product + bias);
    }
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    zi_bind(binder, &pad, 2, shape, "pad");
    zi_bind_ignore(binder, "");
    assert_error(&error, zi_binder_finish(binder, NULL, &error), ZIMAGE_ERROR_MODEL, "pad: [1, 8], expected [1, 64]",
                 NULL, NULL);
    zi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_equal_mlx),
        cmocka_unit_test(expanding_to_bf16_rounds),
        cmocka_unit_test(products_are_mlx_own),
        cmocka_unit_test(embedding_rows_are_unpacked),
        cmocka_unit_test(folders_make_the_images_of_the_reference),
        cmocka_unit_test(what_a_folder_may_lack),
        cmocka_unit_test(inspect_describes_packed_matrices),
        cmocka_unit_test(wrong_files_are_reported),
        cmocka_unit_test(places_need_no_alignment),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
