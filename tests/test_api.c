/* What the public header promises: names, devices, requests, plans, images, component paths, files, closing, memory. */
#include <ctype.h>
#include <limits.h>
#include <pthread.h>

#include "base/system.h"
#include "program.h"
#include "session.h"

#define TINY   ZIMAGE_TEST_DATA "/tiny"
#define EMOJI  ZIMAGE_TEST_DATA "/../../models/emoji"
#define HEADER ZIMAGE_TEST_DATA "/../../include/zimage.h"

#define SIDE  32 /* pixels of a test's image */
#define BYTES (SIDE * SIDE * 3)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_OURS 0 /* a sanitizer's shadow counts, too */
#else
#define MEMORY_IS_OURS 1
#endif

static zimage_error error = ZIMAGE_ERROR_INIT;

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != ZIMAGE_OK)                                                                                       \
            fail_msg("%s: %s", #call, error.message);                                                                  \
    } while (0)

/* The call fails with that status, and the message names the word. */
#define REFUSED(call, expected, word)                                                                                  \
    do {                                                                                                               \
        error.message[0] = 0;                                                                                          \
        assert_int_equal(call, expected);                                                                              \
        assert_int_equal(error.status, expected);                                                                      \
        if (!strstr(error.message, word))                                                                              \
            fail_msg("\"%s\" does not name %s", error.message, word);                                                  \
    } while (0)

static zimage_request small_request(void)
{
    return (zimage_request){
        .struct_size = sizeof(zimage_request), .prompt = "a red apple", .width = SIDE, .height = SIDE, .steps = 1};
}

static zimage_model *open_model(const char *folder, const zimage_model_params *params)
{
    zimage_model *model = NULL;
    OK(zimage_model_open(folder, params, &model, &error));
    return model;
}

static zimage_session *open_with(zimage_model *model, const zimage_session_params *params)
{
    zimage_session *session = NULL;
    OK(zimage_session_open(model, params, &session, &error));
    return session;
}

static zimage_session *open_session(zimage_model *model, const char *cache_folder)
{
    const zimage_session_params params = {
        .struct_size = sizeof params, .threads = 1, .cpu_mask = "generic", .cache_folder = cache_folder};
    return open_with(model, &params);
}

/* The small request's pixels. */
static void make_pixels(zimage_session *session, uint8_t pixels[BYTES])
{
    zimage_request request = small_request();
    zimage_image *image = NULL;
    OK(zimage_generate(session, &request, &image, &error));
    memcpy(pixels, zimage_image_pixels(image), BYTES);
    zimage_image_free(image);
}

