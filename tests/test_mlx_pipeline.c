/*
 * Whole images of the tiny models by the MLX backend, whose library lies beside this program, against the CPU backend's
 * in float32, and against diffusers'. Then what the program says of the device. Skipped without MLX.
 */
#include "device_images.h"

static const device mlx = {"mlx", "MLX"};

/* The same float32 arithmetic, summed in another order. */
static const bounds one_byte = {2e-5, 1};

static void float32_is_the_same_image(void **state)
{
    compare_images(&mlx, TINY, "f32", ZIMAGE_COMPUTE_F32, IMAGE_CASES, &one_byte);
}

/* Images from images and with masks: against the reference itself. */
static void float32_from_images_equals_the_reference(void **state)
{
    zi_store *store = fixture_open("img2img.safetensors");
    zimage_session *session = img2img_session("mlx", ZIMAGE_COMPUTE_F32, 0, NULL);
    img2img_size(session, "MLX", store, "low");
    zimage_session_close(session);
    zi_store_free(store);
}

static void bf16_is_near(void **state)
{
    compare_images(&mlx, TINY, "bf16", ZIMAGE_COMPUTE_BF16, IMAGE_CASES, &near_bf16);
}

/* MLX's own folders of 4 bits, and mflux's of 8: as they are stored, and expanded once. */
static void packed_models_are_the_same_image(void **state)
{
    compare_images(&mlx, packed_model("uqer1244"), "q4, f32", ZIMAGE_COMPUTE_F32, 1, &one_byte);
    compare_images(&mlx, packed_model("mflux"), "q8, f32", ZIMAGE_COMPUTE_F32, 1, &one_byte);
    compare_images(&mlx, packed_model("uqer1244"), "q4, bf16", ZIMAGE_COMPUTE_BF16, 1, &near_bf16);
}

static void cancelling_leaves_the_device_usable(void **state)
{
    cancel_images(&mlx);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void the_program_finds_mlx(void **state)
{
    run_program(ARGUMENTS("devices"), &o);
    assert_int_equal(o.code, 0);
    assert_contains(o.out, "mlx: ");
    assert_contains(o.out, "MLX 0.");
    run_program(ARGUMENTS("generate", "a", "-m", packed_model("uqer1244"), "-o", "b.png", "-W", "32", "-H", "32",
                          "--steps", "1", "--device", "mlx", "--dequantize", "bf16", "--json"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
}

/* MLX's CPU is far slower than ours: "auto" takes MLX only with a GPU. */
static void auto_is_not_mlx_without_a_gpu(void **state)
{
    run_program(ARGUMENTS("devices"), &o);
    if (!strstr(o.out, "finds no GPU"))
        skip();
    run_program(ARGUMENTS("bench", "-m", TINY, "-W", "32", "-H", "32", "--steps", "1", "--device", "auto"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_null(strstr(o.out, "; mlx "));
}

static void the_graph_of_a_step_is_told(void **state)
{
    run_program(ARGUMENTS("bench", "-m", TINY, "-W", "32", "-H", "32", "--steps", "1", "--device", "mlx"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_contains(o.out, "transformer_step: a graph of ");
    assert_contains(o.out, " evaluations, arrays of at most ");
}

/* A limit that is too small is refused with the one that is needed, and that one is accepted. */
static void memory_limits_are_refused_or_accepted(void **state)
{
    unsigned long long least = 0;
    char limit[32];
    const char *arguments[] = {"generate", "a",        "-m",  TINY,      "-o", "m.png",  "-W",    "64", "-H", "64",
                               "-q",       "--device", "mlx", "--steps", "1",  "--json", "--mem", "3M", NULL};
    run_program(arguments, &o);
    assert_true(o.code != 0);
    const char *needs = strstr(o.err, "this request needs ");
    assert_non_null(needs);
    assert_int_equal(sscanf(needs, "this request needs %llu MiB", &least), 1);
    snprintf(limit, sizeof limit, "%lluM", least);
    arguments[17] = limit;
    run_program(arguments, &o);
    if (o.code)
        fail_msg("--mem %s: %s", limit, o.err);
}

/* The number at the end of the line that begins with `text`, which is a line break first. */
static double number_of_line(const char *text)
{
    const char *line = strstr(o.out, text);
    if (!line)
        fail_msg("no \"%s\" in: %s", text, o.out);
    const char *end = line + 1 + strcspn(line + 1, "\n");
    if (end - line > 4 && strncmp(end - 4, " MiB", 4) == 0)
        end -= 4;
    const char *number = end;
    while (number > line && number[-1] != ' ')
        number--;
    return strtod(number, NULL);
}

/* The arrays of MLX, weights included, take no more than the plan says. (The process takes more on a CPU: there MLX
 * calls malloc, which keeps some of what is freed.) */
static void arrays_stay_within_the_plan(void **state)
{
    static const char *const stages[] = {"text_encoder", "transformer_step", "vae_decode", "vae_encode"};
    run_program(ARGUMENTS("bench", "--synthetic", "small", "-W", "64", "-H", "64", "--tokens", "16", "--steps", "1",
                          "--compute", "f32", "--device", "mlx"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        char planned_line[64], graph_line[64];
        snprintf(planned_line, sizeof planned_line, "\n%s ", stages[i]);
        snprintf(graph_line, sizeof graph_line, "\n%s: a graph", stages[i]);
        double planned = number_of_line(planned_line), taken = number_of_line(graph_line);
        printf("%s: arrays of at most %.0f MiB, planned %.0f\n", stages[i], taken, planned);
        assert_true(taken > 0 && taken <= planned);
    }
}

static void what_mlx_lacks_is_refused(void **state)
{
    static const char *const wrong[][3] = {
        {"--compute", "fp8", "expected auto, f32 or bf16"},
        {"--compute", "int8", "expected auto, f32 or bf16"},
        {"--vram", "1G", "what CPU and GPU share"},
        {"--cpu-mask", "avx2", "--cpu-mask"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "-W", "16", "-H", "16", "--steps", "1",
                                 "--device", "mlx", wrong[i][0], wrong[i][1]),
                       wrong[i][0], wrong[i][2]);
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "mlx:1"), "mlx:1", "mlx");
}

/* libzimage-mlx is built for one version of MLX: another one is refused by a sentence, and the rest works. */
static void another_version_is_refused(void **state)
{
#ifdef ZIMAGE_OTHER_MLX
    setenv("LD_PRELOAD", ZIMAGE_OTHER_MLX, 1);
    run_program(ARGUMENTS("devices"), &o);
    unsetenv("LD_PRELOAD");
    assert_int_equal(o.code, 0);
    assert_contains(o.out, "mlx: no MLX device: MLX 0.31.2 was loaded, but libzimage-mlx was built with MLX 0.");
#else
    skip();
#endif
}

static void not_finite_names_the_block(void **state)
{
    spoil_blocks(&mlx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_is_the_same_image),
        cmocka_unit_test(float32_from_images_equals_the_reference),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(packed_models_are_the_same_image),
        cmocka_unit_test(cancelling_leaves_the_device_usable),
        cmocka_unit_test(the_program_finds_mlx),
        cmocka_unit_test(auto_is_not_mlx_without_a_gpu),
        cmocka_unit_test(the_graph_of_a_step_is_told),
        cmocka_unit_test(memory_limits_are_refused_or_accepted),
        cmocka_unit_test(arrays_stay_within_the_plan),
        cmocka_unit_test(what_mlx_lacks_is_refused),
        cmocka_unit_test(another_version_is_refused),
        cmocka_unit_test(not_finite_names_the_block),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
