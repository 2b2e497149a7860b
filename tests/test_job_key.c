/* Keys of jobs: what is a part of them, and what is not. */
#include "files.h"
#include "session.h"
#include "shared/job_key.h"

#define TINY  ZIMAGE_TEST_DATA "/tiny"
#define KLEIN ZIMAGE_TEST_DATA "/tiny-klein"

static zimage_model *tiny;
static zimage_error error = ZIMAGE_ERROR_INIT;

static const zimage_request plain = {.struct_size = sizeof plain, .prompt = "a \"red\" apple \xc3\xa9", .seed = 7};
static const job_output png = {.format = ZIMAGE_FORMAT_PNG, .has_recipe = 1};

static int open_tiny(void **state)
{
    return make_temporary_folder(state) != 0 || zimage_model_open(TINY, NULL, &tiny, &error) != ZIMAGE_OK;
}

static int close_tiny(void **state)
{
    zimage_model_close(tiny);
    return remove_temporary_folder(state);
}

/* The key, in one of a few buffers. */
static const char *key_of(const zimage_request *request, const job_output *output)
{
    static char keys[4][JOB_KEY];
    static int next;
    char *key = keys[next++ % 4];
    if (job_key(tiny, request, output, key, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(strlen(key), 64);
    return key;
}

#define SAME(request, output)  assert_string_equal(key_of(request, output), key_of(&plain, &png))
#define OTHER(request, output) assert_string_not_equal(key_of(request, output), key_of(&plain, &png))

/* The text word for word, and its hash by another program. */
static void the_text_is_canonical(void **state)
{
    zimage_model_info info = {.struct_size = sizeof info};
    char expected[1024], command[PATH_MAX + 64], printed[128] = "";
    assert_int_equal(zimage_model_get_info(tiny, &info, NULL), ZIMAGE_OK);
    snprintf(
        expected, sizeof expected,
        "{\"format\":\"png\",\"guidance\":0,\"model_fingerprint\":\"%s\",\"prompt\":\"a \\\"red\\\" apple \xc3\xa9\","
        "\"recipe\":1,\"rng\":\"torch-cpu\",\"seed\":7,\"size\":\"%dx%d\",\"steps\":%d}",
        info.fingerprint, info.default_width, info.default_height, info.default_steps);
    char *text = job_key_text(tiny, &plain, &png, &error);
    assert_non_null(text);
    assert_string_equal(text, expected);
    write_text(temporary("text"), text);
    free(text);
    snprintf(command, sizeof command, "sha256sum <'%s'", temporary("text"));
    FILE *sum = popen(command, "r");
    assert_non_null(sum);
    assert_non_null(fgets(printed, sizeof printed, sum));
    assert_int_equal(pclose(sum), 0);
    printed[64] = 0;
    assert_string_equal(key_of(&plain, &png), printed);
}

/* What the library would fill in, said or not said. */
static void defaults_change_nothing(void **state)
{
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_request r = plain;
    zimage_model_get_info(tiny, &info, NULL);
    r.width = info.default_width;
    r.height = info.default_height;
    r.steps = info.default_steps;
    r.cfg_truncation = 1;
    SAME(&r, &png);
    r.negative_prompt = "without guidance it is not read";
    r.preview = 1;
    r.release_weights = 1;
    r.memory_limit = 1 << 30;
    SAME(&r, &png);
    zimage_request guided = plain, said = plain;
    guided.guidance_scale = said.guidance_scale = 4.1F;
    said.negative_prompt = "";
    said.cfg_truncation = 1;
    assert_string_equal(key_of(&guided, &png), key_of(&said, &png));
}

static void every_value_counts(void **state)
{
    static const float numbers[] = {1, 2, 3};
    zimage_request r = plain;
    r.prompt = "a green apple";
    OTHER(&r, &png);
    r = plain, r.seed = 8;
    OTHER(&r, &png);
    r = plain, r.seed = UINT64_MAX;
    OTHER(&r, &png);
    r = plain, r.rng = ZIMAGE_RNG_NUMPY;
    OTHER(&r, &png);
    r = plain, r.steps = 3;
    OTHER(&r, &png);
    r = plain, r.width = 48;
    OTHER(&r, &png);
    r = plain, r.latents = numbers, r.latents_count = 3;
    OTHER(&r, &png);
    r = plain, r.prompt_embeds = numbers, r.prompt_tokens = 1, r.prompt_embeds_dim = 3;
    OTHER(&r, &png);
    r = plain, r.guidance_scale = 2;
    OTHER(&r, &png);
    zimage_request guided = r, s = r;
    s.negative_prompt = "blurry";
    assert_string_not_equal(key_of(&s, &png), key_of(&guided, &png));
    s = guided, s.cfg_truncation = 0.5;
    assert_string_not_equal(key_of(&s, &png), key_of(&guided, &png));
    s = guided, s.cfg_normalization = 0.5F;
    assert_string_not_equal(key_of(&s, &png), key_of(&guided, &png));
    s = guided, s.guidance_scale = 2.0000002F;
    assert_string_not_equal(key_of(&s, &png), key_of(&guided, &png));
    OTHER(&plain, (&(job_output){.format = ZIMAGE_FORMAT_WEBP, .has_recipe = 1}));
    OTHER(&plain, (&(job_output){.format = ZIMAGE_FORMAT_JPEG, .has_recipe = 1, .quality = 95}));
    OTHER(&plain, (&(job_output){.format = ZIMAGE_FORMAT_PNG}));
    OTHER(&plain, (&(job_output){.format = ZIMAGE_FORMAT_PNG, .has_recipe = 1, .compute = ZIMAGE_COMPUTE_F32}));
    OTHER(&plain, (&(job_output){.has_recipe = 1, .dequantize = ZIMAGE_DEQUANTIZE_BF16}));
}

static zimage_image *image_of(uint8_t red, uint8_t alpha)
{
    uint8_t pixels[32 * 32 * 4];
    zimage_image *image = NULL;
    memset(pixels, 255, sizeof pixels);
    pixels[0] = red;
    pixels[4 * 32 * 32 - 1] = alpha; /* of a white pixel: over white it stays white */
    assert_int_equal(zimage_image_from_pixels(pixels, 32, 32, 128, 4, &image, &error), ZIMAGE_OK);
    return image;
}

/* A pixel of an image, and the alpha of a mask whose colours are the same. */
static void images_count(void **state)
{
    zimage_image *first = image_of(255, 255), *same = image_of(255, 255), *pixel = image_of(254, 255);
    zimage_image *cut = image_of(255, 0);
    assert_null(zimage_image_alpha(first));
    assert_int_equal(zimage_image_alpha(cut)[32 * 32 - 1], 0);
    const zimage_image *const list[] = {first, same, pixel, cut};
    zimage_request r = plain, s = plain;
    r.images = list, r.image_count = 1;
    s.images = list + 1, s.image_count = 1;
    OTHER(&r, &png);
    assert_string_equal(key_of(&s, &png), key_of(&r, &png));
    s.width = s.height = 32; /* the image's */
    s.strength = 0.6;        /* the model's */
    assert_string_equal(key_of(&s, &png), key_of(&r, &png));
    s.strength = 0.7;
    assert_string_not_equal(key_of(&s, &png), key_of(&r, &png));
    s = r, s.images = list + 2;
    assert_string_not_equal(key_of(&s, &png), key_of(&r, &png));
    s = r, s.mask = first;
    assert_string_not_equal(key_of(&s, &png), key_of(&r, &png));
    zimage_request t = s;
    t.composite = 1;
    assert_string_not_equal(key_of(&s, &png), key_of(&t, &png));
    t = s, t.mask = cut;
    assert_string_not_equal(key_of(&s, &png), key_of(&t, &png));
    for (int i = 0; i < 4; i++)
        zimage_image_free((zimage_image *)list[i]);
}

static void models_count(void **state)
{
    zimage_model *other = NULL;
    char key[JOB_KEY];
    if (zimage_model_open(KLEIN, NULL, &other, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(job_key(other, &plain, &png, key, &error), ZIMAGE_OK);
    assert_string_not_equal(key, key_of(&plain, &png));
    zimage_model_close(other);
}

static void shards_are_the_number_modulo_their_count(void **state)
{
    char key[JOB_KEY];
    memset(key, '0', sizeof key - 1);
    key[JOB_KEY - 1] = 0;
    assert_int_equal(job_key_shard(key, 64), 0);
    strcpy(key + 60, "ff3f");
    assert_int_equal(job_key_shard(key, 64), 0xff3f % 64);
    assert_int_equal(job_key_shard(key, 1000), 0xff3f % 1000);
    memset(key, 'f', sizeof key - 1); /* 2^256 - 1; modulo 127 2^7 is 1, so 2^256 is 2^4 */
    assert_int_equal(job_key_shard(key, 127), 15);
    assert_int_equal(job_key_shard(key, 1), 0);
    char name[JOB_KEY_FILE];
    strcpy(key, "0123456789abcdef");
    job_key_file(key, ZIMAGE_FORMAT_PNG, name);
    assert_string_equal(name, "01/23/0123456789abcdef.png");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_is_canonical), cmocka_unit_test(defaults_change_nothing),
        cmocka_unit_test(every_value_counts),    cmocka_unit_test(images_count),
        cmocka_unit_test(models_count),          cmocka_unit_test(shards_are_the_number_modulo_their_count),
    };
    return cmocka_run_group_tests(tests, open_tiny, close_tiny);
}