/* The small request's pixels with a model of its own. */
static void pixels_of(const char *folder, const zimage_model_params *params, uint8_t pixels[BYTES])
{
    zimage_model *model = open_model(folder, params);
    zimage_session *session = open_session(model, NULL);
    make_pixels(session, pixels);
    zimage_session_close(session);
    zimage_model_close(model);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

#define ENUM_FUNCTIONS(kind)                                                                                           \
    static const char *kind##_name(int value)                                                                          \
    {                                                                                                                  \
        return zimage_##kind##_name((zimage_##kind)value);                                                             \
    }                                                                                                                  \
    static int kind##_parse(const char *name, int *value)                                                              \
    {                                                                                                                  \
        zimage_##kind parsed = (zimage_##kind) * value;                                                                \
        int found = zimage_##kind##_parse(name, &parsed);                                                              \
        assert_int_equal(zimage_##kind##_parse(name, NULL), found);                                                    \
        *value = (int)parsed;                                                                                          \
        return found;                                                                                                  \
    }

ENUM_FUNCTIONS(compute)
ENUM_FUNCTIONS(dequantize)
ENUM_FUNCTIONS(rng)
ENUM_FUNCTIONS(stage)
ENUM_FUNCTIONS(format)
ENUM_FUNCTIONS(template)

static const char *status_name(int value)
{
    return zimage_status_name((zimage_status)value);
}

/* Every enum of the stable header. parse: NULL where users do not type the values; name: NULL where they see none. */
static const struct {
    const char *type, *unknown;
    const char *(*name)(int value);
    int (*parse)(const char *name, int *value);
} enums[] = {
    {"zimage_compute", "unknown", compute_name, compute_parse},
    {"zimage_dequantize", "unknown", dequantize_name, dequantize_parse},
    {"zimage_rng", "unknown", rng_name, rng_parse},
    {"zimage_stage", "unknown", stage_name, stage_parse},
    {"zimage_format", "unknown", format_name, format_parse},
    {"zimage_template", "unknown", template_name, template_parse},
    {"zimage_status", "unknown status", status_name, NULL},
    {"zimage_log_level", NULL, NULL, NULL},
};

#define ENUMS (sizeof enums / sizeof *enums)

static size_t find_enum(const char *type, size_t length)
{
    for (size_t i = 0; i < ENUMS; i++)
        if (strlen(enums[i].type) == length && !strncmp(type, enums[i].type, length))
            return i;
    fail_msg("%.*s: the test lacks this enum of the header", (int)length, type);
    return 0;
}

/* One value, whose name the header's comment has in quotation marks at [from, end). */
static void check_value(size_t kind, int value, const char *from, const char *end)
{
    char documented[64] = "";
    int parsed = -1;
    const char *name = enums[kind].name(value), *quote = memchr(from, '"', (size_t)(end - from));
    assert_string_not_equal(name, enums[kind].unknown);
    if (!enums[kind].parse)
        return;
    if (!quote || sscanf(quote, "\"%63[^\"]", documented) != 1)
        fail_msg("%s %d: the header's comment has no name", enums[kind].type, value);
    assert_string_equal(name, documented);
    assert_true(enums[kind].parse(name, &parsed));
    assert_int_equal(parsed, value);
}

/* The values of an enum from its '{' on: they count from 0 without gaps. Returns where it ends. */
static const char *check_enum(size_t kind, const char *text)
{
    const char *end = strchr(text, '}'), *at = strstr(text, " ZIMAGE_");
    int count = 0, parsed = 7;
    assert_non_null(end);
    while (enums[kind].name && at && at < end) {
        const char *next = strstr(at + 1, " ZIMAGE_"), *number = strchr(at, '=');
        assert_non_null(number);
        assert_int_equal(atoi(number + 1), count);
        check_value(kind, count++, number, next && next < end ? next : end);
        at = next;
    }
    if (!enums[kind].name)
        return end;
    assert_true(count > 0);
    for (int beyond = 0; beyond < 3; beyond++)
        assert_string_equal(enums[kind].name((const int[]){count, -1, INT_MAX}[beyond]), enums[kind].unknown);
    static const char *const wrong[] = {"unknown", "", "AUTO", "bf16 ", NULL};
    for (size_t i = 0; enums[kind].parse && i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(enums[kind].parse(wrong[i], &parsed));
        assert_int_equal(parsed, 7); /* left alone */
    }
    return end;
}

/* The header itself says which values there are and what they are called. */
static void names_of_every_enum(void **state)
{
    static char header[1 << 17];
    int found = 0;
    read_text(HEADER, header, sizeof header);
    char *experimental = strstr(header, "#ifdef ZIMAGE_EXPERIMENTAL");
    assert_non_null(experimental);
    *experimental = 0;
    for (const char *at = header; (at = strstr(at, "typedef enum ")); found++) {
        at += strlen("typedef enum ");
        size_t kind = find_enum(at, strcspn(at, " "));
        at = check_enum(kind, strchr(at, '{'));
    }
    assert_int_equal(found, ENUMS);
    assert_int_equal(ZIMAGE_STAGE_COUNT, ZIMAGE_STAGE_DECODE + 1);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

/* A device that is usable can be opened by its name; another is refused. */
static void open_by_name(zimage_model *model, const zimage_device_info *info)
{
    const zimage_session_params params = {.struct_size = sizeof params, .device = info->device};
    zimage_session *session = NULL;
    zimage_status status = zimage_session_open(model, &params, &session, &error);
    if (info->usable && status != ZIMAGE_OK)
        fail_msg("%s: %s", info->device, error.message);
    assert_int_equal(info->usable, status == ZIMAGE_OK);
    assert_int_equal(info->usable, session != NULL);
    zimage_session_close(session);
}

static void devices_are_listed(void **state)
{
    zimage_device_list *list = NULL;
    zimage_device_info info = {.struct_size = sizeof info};
    zimage_model *model = open_model(TINY, NULL);
    OK(zimage_devices(NULL, &list, &error));
    for (size_t i = 0; i < zimage_device_count(list); i++) {
        OK(zimage_device_get(list, i, &info, &error));
        assert_int_equal(info.struct_size, sizeof info);
        assert_int_equal(i == 0, !strcmp(info.device, "cpu"));
        assert_int_equal(info.usable, info.fault[0] == 0);
        assert_int_equal(i == 0, info.threads > 0);
        assert_true(i > 0 || (info.name[0] && info.memory_bytes == 0 && !info.capability[0]));
        assert_true(i == 0 || !info.cpu_features[0]);
        open_by_name(model, &info);
    }
    assert_true(zimage_device_count(list) >= 1);
    REFUSED(zimage_device_get(list, zimage_device_count(list), &info, &error), ZIMAGE_ERROR_ARGUMENT, "index");
    REFUSED(zimage_device_get(list, SIZE_MAX, &info, &error), ZIMAGE_ERROR_ARGUMENT, "index");
    REFUSED(zimage_device_get(list, 0, NULL, &error), ZIMAGE_ERROR_ARGUMENT, "zimage_device_info");
    zimage_device_list_free(list);
    zimage_model_close(model);
}

/* Under the mask "generic" only what every CPU can run is usable, and nothing else is measured. */
static void kernels_follow_the_mask(void **state)
{
    zimage_device_list *list = NULL;
    zimage_device_info device = {.struct_size = sizeof device};
    zimage_kernel_info kernel = {.struct_size = sizeof kernel};
    int usable[2] = {0, 0};
    for (int masked = 0; masked < 2; masked++) {
        OK(zimage_devices(masked ? "generic" : NULL, &list, &error));
        for (size_t i = 0; i < zimage_kernel_count(list); i++) {
            OK(zimage_kernel_get(list, i, &kernel, &error));
            assert_true(kernel.name[0]);
            assert_int_equal(kernel.usable, kernel.gops > 0);
            usable[masked] += kernel.usable;
        }
        OK(zimage_device_get(list, 0, &device, &error));
        assert_true(!masked || !device.cpu_features[0]);
        REFUSED(zimage_kernel_get(list, zimage_kernel_count(list), &kernel, &error), ZIMAGE_ERROR_ARGUMENT, "index");
        zimage_device_list_free(list);
    }
    assert_true(usable[1] > 0 && usable[1] <= usable[0]);
    REFUSED(zimage_devices("avx3", &list, &error), ZIMAGE_ERROR_ARGUMENT, "avx3");
    assert_null(list);
    REFUSED(zimage_devices(NULL, NULL, &error), ZIMAGE_ERROR_ARGUMENT, "list");
    assert_int_equal(zimage_device_count(NULL), 0);
    assert_int_equal(zimage_kernel_count(NULL), 0);
    zimage_device_list_free(NULL);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static float numbers[32 * 32]; /* embeddings or latents of wrong sizes */

/* Requests that differ from the small one by what no model can do, and the word that the message names. */
#define REQUEST(...)                                                                                                   \
    {                                                                                                                  \
        .struct_size = sizeof(zimage_request), .prompt = "x", .steps = 1, __VA_ARGS__                                  \
    }
static const struct {
    const char *word;
    zimage_request request;
    zimage_status status;
} bad[] = {
    {"width", REQUEST(.width = 8, .height = SIDE), ZIMAGE_ERROR_ARGUMENT},
    {"width", REQUEST(.width = -SIDE, .height = SIDE), ZIMAGE_ERROR_ARGUMENT},
    {"height", REQUEST(.width = SIDE, .height = SIDE + 1), ZIMAGE_ERROR_ARGUMENT},
    {"height", REQUEST(.width = SIDE, .height = INT32_MAX), ZIMAGE_ERROR_ARGUMENT},
    {"steps", {.struct_size = sizeof(zimage_request), .prompt = "x", .steps = -1}, ZIMAGE_ERROR_ARGUMENT},
    {"steps", {.struct_size = sizeof(zimage_request), .prompt = "x", .steps = 1001}, ZIMAGE_ERROR_ARGUMENT},
    {"rng", REQUEST(.rng = (zimage_rng)4), ZIMAGE_ERROR_ARGUMENT},
    {"guidance_scale", REQUEST(.guidance_scale = -1), ZIMAGE_ERROR_ARGUMENT},
    {"guidance_scale", REQUEST(.guidance_scale = NAN), ZIMAGE_ERROR_ARGUMENT},
    {"cfg_normalization", REQUEST(.cfg_normalization = -1), ZIMAGE_ERROR_ARGUMENT},
    {"cfg_truncation", REQUEST(.cfg_truncation = -1), ZIMAGE_ERROR_ARGUMENT},
    {"latents_count", REQUEST(.latents = numbers, .latents_count = 3), ZIMAGE_ERROR_ARGUMENT},
    {"prompt_embeds", REQUEST(.prompt_embeds = numbers, .prompt_embeds_dim = 32), ZIMAGE_ERROR_ARGUMENT},
    {"prompt_embeds_dim", REQUEST(.prompt_embeds = numbers, .prompt_tokens = 1, .prompt_embeds_dim = 31),
     ZIMAGE_ERROR_ARGUMENT},
    {"prompt", {.struct_size = sizeof(zimage_request), .steps = 1}, ZIMAGE_ERROR_ARGUMENT},
    {"zimage_request.struct_size", {.struct_size = 8, .prompt = "x"}, ZIMAGE_ERROR_ARGUMENT},
    {"memory_limit", REQUEST(.memory_limit = 1), ZIMAGE_ERROR_MEMORY},
};

static int progress_calls;

static int count_progress(const zimage_progress *progress, void *user)
{
    progress_calls++;
    return 0;
}

/* A check, a plan and an image are refused with the same words, before anything is reported. */
static void refuse_everywhere(zimage_session *session, const zimage_request *request, zimage_status status,
                              const char *word)
{
    zimage_request copy = *request;
    zimage_image *image = NULL;
    zimage_plan *plan = NULL;
    char message[sizeof error.message];
    copy.progress = count_progress;
    progress_calls = 0;
    REFUSED(zimage_request_check(session, &copy, &error), status, word);
    memcpy(message, error.message, sizeof message);
    REFUSED(zimage_plan_make(session, &copy, &plan, &error), status, word);
    assert_string_equal(error.message, message);
    REFUSED(zimage_generate(session, &copy, &image, &error), status, word);
    assert_string_equal(error.message, message);
    assert_true(!image && !plan && progress_calls == 0);
}

static void check_refuses_what_generate_refuses(void **state)
{
    zimage_model *model = open_model(TINY, NULL);
    zimage_session *session = open_session(model, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse_everywhere(session, &bad[i].request, bad[i].status, bad[i].word);
    REFUSED(zimage_request_check(session, NULL, &error), ZIMAGE_ERROR_ARGUMENT, "request");
    REFUSED(zimage_request_check(NULL, &bad[0].request, &error), ZIMAGE_ERROR_ARGUMENT, "session");
    zimage_session_close(session);
    zimage_model_close(model);
}

/* A model without a text encoder refuses prompts. */
static void check_knows_what_the_model_lacks(void **state)
{
    const char *folder = copy_model("no-encoder");
    run_shell("rm -r '%s/text_encoder'", folder);
    zimage_model *model = open_model(folder, NULL);
    zimage_session *session = open_session(model, NULL);
    const zimage_request request = small_request();
    refuse_everywhere(session, &request, ZIMAGE_ERROR_MODEL, "text_encoder");
    zimage_session_close(session);
    zimage_model_close(model);
}

/* Weights that hold NaN are found by computing with them: generating fails, a check and a plan do not. */
static void check_computes_nothing(void **state)
{
    const char *folder = copy_model("spoiled");
    const char *cache = in_folder("spoiled-cache");
    for (size_t i = 0; i < SPOILED; i++)
        spoil_weight(folder, spoiled[i].file, spoiled[i].tensor, spoiled[i].value);
    zimage_model *model = open_model(folder, NULL);
    zimage_session *session = open_session(model, cache);
    zimage_request request = small_request();
    zimage_image *image = NULL;
    request.progress = count_progress;
    progress_calls = 0;
    OK(zimage_request_check(session, &request, &error));
    assert_int_equal(progress_calls, 0);
    assert_int_equal(access(cache, F_OK), -1); /* nothing was measured */
    REFUSED(zimage_generate(session, &request, &image, &error), ZIMAGE_ERROR_NOT_FINITE, "layers.1");
    assert_null(image);
    zimage_session_close(session);
    zimage_model_close(model);
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

static void check_stages(const zimage_plan *plan, const zimage_plan_info *info)
{
    zimage_stage_info stage = {.struct_size = sizeof stage};
    double seconds = 0;
    uint64_t peak = 0;
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        OK(zimage_plan_get_stage(plan, (zimage_stage)i, &stage, &error));
        assert_int_equal(stage.stage, i);
        assert_true(stage.flops > 0 && stage.seconds > 0 && stage.weight_bytes > 0);
        assert_true(stage.activation_bytes > 0 && stage.peak_bytes > stage.activation_bytes);
        seconds += stage.seconds;
        peak = stage.peak_bytes > peak ? stage.peak_bytes : peak;
    }
    assert_true(fabs(seconds - info->seconds) <= 1e-9 * seconds);
    assert_int_equal(peak, info->peak_bytes);
    REFUSED(zimage_plan_get_stage(plan, (zimage_stage)ZIMAGE_STAGE_COUNT, &stage, &error), ZIMAGE_ERROR_ARGUMENT,
            "stage");
    REFUSED(zimage_plan_get_stage(plan, (zimage_stage)-1, &stage, &error), ZIMAGE_ERROR_ARGUMENT, "stage");
    REFUSED(zimage_plan_get_stage(plan, ZIMAGE_STAGE_TEXT, NULL, &error), ZIMAGE_ERROR_ARGUMENT, "zimage_stage_info");
}

static void plans_are_read(void **state)
{
    zimage_model *model = open_model(TINY, NULL);
    zimage_session *session = open_session(model, NULL);
    zimage_request request = small_request();
    zimage_plan *plan = NULL;
    zimage_plan_info info = {.struct_size = sizeof info};
    zimage_memory_info memory = {.struct_size = sizeof memory, .total_bytes = 1};
    const zimage_memory_info none = {.struct_size = sizeof none};
    OK(zimage_plan_make(session, &request, &plan, &error));
    OK(zimage_plan_get_info(plan, &info, &error));
    assert_true(info.seconds > 0 && info.least_bytes > 0);
    check_stages(plan, &info);
    OK(zimage_plan_get_memory(plan, &memory, &error));
    /* The CPU has no memory of its own. The bytes between struct_size and the first number are padding. */
    assert_memory_equal(&memory.limit_bytes, &none.limit_bytes,
                        sizeof none - offsetof(zimage_memory_info, limit_bytes));
    zimage_plan_free(plan);

    request.memory_limit = info.least_bytes;
    OK(zimage_request_check(session, &request, &error));
    request.memory_limit = info.least_bytes / 2;
    refuse_everywhere(session, &request, ZIMAGE_ERROR_MEMORY, "memory_limit");
    REFUSED(zimage_plan_get_info(NULL, &info, &error), ZIMAGE_ERROR_ARGUMENT, "plan");
    REFUSED(zimage_plan_get_memory(NULL, &memory, &error), ZIMAGE_ERROR_ARGUMENT, "plan");
    zimage_plan_free(NULL);
    zimage_session_close(session);
    zimage_model_close(model);
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

static void images_say_how_they_were_made(void **state)
{
    zimage_model *model = open_model(TINY, NULL);
    zimage_session *session = open_session(model, NULL);
    zimage_request request = small_request();
    zimage_model_info facts = {.struct_size = sizeof facts};
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_memory_info memory = {.struct_size = sizeof memory, .total_bytes = 1};
    zimage_image *image = NULL;
    int64_t shape[3];
    double seconds = 0;
    OK(zimage_model_get_info(model, &facts, &error));
    OK(zimage_generate(session, &request, &image, &error));
    OK(zimage_image_get_info(image, &info, &error));
    assert_true(info.prompt_tokens > 0 && info.prompt_tokens <= facts.max_prompt_tokens);
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        assert_true(zimage_image_seconds(image, (zimage_stage)i) > 0);
        seconds += zimage_image_seconds(image, (zimage_stage)i);
    }
    assert_true(seconds <= info.seconds);
    assert_true(zimage_image_seconds(image, (zimage_stage)ZIMAGE_STAGE_COUNT) == 0);
    OK(zimage_image_get_memory(image, &memory, &error));
    assert_int_equal(memory.total_bytes, 0);
    assert_non_null(zimage_image_latents(image, shape));
    assert_int_equal(shape[0], facts.latent_channels);
    assert_int_equal(shape[1] * facts.vae_scale_factor, SIDE);
    assert_int_equal(shape[2] * facts.vae_scale_factor, SIDE);
    assert_true(zimage_image_width(image) == SIDE && zimage_image_height(image) == SIDE);
    zimage_image_free(image);
    zimage_session_close(session);
    zimage_model_close(model);
}

/* An image that was not generated has zeros and no latents. */
static void images_of_pixels_say_nothing(void **state)
{
    static const uint8_t pixels[BYTES];
    zimage_image_info info = {.struct_size = sizeof info, .prompt_tokens = 1, .seconds = 1};
    zimage_image *image = NULL;
    int64_t shape[3];
    OK(zimage_image_from_pixels(pixels, SIDE, SIDE, SIDE * 3, 3, &image, &error));
    OK(zimage_image_get_info(image, &info, &error));
    assert_true(info.prompt_tokens == 0 && info.seconds == 0);
    assert_true(zimage_image_seconds(image, ZIMAGE_STAGE_DECODE) == 0);
    assert_null(zimage_image_latents(image, shape));
    REFUSED(zimage_image_get_info(NULL, &info, &error), ZIMAGE_ERROR_ARGUMENT, "image");
    zimage_image_free(image);
}

/* ---- component paths --------------------------------------------------------------------------------------------- */

static const char *const components[] = {"transformer", "text_encoder", "vae", "tokenizer", "scheduler"};

/* Sets the path of a component, by its place in the list above. */
static void set_component(zimage_model_params *params, size_t component, const char *path)
{
    const char **fields[] = {&params->transformer, &params->text_encoder, &params->vae, &params->tokenizer,
                             &params->scheduler};
    *fields[component] = path;
}

/* Each part of a model may lie in another folder. The model's own is not read then: here it is broken. */
static void parts_of_other_folders(void **state)
{
    uint8_t expected[BYTES], pixels[BYTES];
    pixels_of(TINY, NULL, expected);
    for (size_t i = 0; i < 5; i++) {
        char elsewhere[PATH_MAX], broken[PATH_MAX];
        zimage_model_params params = {.struct_size = sizeof params};
        zimage_model *model = NULL;
        snprintf(broken, sizeof broken, "%s", copy_model("parts"));
        snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere-%s", test_folder, components[i]);
        run_shell("mv '%s/%s' '%s' && mkdir '%s/%s'", broken, components[i], elsewhere, broken, components[i]);
        assert_int_not_equal(zimage_model_open(broken, NULL, &model, &error), ZIMAGE_OK);
        set_component(&params, i, elsewhere);
        pixels_of(broken, &params, pixels);
        assert_memory_equal(pixels, expected, BYTES);
        set_component(&params, i, "/no/such/folder");
        REFUSED(zimage_model_open(TINY, &params, &model, &error), ZIMAGE_ERROR_FILE, "/no/such/folder");
        assert_null(model);
    }
}

/* All parts of another folder at once: only model_index.json is read from the model's. */
static void all_parts_of_another_folder(void **state)
{
    uint8_t expected[BYTES], pixels[BYTES];
    const zimage_model_params params = {.struct_size = sizeof params,
                                        .transformer = TINY "/transformer",
                                        .text_encoder = TINY "/text_encoder",
                                        .vae = TINY "/vae",
                                        .tokenizer = TINY "/tokenizer",
                                        .scheduler = TINY "/scheduler"};
    const char *folder = in_folder("index-only");
    run_shell("mkdir '%s' && cp '%s/model_index.json' '%s'", folder, TINY, folder);
    pixels_of(TINY, NULL, expected);
    pixels_of(folder, &params, pixels);
    assert_memory_equal(pixels, expected, BYTES);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* Makes a plan and an image; returns the number of files below the folder. */
static int files_after_work(const char *cache_folder, const char *folder)
{
    char command[PATH_MAX], count[32];
    uint8_t pixels[BYTES];
    zimage_device_list *list = NULL;
    zimage_model *model = open_model(TINY, NULL);
    zimage_session *session = open_session(model, cache_folder);
    zimage_request request = small_request();
    zimage_plan *plan = NULL;
    OK(zimage_devices("generic", &list, &error));
    OK(zimage_request_check(session, &request, &error));
    OK(zimage_plan_make(session, &request, &plan, &error));
    make_pixels(session, pixels);
    zimage_device_list_free(list);
    zimage_plan_free(plan);
    zimage_session_close(session);
    zimage_model_close(model);
    snprintf(command, sizeof command, "find '%s' -mindepth 1 | wc -l", folder);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(count, sizeof count, pipe));
    assert_int_equal(pclose(pipe), 0);
    return atoi(count);
}

/* Folders that a library might choose by itself. */
static const char *const places[] = {"HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR"};

#define PLACES (sizeof places / sizeof *places)

static void nothing_is_written_but_to_the_cache_folder(void **state)
{
    char home[PATH_MAX], cache[PATH_MAX], before[PATH_MAX], *saved[PLACES];
    snprintf(home, sizeof home, "%s", in_folder("home"));
    snprintf(cache, sizeof cache, "%s", in_folder("cache"));
    run_shell("mkdir '%s'", home);
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(home), 0);
    for (size_t i = 0; i < PLACES; i++) {
        saved[i] = getenv(places[i]) ? strdup(getenv(places[i])) : NULL;
        setenv(places[i], home, 1);
    }
    int without = files_after_work(NULL, home), kept = files_after_work(cache, cache), with = count_files(home);
    for (size_t i = 0; i < PLACES; i++) {
        if (saved[i])
            setenv(places[i], saved[i], 1);
        else
            unsetenv(places[i]);
        free(saved[i]);
    }
    assert_int_equal(chdir(before), 0);
    assert_int_equal(without, 0);
    assert_int_equal(kept, 1); /* machine.json */
    assert_int_equal(with, 0);
}

/* What the cache folder keeps is used by the next session: its figures, not a new measurement, make the prediction. */
static void cache_folder_is_used(void **state)
{
    char folder[PATH_MAX], path[PATH_MAX + 16];
    double seconds[3];
    snprintf(folder, sizeof folder, "%s", in_folder("used"));
    snprintf(path, sizeof path, "%s/machine.json", folder);
    zimage_model *model = open_model(TINY, NULL);
    for (int i = 0; i < 3; i++) {
        zimage_session *session = open_session(model, folder);
        zimage_request request = small_request();
        zimage_plan *plan = NULL;
        zimage_plan_info info = {.struct_size = sizeof info};
        OK(zimage_plan_make(session, &request, &plan, &error));
        OK(zimage_plan_get_info(plan, &info, &error));
        seconds[i] = info.seconds;
        zimage_plan_free(plan);
        zimage_session_close(session);
        if (i == 1) /* a machine a thousand million times as slow */
            run_shell("sed -i -E 's/\"(linear|attention|conv)\": [^,]*/\"\\1\": 1.0/' '%s'", path);
    }
    assert_true(seconds[0] == seconds[1]);
    assert_true(seconds[2] > 1000 * seconds[0]);
    zimage_model_close(model);
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

/* A model and two sessions, closed in each of the six orders. What is still open works. */
static void every_order_of_closing(void **state)
{
    static const char orders[6][4] = {"m12", "m21", "1m2", "2m1", "12m", "21m"};
    uint8_t expected[BYTES], pixels[BYTES];
    pixels_of(TINY, NULL, expected);
    for (int i = 0; i < 6; i++) {
        zimage_model *model = open_model(TINY, NULL);
        zimage_session *sessions[2] = {open_session(model, NULL), open_session(model, NULL)};
        for (int k = 0; k < 3; k++) {
            if (orders[i][k] == 'm') {
                zimage_model_close(model);
            } else {
                zimage_session_close(sessions[orders[i][k] - '1']);
                sessions[orders[i][k] - '1'] = NULL;
            }
            for (int s = 0; s < 2; s++) {
                if (!sessions[s])
                    continue;
                make_pixels(sessions[s], pixels);
                assert_memory_equal(pixels, expected, BYTES);
            }
        }
    }
    zimage_model_close(NULL);
    zimage_session_close(NULL);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

typedef struct worker {
    zimage_session *session;
    zimage_status status;
} worker;

static void *make_in_thread(void *argument)
{
    worker *w = argument;
    zimage_request request = small_request();
    zimage_image *image = NULL;
    w->status = zimage_generate(w->session, &request, &image, NULL);
    zimage_image_free(image);
    return NULL;
}

/* The weights' bytes that a job reads: of each network once. The stages of the transformer read it in two parts. */
static uint64_t weight_bytes(zimage_session *session)
{
    zimage_request request = small_request();
    zimage_plan *plan = NULL;
    zimage_stage_info stage = {.struct_size = sizeof stage};
    uint64_t bytes = 0;
    OK(zimage_plan_make(session, &request, &plan, &error));
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        OK(zimage_plan_get_stage(plan, (zimage_stage)i, &stage, &error));
        bytes += stage.weight_bytes;
    }
    zimage_plan_free(plan);
    return bytes;
}

/* Two threads, each with a session, make images at the same time. All sessions stay open while memory is measured. */
static void measure_sessions(const char *what, const zimage_session_params *params)
{
    zimage_model *model = open_model(EMOJI, NULL);
    worker workers[3] = {{.session = open_with(model, params)}};
    pthread_t threads[2];
    double mib = 1048576, weights = (double)weight_bytes(workers[0].session) / mib;
    double before = (double)zi_resident_bytes() / mib;
    make_in_thread(&workers[0]);
    double one = (double)zi_resident_bytes() / mib;
    for (int i = 0; i < 2; i++) {
        workers[1 + i].session = open_with(model, params);
        assert_int_equal(pthread_create(&threads[i], NULL, make_in_thread, &workers[1 + i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    double three = (double)zi_resident_bytes() / mib, added = (three - one) / 2;
    printf("%s: weights %.1f MiB, first session %.1f MiB, each further one %.1f MiB (%.1f %%)\n", what, weights,
           one - before, added, 100 * added / weights);
    assert_true(weights > 32);
    assert_true(one - before > 0.9 * weights); /* so a second copy would show */
    assert_true(added < 0.1 * weights);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(workers[i].status, ZIMAGE_OK);
        zimage_session_close(workers[i].session);
    }
    zimage_model_close(model);
}

static void weights_are_in_memory_once(void **state)
{
    zimage_session_params params = {.struct_size = sizeof params, .threads = 1, .cpu_mask = "generic"};
    if (!MEMORY_IS_OURS)
        skip();
    measure_sessions("float32", &params);
    params.cpu_mask = NULL;
    params.compute = ZIMAGE_COMPUTE_BF16;
    measure_sessions("bf16", &params);
    params.compute = ZIMAGE_COMPUTE_INT8;
    measure_sessions("int8", &params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_every_enum),
        cmocka_unit_test(devices_are_listed),
        cmocka_unit_test(kernels_follow_the_mask),
        cmocka_unit_test(check_refuses_what_generate_refuses),
        cmocka_unit_test(check_knows_what_the_model_lacks),
        cmocka_unit_test(check_computes_nothing),
        cmocka_unit_test(plans_are_read),
        cmocka_unit_test(images_say_how_they_were_made),
        cmocka_unit_test(images_of_pixels_say_nothing),
        cmocka_unit_test(parts_of_other_folders),
        cmocka_unit_test(all_parts_of_another_folder),
        cmocka_unit_test(nothing_is_written_but_to_the_cache_folder),
        cmocka_unit_test(cache_folder_is_used),
        cmocka_unit_test(every_order_of_closing),
        cmocka_unit_test(weights_are_in_memory_once),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
