/* The public functions one by one: names of enums, devices, models and their parts, inspections, plans, caches. */
#define ZIMAGE_EXPERIMENTAL
#include <pthread.h>
#include <sys/wait.h>

#include "files.h"
#include "session.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

/* ---- names of enums ---------------------------------------------------------------------------------------------- */

/*
 * Each value 0 .. count - 1 has a name of its own, from which it is parsed; nothing else has one, and nothing else is
 * parsed.
 */
#define CHECK_NAMES(kind, ...)                                                                                         \
    do {                                                                                                               \
        static const char *const names[] = {__VA_ARGS__};                                                              \
        const int count = (int)(sizeof names / sizeof *names);                                                         \
        zimage_##kind value = (zimage_##kind)77;                                                                       \
        for (int i = 0; i < count; i++) {                                                                              \
            assert_string_equal(zimage_##kind##_name((zimage_##kind)i), names[i]);                                     \
            assert_int_equal(zimage_##kind##_parse(names[i], &value), 1);                                              \
            assert_int_equal(value, i);                                                                                \
        }                                                                                                              \
        const int wrong[] = {count, count + 1, -1, INT_MAX, INT_MIN};                                                  \
        for (int i = 0; i < 5; i++)                                                                                    \
            assert_string_equal(zimage_##kind##_name((zimage_##kind)wrong[i]), "unknown");                             \
        const char *const others[] = {"", "unknown", "NONE", " none", "no", NULL};                                     \
        for (int i = 0; i < 6; i++) {                                                                                  \
            value = (zimage_##kind)77;                                                                                 \
            assert_int_equal(zimage_##kind##_parse(others[i], &value), 0);                                             \
            assert_int_equal(value, 77);                                                                               \
        }                                                                                                              \
    } while (0)

static void enums_have_names(void **state)
{
    CHECK_NAMES(compute, "auto", "f32", "bf16", "int8", "fp8");
    CHECK_NAMES(dequantize, "none", "bf16", "f32");
    CHECK_NAMES(rng, "torch-cpu", "torch-cuda", "mlx", "numpy");
    CHECK_NAMES(stage, "text_encoder", "context", "denoise", "vae_decode", "vae_encode");
    CHECK_NAMES(format, "png", "jpeg", "webp");
    CHECK_NAMES(template, "none", "z-image", "klein");
    assert_int_equal(ZIMAGE_STAGE_COUNT, 5);
    for (int i = 0; i <= ZIMAGE_ERROR_INTERNAL; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(zimage_status_name((zimage_status)i), zimage_status_name((zimage_status)k));
    assert_string_equal(zimage_status_name((zimage_status)99), "unknown status");
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", ZIMAGE_VERSION_MAJOR, ZIMAGE_VERSION_MINOR, ZIMAGE_VERSION_PATCH);
    assert_string_equal(zimage_version(), version);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static zimage_device_list *list_devices(const char *mask)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_device_list *list = NULL;
    if (zimage_devices(mask, &list, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return list;
}

static zimage_device_info device_at(const zimage_device_list *list, size_t index)
{
    zimage_device_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_device_get(list, index, &info, NULL), ZIMAGE_OK);
    return info;
}

static zimage_kernel_info kernel_at(const zimage_device_list *list, size_t index)
{
    zimage_kernel_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_kernel_get(list, index, &info, NULL), ZIMAGE_OK);
    return info;
}

static int is_mlx(const zimage_device_info *info)
{
    return strcmp(info->device, "mlx") == 0;
}

/* The CPU, then whatever GPUs there are; where a backend has none, an entry that says why. MLX may have a CPU only. */
static void devices_are_listed(void **state)
{
    zimage_device_list *list = list_devices(NULL);
    size_t count = zimage_device_count(list);
    assert_true(count >= 2);
    zimage_device_info cpu = device_at(list, 0);
    assert_string_equal(cpu.device, "cpu");
    assert_true(cpu.usable && cpu.threads > 0 && cpu.name[0] && !cpu.fault[0] && !cpu.capability[0]);
    assert_true(cpu.memory_bytes == 0);
    for (size_t i = 1; i < count; i++) {
        zimage_device_info gpu = device_at(list, i);
        assert_true(is_mlx(&gpu) || strncmp(gpu.device, "cuda", 4) == 0);
        int named = gpu.name[0] && (gpu.memory_bytes > 0 || is_mlx(&gpu));
        assert_true(gpu.usable ? named && !gpu.fault[0] : gpu.fault[0] != 0);
        assert_int_equal(gpu.threads, 0);
    }
    zimage_device_list_free(list);
    zimage_device_list_free(NULL);
    assert_int_equal(zimage_device_count(NULL), 0);
    assert_int_equal(zimage_kernel_count(NULL), 0);
}

/* A mask takes features away, and with them kernels. */
static void kernels_follow_the_mask(void **state)
{
    zimage_device_list *all = list_devices(NULL), *generic = list_devices("generic");
    assert_string_equal(device_at(generic, 0).cpu_features, "");
    assert_true(zimage_kernel_count(all) > 1);
    assert_int_equal(zimage_kernel_count(all), zimage_kernel_count(generic));
    for (size_t i = 0; i < zimage_kernel_count(all); i++) {
        zimage_kernel_info one = kernel_at(all, i), other = kernel_at(generic, i);
        assert_string_equal(one.name, other.name);
        assert_true(one.usable >= other.usable);
        assert_true(one.usable == (one.gops > 0) && other.usable == (other.gops > 0));
        assert_int_equal(other.usable, strstr(other.name, "generic") != NULL);
    }
    zimage_device_list *same = list_devices(device_at(all, 0).cpu_features[0] ? device_at(all, 0).cpu_features : NULL);
    for (size_t i = 0; i < zimage_kernel_count(all); i++)
        assert_int_equal(kernel_at(same, i).usable, kernel_at(all, i).usable);
    zimage_device_list_free(same);
    zimage_device_list_free(generic);
    zimage_device_list_free(all);
}

static void wrong_device_calls(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_device_list *list = (zimage_device_list *)&error;
    zimage_status status = zimage_devices("avx2,sse9", &list, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "cpu_mask", "sse9", NULL);
    assert_null(list);
    assert_int_equal(zimage_devices(NULL, NULL, &error), ZIMAGE_ERROR_ARGUMENT);
    list = list_devices("generic");
    zimage_device_info device = {.struct_size = sizeof device};
    zimage_kernel_info kernel = {.struct_size = sizeof kernel};
    status = zimage_device_get(list, zimage_device_count(list), &device, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "index", NULL, NULL);
    status = zimage_kernel_get(list, SIZE_MAX, &kernel, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "index", NULL, NULL);
    assert_int_equal(zimage_device_get(list, 0, NULL, &error), ZIMAGE_ERROR_ARGUMENT);
    zimage_device_list_free(list);
}

/* ---- models and their parts -------------------------------------------------------------------------------------- */

static zimage_request small_request(void)
{
    return (zimage_request){.struct_size = sizeof(zimage_request),
                            .prompt = "a red apple",
                            .width = 32,
                            .height = 32,
                            .steps = 2,
                            .seed = 1};
}

#define PIXELS (32 * 32 * 3)

/* The image of a folder with some parts from elsewhere; the status of the first call that fails. */
static zimage_status image_of(const char *folder, const zimage_model_params *params, uint8_t *pixels,
                              zimage_error *error)
{
    const zimage_session_params session_params = {
        .struct_size = sizeof session_params, .threads = 1, .compute = ZIMAGE_COMPUTE_F32};
    const zimage_request request = small_request();
    zimage_session *session = NULL;
    zimage_image *image = NULL;
    zimage_status status = session_on(folder, params, &session_params, &session, error);
    if (status == ZIMAGE_OK)
        status = zimage_generate(session, &request, &image, error);
    if (status == ZIMAGE_OK && pixels)
        memcpy(pixels, zimage_image_pixels(image), PIXELS);
    zimage_image_free(image);
    zimage_session_close(session);
    return status;
}

static void model_info(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_model_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_model_open(TINY, NULL, &model, &error), ZIMAGE_OK);
    assert_int_equal(zimage_model_get_info(model, &info, &error), ZIMAGE_OK);
    assert_int_equal(info.has_text_encoder, 1);
    assert_int_equal(info.latent_channels, 4);
    assert_int_equal(info.vae_scale_factor, 8);
    assert_int_equal(info.size_multiple, 16);
    assert_int_equal(info.max_width, 64 * 16);
    assert_int_equal(info.max_height, 64 * 16);
    assert_int_equal(info.prompt_embeds_dim, 32);
    assert_int_equal(info.max_prompt_tokens, 512);
    assert_int_equal(info.default_width, 64);
    assert_int_equal(info.default_height, 64);
    assert_int_equal(info.default_steps, 8);
    assert_int_equal(info.distilled, 1);
    assert_string_equal(info.family, "z-image");
    zimage_model_close(model);
    assert_int_equal(zimage_model_get_info(NULL, &info, &error), ZIMAGE_ERROR_ARGUMENT);
}

/* A folder that holds only model_index.json: every part is somewhere else. */
static void every_part_from_elsewhere(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    uint8_t own[PIXELS], elsewhere[PIXELS];
    assert_int_equal(mkdir(temporary("model"), 0700), 0);
    write_text(temporary("model/model_index.json"), "{\"_class_name\": \"ZImagePipeline\"}");
    const zimage_model_params all = {.struct_size = sizeof all,
                                     .transformer = TINY "/transformer",
                                     .text_encoder = TINY "/text_encoder",
                                     .vae = TINY "/vae",
                                     .tokenizer = TINY "/tokenizer",
                                     .scheduler = TINY "/scheduler"};
    assert_int_equal(image_of(TINY, NULL, own, &error), ZIMAGE_OK);
    if (image_of(temporary("model"), &all, elsewhere, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_memory_equal(own, elsewhere, PIXELS);

    /* Each part is needed, but the text encoder, without which a prompt is refused. */
    for (int part = 0; part < 5; part++) {
        zimage_model_params some = all;
        const char **const fields[5] = {&some.transformer, &some.vae, &some.scheduler, &some.tokenizer,
                                        &some.text_encoder};
        static const char *const words[5] = {"transformer", "vae", "scheduler", "tokenizer", "no text_encoder"};
        *fields[part] = NULL;
        zimage_status status = image_of(temporary("model"), &some, NULL, &error);
        assert_error(&error, status, part < 4 ? ZIMAGE_ERROR_FILE : ZIMAGE_ERROR_MODEL, words[part],
                     part < 4 ? temporary("model") : NULL, NULL);
    }
    unlink(temporary("model/model_index.json"));
    rmdir(temporary("model"));
}

/* The scheduler of the other tiny model takes other steps. */
static void one_part_from_elsewhere(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    uint8_t own[PIXELS], other[PIXELS];
    const zimage_model_params scheduler = {.struct_size = sizeof scheduler,
                                           .scheduler = ZIMAGE_TEST_DATA "/tiny-base/scheduler"};
    assert_int_equal(image_of(TINY, NULL, own, &error), ZIMAGE_OK);
    assert_int_equal(image_of(TINY, &scheduler, other, &error), ZIMAGE_OK);
    assert_memory_not_equal(own, other, PIXELS);

    static const char *const words[5] = {"transformer", "text_encoder", "vae", "tokenizer", "scheduler"};
    for (int part = 0; part < 5; part++) {
        zimage_model_params wrong = {.struct_size = sizeof wrong};
        const char **const fields[5] = {&wrong.transformer, &wrong.text_encoder, &wrong.vae, &wrong.tokenizer,
                                        &wrong.scheduler};
        char folder[64];
        snprintf(folder, sizeof folder, "/nowhere/%s", words[part]);
        *fields[part] = folder;
        zimage_status status = image_of(TINY, &wrong, NULL, &error);
        assert_error(&error, status, ZIMAGE_ERROR_FILE, folder, NULL, NULL);
    }
}

static void wrong_model_calls(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = (zimage_model *)&error;
    zimage_session *session = (zimage_session *)&error;
    zimage_model_params params = {.struct_size = sizeof params, .dequantize = (zimage_dequantize)3};
    zimage_status status = zimage_model_open(TINY, &params, &model, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "dequantize: 3", NULL, NULL);
    assert_null(model);
    assert_int_equal(zimage_model_open(NULL, NULL, &model, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_model_open(TINY, NULL, NULL, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_model_open("/nowhere", NULL, &model, &error), ZIMAGE_ERROR_FILE);
    assert_int_equal(zimage_session_open(NULL, NULL, &session, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_null(session);
    assert_int_equal(zimage_model_open(TINY, NULL, &model, &error), ZIMAGE_OK);
    assert_int_equal(zimage_session_open(model, NULL, NULL, &error), ZIMAGE_ERROR_ARGUMENT);
    const struct {
        zimage_session_params params;
        const char *field;
    } wrong[] = {
        {{.threads = -1}, "threads"},
        {{.threads = 1025}, "threads"},
        {{.compute = (zimage_compute)5}, "compute"},
        {{.compute = (zimage_compute)-1}, "compute"},
        {{.compute = ZIMAGE_COMPUTE_FP8}, "compute"},
        {{.device = "gpu"}, "device"},
        {{.device = "cuda:"}, "device"},
        {{.device = "cuda:1x"}, "device"},
        {{.device = ""}, "device"},
        {{.device_memory = 1}, "device_memory"},
        {{.cpu_mask = "sse9"}, "cpu_mask"},
        {{.reference = 1, .compute = ZIMAGE_COMPUTE_BF16}, "compute"},
        {{.reference = 1, .cpu_mask = "generic"}, "cpu_mask"},
        {{.reference = 1, .device = "cuda"}, "device"},
        {{.reference = 1, .device_memory = 1}, "device_memory"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        zimage_session_params session_params = wrong[i].params;
        session_params.struct_size = sizeof session_params;
        session = (zimage_session *)&error;
        status = zimage_session_open(model, &session_params, &session, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, wrong[i].field, "expected", NULL);
        assert_null(session);
    }
    zimage_model_close(model);
}

/* ---- inspections ------------------------------------------------------------------------------------------------- */

static zimage_component_info component_at(const zimage_inspection *in, size_t index)
{
    zimage_component_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_inspection_get_component(in, index, &info, NULL), ZIMAGE_OK);
    return info;
}

static zimage_tensor_info tensor_at(const zimage_inspection *in, size_t component, size_t index)
{
    zimage_tensor_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_inspection_get_tensor(in, component, index, &info, NULL), ZIMAGE_OK);
    return info;
}

/* The sums of a component's tensors, all stored in float32. */
static void check_sums(const zimage_inspection *in, size_t index)
{
    zimage_component_info component = component_at(in, index);
    uint64_t parameters = 0, bytes = 0;
    for (size_t i = 0; i < component.tensors; i++) {
        zimage_tensor_info tensor = tensor_at(in, index, i);
        uint64_t count = 1;
        assert_true(tensor.dimensions >= 0 && tensor.dimensions <= 4);
        for (int d = 0; d < tensor.dimensions; d++)
            count *= (uint64_t)tensor.shape[d];
        assert_string_equal(tensor.dtype, "F32");
        assert_int_equal(tensor.bytes, 4 * count);
        assert_contains(tensor.file, ".safetensors");
        assert_true(i == 0 || strcmp(tensor.name, tensor_at(in, index, i - 1).name) > 0);
        parameters += count;
        bytes += tensor.bytes;
    }
    assert_int_equal(parameters, component.parameters);
    assert_int_equal(bytes, component.bytes);
}

static void folders_are_inspected(void **state)
{
    static const char *const names[3] = {"transformer", "text_encoder", "vae"};
    static const char *const classes[3] = {"ZImageTransformer2DModel", "Qwen3ForCausalLM", "AutoencoderKL"};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_inspection *in = NULL;
    assert_int_equal(zimage_inspect(TINY, &in, &error), ZIMAGE_OK);
    assert_string_equal(zimage_inspection_class(in), "ZImagePipeline");
    assert_int_equal(zimage_inspection_components(in), 3);
    for (size_t i = 0; i < 3; i++) {
        zimage_component_info component = component_at(in, i);
        assert_string_equal(component.name, names[i]);
        assert_string_equal(component.class_name, classes[i]);
        assert_non_null(component.config_json);
        assert_true(component.config_json[0] == '{' && component.tensors > 0);
        check_sums(in, i);
    }
    zimage_component_info component = {.struct_size = sizeof component};
    zimage_tensor_info tensor = {.struct_size = sizeof tensor};
    zimage_status status = zimage_inspection_get_component(in, 3, &component, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "component: 3", "less than 3", NULL);
    status = zimage_inspection_get_tensor(in, 3, 0, &tensor, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "component: 3", NULL, NULL);
    status = zimage_inspection_get_tensor(in, 0, SIZE_MAX, &tensor, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "tensor", NULL, NULL);
    zimage_inspection_free(in);
}

static void files_and_packed_folders_are_inspected(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_inspection *in = NULL;
    const char *file = ZIMAGE_TEST_DATA "/vae.safetensors";
    int packed = 0;
    assert_int_equal(zimage_inspect(file, &in, &error), ZIMAGE_OK);
    assert_string_equal(zimage_inspection_class(in), "");
    assert_int_equal(zimage_inspection_components(in), 1);
    assert_string_equal(component_at(in, 0).name, file);
    assert_string_equal(component_at(in, 0).class_name, "");
    assert_null(component_at(in, 0).config_json);
    assert_string_equal(tensor_at(in, 0, 0).file, file);
    zimage_inspection_free(in);

    assert_int_equal(zimage_inspect(ZIMAGE_TEST_DATA "/mlx/mflux", &in, &error), ZIMAGE_OK);
    assert_int_equal(zimage_inspection_components(in), 3);
    for (size_t i = 0; i < component_at(in, 0).tensors; i++)
        packed += strncmp(tensor_at(in, 0, i).dtype, "U", 1) == 0 && strstr(tensor_at(in, 0, i).dtype, " group ");
    assert_true(packed > 10);
    zimage_inspection_free(in);
    zimage_inspection_free(NULL);

    assert_int_equal(zimage_inspection_components(NULL), 0);
    assert_string_equal(zimage_inspection_class(NULL), "");
    in = (zimage_inspection *)&error;
    assert_int_equal(zimage_inspect("/nowhere", &in, &error), ZIMAGE_ERROR_FILE);
    assert_null(in);
    assert_int_equal(zimage_inspect(NULL, &in, &error), ZIMAGE_ERROR_ARGUMENT);
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

static zimage_session *open_tiny(const char *cache)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_session_params params = {.struct_size = sizeof params, .threads = 1, .cache_folder = cache};
    zimage_session *session = NULL;
    if (session_on(TINY, NULL, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static zimage_plan *make_plan(zimage_session *session, const zimage_request *request)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_plan *plan = NULL;
    if (zimage_plan_make(session, request, &plan, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return plan;
}

static zimage_image *blank(int32_t width, int32_t height)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    uint8_t *pixels = calloc((size_t)width * (size_t)height, 3);
    assert_non_null(pixels);
    if (zimage_image_from_pixels(pixels, width, height, (size_t)width * 3, 3, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    free(pixels);
    return image;
}

/* The whole is the sum or the largest of the stages. Only a request with images encodes them. */
static void check_plan(const zimage_plan *plan, int encodes)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_plan_info info = {.struct_size = sizeof info};
    double seconds = 0;
    uint64_t peak = 0;
    assert_int_equal(zimage_plan_get_info(plan, &info, &error), ZIMAGE_OK);
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        zimage_stage_info stage = {.struct_size = sizeof stage};
        assert_int_equal(zimage_plan_get_stage(plan, (zimage_stage)i, &stage, &error), ZIMAGE_OK);
        assert_int_equal(stage.stage, i);
        if (i == ZIMAGE_STAGE_ENCODE && !encodes) {
            assert_true(stage.flops == 0 && stage.seconds == 0 && stage.weight_bytes == 0 && stage.peak_bytes == 0);
            continue;
        }
        assert_true(stage.flops > 0 && stage.seconds > 0 && stage.activation_bytes > 0 && stage.weight_bytes > 0);
        assert_true(stage.peak_bytes > stage.activation_bytes + stage.weight_bytes);
        seconds += stage.seconds;
        peak = stage.peak_bytes > peak ? stage.peak_bytes : peak;
    }
    assert_true(fabs(seconds - info.seconds) < 1e-9 * seconds);
    assert_int_equal(peak, info.peak_bytes);
    assert_true(info.least_bytes > 0);
}

static void plans_add_up(void **state)
{
    zimage_session *session = open_tiny(NULL);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = small_request();
    zimage_plan *plan = make_plan(session, &request);
    zimage_plan_info info = {.struct_size = sizeof info};
    zimage_memory_info memory = {.struct_size = sizeof memory, .least_bytes = 1, .limit_bytes = 1};
    check_plan(plan, 0);
    assert_int_equal(zimage_plan_get_memory(plan, &memory, &error), ZIMAGE_OK);
    assert_true(memory.limit_bytes == 0 && memory.total_bytes == 0 && memory.activation_bytes == 0 &&
                memory.workspace_bytes == 0 && memory.resident_bytes == 0 && memory.ring_bytes == 0 &&
                memory.step_bytes == 0 && memory.least_bytes == 0);
    zimage_stage_info stage = {.struct_size = sizeof stage};
    zimage_status status = zimage_plan_get_stage(plan, (zimage_stage)ZIMAGE_STAGE_COUNT, &stage, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "stage: 5", NULL, NULL);
    assert_int_equal(zimage_plan_get_info(NULL, &info, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_plan_get_stage(NULL, ZIMAGE_STAGE_TEXT, &stage, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_plan_get_memory(NULL, &memory, &error), ZIMAGE_ERROR_ARGUMENT);
    zimage_plan_free(plan);
    zimage_plan_free(NULL);

    zimage_image *image = blank(32, 32);
    const zimage_image *images[] = {image};
    request.images = images;
    request.image_count = 1;
    plan = make_plan(session, &request);
    check_plan(plan, 1);
    zimage_plan_free(plan);
    zimage_image_free(image);
    zimage_session_close(session);
}

/* request_check, plan_make and generate refuse the same requests with the same sentence. */
static void all_three_refuse_alike(void **state)
{
    static const float numbers[64];
    zimage_image *square = blank(32, 32), *wide = blank(2000, 16), *dot = blank(1, 1);
    const zimage_image *const one[] = {square, square}, *const none[] = {NULL}, *const large[] = {wide},
                              *const small[] = {dot};
    zimage_session *session = open_tiny(NULL);
    struct {
        zimage_request request;
        const char *word;
    } wrong[] = {
        {{.prompt = NULL}, "prompt"},
        {{.prompt = "x", .width = 100}, "width"},
        {{.prompt = "x", .height = 4096}, "height"},
        {{.prompt = "x", .steps = 1001}, "steps"},
        {{.prompt = "x", .rng = (zimage_rng)4}, "rng"},
        {{.prompt = "x", .guidance_scale = -1}, "guidance_scale"},
        {{.prompt = "x", .cfg_truncation = -1}, "cfg_truncation"},
        {{.prompt = "x", .cfg_normalization = NAN}, "cfg_normalization"},
        {{.prompt = "x", .latents = numbers, .latents_count = 64}, "latents_count"},
        {{.prompt_embeds = numbers, .prompt_tokens = 2, .prompt_embeds_dim = 31}, "prompt_embeds_dim"},
        {{.prompt_embeds = numbers, .prompt_tokens = 0, .prompt_embeds_dim = 32}, "prompt_embeds"},
        {{.prompt = "x", .memory_limit = 1 << 20}, "memory_limit"},
        {{.prompt = "\xff"}, "prompt"},
        {{.prompt = "x", .image_count = 1}, "images: NULL, expected image_count of them, 1"},
        {{.prompt = "x", .images = none, .image_count = 1}, "images[0]: NULL"},
        {{.prompt = "x", .images = one, .image_count = 2}, "images: 2, expected at most 1"},
        {{.prompt = "x", .images = one, .image_count = SIZE_MAX}, "images: 18446744073709551615, expected at most 1"},
        {{.prompt = "x", .images = large, .image_count = 1}, "images[0]: 2000 x 16 pixels, expected at most 1024"},
        {{.prompt = "x", .images = small, .image_count = 1}, "images[0]: 1 x 1 pixels, expected at least 16 x 16"},
        {{.prompt = "x", .mask = square}, "mask: expected only with images"},
        {{.prompt = "x", .images = one, .image_count = 1, .mask = wide}, "mask: 2000 x 16 pixels, expected 32 x 32"},
        {{.prompt = "x", .strength = 0.5}, "strength: 0.5, expected only with an image"},
        {{.prompt = "x", .images = one, .image_count = 1, .strength = NAN}, "strength: "},
        {{.prompt = "x", .images = one, .image_count = 1, .strength = 1.5}, "strength: 1.5, expected more than 0"},
        {{.prompt = "x", .images = one, .image_count = 1, .strength = -1}, "strength: -1"},
        {{.prompt = "x", .images = one, .image_count = 1, .strength = 1e-30}, "none of the 8 steps would be run"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        zimage_error errors[3] = {ZIMAGE_ERROR_INIT, ZIMAGE_ERROR_INIT, ZIMAGE_ERROR_INIT};
        zimage_request *request = &wrong[i].request;
        zimage_plan *plan = (zimage_plan *)session;
        zimage_image *image = (zimage_image *)session;
        request->struct_size = sizeof *request;
        zimage_status status = zimage_request_check(session, request, &errors[0]);
        if (status == ZIMAGE_OK || !strstr(errors[0].message, wrong[i].word))
            fail_msg("%s: status %d, %s", wrong[i].word, (int)status, errors[0].message);
        assert_int_equal(zimage_plan_make(session, request, &plan, &errors[1]), status);
        assert_int_equal(zimage_generate(session, request, &image, &errors[2]), status);
        assert_null(plan);
        assert_null(image);
        if (status != ZIMAGE_ERROR_MEMORY) { /* its numbers depend on what the process holds at the moment */
            assert_string_equal(errors[0].message, errors[1].message);
            assert_string_equal(errors[0].message, errors[2].message);
        }
    }
    zimage_image_free(square);
    zimage_image_free(wide);
    zimage_image_free(dot);
    zimage_session_close(session);
}

/* ---- NULL -------------------------------------------------------------------------------------------------------- */

/* The call refuses its NULL, with a sentence where there is room for one. */
#define REFUSED(call_with, ...)                                                                                        \
    do {                                                                                                               \
        zimage_error refusal = ZIMAGE_ERROR_INIT;                                                                      \
        if (call_with(__VA_ARGS__, &refusal) != ZIMAGE_ERROR_ARGUMENT || !strstr(refusal.message, "NULL"))             \
            fail_msg("%s(%s): %s", #call_with, #__VA_ARGS__, refusal.message);                                         \
        assert_int_equal(call_with(__VA_ARGS__, NULL), ZIMAGE_ERROR_ARGUMENT);                                         \
    } while (0)

/* Every function with every pointer NULL that may not be: objects, infos and results. */
static void null_objects_are_refused(void **state)
{
    zimage_device_info device = {.struct_size = sizeof device};
    zimage_kernel_info kernel = {.struct_size = sizeof kernel};
    zimage_model_info model = {.struct_size = sizeof model};
    zimage_plan_info plan = {.struct_size = sizeof plan};
    zimage_stage_info stage = {.struct_size = sizeof stage};
    zimage_memory_info memory = {.struct_size = sizeof memory};
    zimage_image_info image = {.struct_size = sizeof image};
    zimage_component_info component = {.struct_size = sizeof component};
    zimage_tensor_info tensor = {.struct_size = sizeof tensor};
    zimage_bench_info bench = {.struct_size = sizeof bench};
    zimage_bench_figures figures = {.struct_size = sizeof figures};
    REFUSED(zimage_device_get, NULL, 0, &device);
    REFUSED(zimage_kernel_get, NULL, 0, &kernel);
    REFUSED(zimage_model_get_info, NULL, &model);
    REFUSED(zimage_plan_get_info, NULL, &plan);
    REFUSED(zimage_plan_get_stage, NULL, ZIMAGE_STAGE_TEXT, &stage);
    REFUSED(zimage_plan_get_memory, NULL, &memory);
    REFUSED(zimage_image_get_info, NULL, &image);
    REFUSED(zimage_image_get_memory, NULL, &memory);
    REFUSED(zimage_inspection_get_component, NULL, 0, &component);
    REFUSED(zimage_inspection_get_tensor, NULL, 0, 0, &tensor);
    REFUSED(zimage_bench_get_info, NULL, &bench);
    REFUSED(zimage_bench_get_figures, NULL, ZIMAGE_BENCH_LOAD, &figures);
    REFUSED(zimage_bench_get_memory, NULL, ZIMAGE_BENCH_LOAD, &memory);
    assert_int_equal(zimage_device_count(NULL), 0);
    assert_int_equal(zimage_kernel_count(NULL), 0);
    assert_int_equal(zimage_image_width(NULL), 0);
    assert_int_equal(zimage_image_height(NULL), 0);
    assert_null(zimage_image_pixels(NULL));
    assert_true(zimage_image_seconds(NULL, ZIMAGE_STAGE_TEXT) == 0);
    assert_null(zimage_image_latents(NULL, NULL));
    assert_string_equal(zimage_inspection_class(NULL), "");
    assert_int_equal(zimage_inspection_components(NULL), 0);
    assert_int_equal(zimage_printable(NULL, NULL, 0), 0);
    assert_null(zimage_replace_lost_pages(NULL));
    zimage_free(NULL);
    zimage_device_list_free(NULL);
    zimage_model_close(NULL);
    zimage_session_close(NULL);
    zimage_plan_free(NULL);
    zimage_image_free(NULL);
    zimage_tokenizer_close(NULL);
    zimage_inspection_free(NULL);
    zimage_bench_free(NULL);
}

static void null_infos_are_refused(void **state)
{
    zimage_session *session = open_tiny(NULL);
    zimage_request request = small_request();
    zimage_plan *plan = make_plan(session, &request);
    zimage_device_list *list = list_devices("generic");
    zimage_inspection *in = NULL;
    zimage_model *model = NULL;
    zimage_image *image = NULL;
    assert_int_equal(zimage_inspect(TINY, &in, NULL), ZIMAGE_OK);
    assert_int_equal(zimage_model_open(TINY, NULL, &model, NULL), ZIMAGE_OK);
    assert_int_equal(zimage_generate(session, &request, &image, NULL), ZIMAGE_OK);
    REFUSED(zimage_device_get, list, 0, NULL);
    REFUSED(zimage_kernel_get, list, 0, NULL);
    REFUSED(zimage_model_get_info, model, NULL);
    REFUSED(zimage_plan_get_info, plan, NULL);
    REFUSED(zimage_plan_get_stage, plan, ZIMAGE_STAGE_TEXT, NULL);
    REFUSED(zimage_plan_get_memory, plan, NULL);
    REFUSED(zimage_image_get_info, image, NULL);
    REFUSED(zimage_image_get_memory, image, NULL);
    REFUSED(zimage_inspection_get_component, in, 0, NULL);
    REFUSED(zimage_inspection_get_tensor, in, 0, 0, NULL);
    assert_non_null(zimage_image_latents(image, NULL));
    assert_true(zimage_image_seconds(image, (zimage_stage)-1) == 0 &&
                zimage_image_seconds(image, (zimage_stage)4) == 0);
    zimage_image_free(image);
    zimage_model_close(model);
    zimage_inspection_free(in);
    zimage_device_list_free(list);
    zimage_plan_free(plan);
    zimage_session_close(session);
}

static void null_arguments_are_refused(void **state)
{
    static const uint8_t pixels[3];
    static const float numbers[1];
    static const int64_t one[4] = {1, 1, 1, 1};
    zimage_session *session = open_tiny(NULL);
    zimage_request request = small_request();
    zimage_bench_params bench_params = {.struct_size = sizeof bench_params};
    zimage_device_list *list = NULL;
    zimage_model *model = NULL;
    zimage_session *other = NULL;
    zimage_plan *plan = NULL;
    zimage_image *image = NULL, *made = NULL;
    zimage_inspection *in = NULL;
    zimage_bench *bench = NULL;
    zimage_texts *texts = NULL;
    uint8_t *data = NULL;
    float *values = NULL;
    int64_t shape[4];
    int32_t dimensions;
    size_t size;
    assert_int_equal(zimage_image_from_pixels(pixels, 1, 1, 3, 3, &image, NULL), ZIMAGE_OK);
    REFUSED(zimage_devices, NULL, NULL);
    REFUSED(zimage_model_open, NULL, NULL, &model);
    REFUSED(zimage_model_open, TINY, NULL, NULL);
    REFUSED(zimage_session_open, NULL, NULL, &other);
    assert_int_equal(zimage_model_open(TINY, NULL, &model, NULL), ZIMAGE_OK);
    REFUSED(zimage_session_open, model, NULL, NULL);
    REFUSED(zimage_request_check, NULL, &request);
    REFUSED(zimage_request_check, session, NULL);
    zimage_request completed = {.struct_size = sizeof completed};
    REFUSED(zimage_request_complete, NULL, &request, &completed);
    REFUSED(zimage_request_complete, model, NULL, &completed);
    REFUSED(zimage_request_complete, model, &request, NULL);
    zimage_memory_info memory = {.struct_size = sizeof memory, .total_bytes = 1};
    REFUSED(zimage_request_memory, NULL, &request, &memory);
    REFUSED(zimage_request_memory, session, NULL, &memory);
    REFUSED(zimage_request_memory, session, &request, NULL);
    assert_int_equal(zimage_request_memory(session, &request, &memory, NULL), ZIMAGE_OK);
    assert_true(memory.total_bytes == 0 && memory.limit_bytes == 0); /* a CPU has no memory of its own */
    REFUSED(zimage_plan_make, NULL, &request, &plan);
    REFUSED(zimage_plan_make, session, NULL, &plan);
    REFUSED(zimage_plan_make, session, &request, NULL);
    REFUSED(zimage_generate, NULL, &request, &made);
    REFUSED(zimage_generate, session, NULL, &made);
    REFUSED(zimage_generate, session, &request, NULL);
    REFUSED(zimage_image_from_pixels, NULL, 1, 1, 3, 3, &made);
    REFUSED(zimage_image_from_pixels, pixels, 1, 1, 3, 3, NULL);
    REFUSED(zimage_image_encode, NULL, ZIMAGE_FORMAT_PNG, NULL, 0, &data, &size);
    REFUSED(zimage_image_encode, image, ZIMAGE_FORMAT_PNG, NULL, 1, &data, &size);
    REFUSED(zimage_image_encode, image, ZIMAGE_FORMAT_PNG, NULL, 0, NULL, &size);
    REFUSED(zimage_image_encode, image, ZIMAGE_FORMAT_PNG, NULL, 0, &data, NULL);
    REFUSED(zimage_image_decode, NULL, 1, 0, &made);
    REFUSED(zimage_image_decode, pixels, 1, 0, NULL);
    REFUSED(zimage_image_decode_with, NULL, 1, NULL, &made);
    REFUSED(zimage_image_decode_with, pixels, 1, NULL, NULL);
    REFUSED(zimage_image_read, NULL, NULL, &made);
    REFUSED(zimage_image_read, "/nowhere/a.png", NULL, NULL);
    REFUSED(zimage_image_encode_with, NULL, ZIMAGE_FORMAT_PNG, NULL, &data, &size);
    REFUSED(zimage_image_encode_with, image, ZIMAGE_FORMAT_PNG, NULL, NULL, &size);
    REFUSED(zimage_image_encode_with, image, ZIMAGE_FORMAT_PNG, NULL, &data, NULL);
    REFUSED(zimage_image_save, NULL, "/nowhere/a.png", NULL);
    REFUSED(zimage_image_save, image, NULL, NULL);
    REFUSED(zimage_format_check, ZIMAGE_FORMAT_JPEG, 1, 1, NULL, 1);
    REFUSED(zimage_texts_decode, NULL, 1, &texts);
    REFUSED(zimage_texts_decode, pixels, 1, NULL);
    REFUSED(zimage_image_write, NULL, "/nowhere/a.png", NULL, 0);
    REFUSED(zimage_image_write, image, NULL, NULL, 0);
    REFUSED(zimage_image_write, image, "/nowhere/a.png", NULL, 1);
    REFUSED(zimage_image_write_beneath, NULL, "/nowhere", "a.png", NULL, 0);
    REFUSED(zimage_image_write_beneath, image, NULL, "a.png", NULL, 0);
    REFUSED(zimage_image_write_beneath, image, "/nowhere", NULL, NULL, 0);
    REFUSED(zimage_image_write_beneath, image, "/nowhere", "a.png", NULL, 1);
    REFUSED(zimage_tensor_write_beneath, NULL, "a", "a", numbers, one, 1);
    REFUSED(zimage_tensor_write_beneath, "/nowhere", NULL, "a", numbers, one, 1);
    REFUSED(zimage_tensor_write_beneath, "/nowhere", "a", NULL, numbers, one, 1);
    REFUSED(zimage_tensor_write_beneath, "/nowhere", "a", "a", NULL, one, 1);
    REFUSED(zimage_tensor_write_beneath, "/nowhere", "a", "a", numbers, NULL, 1);
    REFUSED(zimage_tensor_read, NULL, "a", &values, shape, &dimensions);
    REFUSED(zimage_tensor_read, "/nowhere", NULL, &values, shape, &dimensions);
    REFUSED(zimage_tensor_read, "/nowhere", "a", NULL, shape, &dimensions);
    REFUSED(zimage_tensor_read, "/nowhere", "a", &values, NULL, &dimensions);
    REFUSED(zimage_tensor_read, "/nowhere", "a", &values, shape, NULL);
    REFUSED(zimage_tensor_write, NULL, "a", numbers, one, 1);
    REFUSED(zimage_tensor_write, "/nowhere/a", NULL, numbers, one, 1);
    REFUSED(zimage_tensor_write, "/nowhere/a", "a", NULL, one, 1);
    REFUSED(zimage_tensor_write, "/nowhere/a", "a", numbers, NULL, 1);
    REFUSED(zimage_inspect, NULL, &in);
    REFUSED(zimage_inspect, TINY, NULL);
    REFUSED(zimage_selftest, NULL, NULL);
    REFUSED(zimage_bench_run, NULL, NULL, &bench);
    REFUSED(zimage_bench_run, TINY, &bench_params, NULL);
    assert_true(!list && !plan && !made && !in && !bench && !data && !values);
    zimage_image_free(image);
    zimage_model_close(model);
    zimage_session_close(session);
}

static void null_tokenizer_arguments_are_refused(void **state)
{
    zimage_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    REFUSED(zimage_tokenizer_open, TINY, NULL);
    REFUSED(zimage_tokenizer_open, NULL, &tokenizer);
    assert_int_equal(zimage_tokenizer_open(TINY, &tokenizer, NULL), ZIMAGE_OK);
    REFUSED(zimage_tokenizer_encode, NULL, ZIMAGE_TEMPLATE_NONE, "a", 1, &ids, &count);
    REFUSED(zimage_tokenizer_encode, tokenizer, ZIMAGE_TEMPLATE_NONE, NULL, 1, &ids, &count);
    REFUSED(zimage_tokenizer_encode, tokenizer, ZIMAGE_TEMPLATE_NONE, "a", 1, NULL, &count);
    REFUSED(zimage_tokenizer_encode, tokenizer, ZIMAGE_TEMPLATE_NONE, "a", 1, &ids, NULL);
    assert_int_equal(zimage_tokenizer_encode(tokenizer, ZIMAGE_TEMPLATE_NONE, NULL, 0, &ids, &count, NULL), ZIMAGE_OK);
    zimage_free(ids);
    zimage_tokenizer_close(tokenizer);
}

/* ---- stacks ------------------------------------------------------------------------------------------------------ */

typedef struct small_thread {
    zimage_model *model;
    zimage_session *session;
    zimage_error errors[8]; /* the last ones of the calls below */
    int refused;
} small_thread;

static void *call_on_a_small_stack(void *arg)
{
    small_thread *t = arg;
    zimage_request request = small_request();
    zimage_device_list *list = NULL;
    zimage_model *model = NULL;
    zimage_session *session = NULL;
    zimage_plan *plan = NULL;
    zimage_image *image = NULL;
    zimage_tokenizer *tokenizer = NULL;
    zimage_inspection *in = NULL;
    t->refused += zimage_devices(NULL, &list, &t->errors[0]) == ZIMAGE_ERROR_MEMORY;
    t->refused += zimage_model_open(TINY, NULL, &model, &t->errors[1]) == ZIMAGE_ERROR_MEMORY;
    t->refused += zimage_session_open(t->model, NULL, &session, &t->errors[2]) == ZIMAGE_ERROR_MEMORY;
    t->refused += zimage_request_check(t->session, &request, &t->errors[3]) == ZIMAGE_ERROR_MEMORY;
    t->refused += zimage_plan_make(t->session, &request, &plan, &t->errors[4]) == ZIMAGE_ERROR_MEMORY;
    t->refused += zimage_generate(t->session, &request, &image, &t->errors[5]) == ZIMAGE_ERROR_MEMORY;
    t->refused += zimage_tokenizer_open(TINY, &tokenizer, &t->errors[6]) == ZIMAGE_ERROR_MEMORY;
    t->refused += zimage_inspect(TINY, &in, &t->errors[7]) == ZIMAGE_ERROR_MEMORY;
    return NULL;
}

/* A thread whose stack is too small gets a sentence; it must not fault. */
static void small_stacks_are_refused(void **state)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    small_thread t = {.session = open_tiny(NULL)};
    pthread_attr_t attributes;
    pthread_t thread;
    for (size_t i = 0; i < 8; i++)
        t.errors[i].struct_size = sizeof t.errors[i];
    assert_int_equal(zimage_model_open(TINY, NULL, &t.model, NULL), ZIMAGE_OK);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, 32 << 10), 0);
    assert_int_equal(pthread_create(&thread, &attributes, call_on_a_small_stack, &t), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
    for (size_t i = 0; i < 8; i++)
        assert_contains(t.errors[i].message, "stack: the calling thread has");
    assert_int_equal(t.refused, 8);
    zimage_model_close(t.model);
    zimage_session_close(t.session);
#endif
}

/* ---- files that are written -------------------------------------------------------------------------------------- */

/* Everything that might write: opening, checking, planning (which measures), generating, devices, describing. */
static int use_everything(const char *cache)
{
    zimage_session *session = open_tiny(cache);
    zimage_request request = small_request();
    zimage_image *image = NULL;
    zimage_inspection *in = NULL;
    zimage_device_list *list = NULL;
    zimage_plan *plan = NULL;
    int done = zimage_request_check(session, &request, NULL) == ZIMAGE_OK &&
               zimage_plan_make(session, &request, &plan, NULL) == ZIMAGE_OK &&
               zimage_generate(session, &request, &image, NULL) == ZIMAGE_OK &&
               zimage_devices("generic", &list, NULL) == ZIMAGE_OK && zimage_inspect(TINY, &in, NULL) == ZIMAGE_OK;
    zimage_plan_free(plan);
    zimage_image_free(image);
    zimage_device_list_free(list);
    zimage_inspection_free(in);
    zimage_session_close(session);
    return done;
}

static int in_an_empty_home(const char *home, const char *cache)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        static const char *const variables[] = {"HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR"};
        for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
            setenv(variables[i], home, 1);
        _exit(chdir(home) == 0 && use_everything(cache) ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void nothing_is_written_without_a_cache(void **state)
{
    const char *home = temporary("home");
    assert_int_equal(mkdir(home, 0700), 0);
    assert_int_equal(in_an_empty_home(home, NULL), 0);
    assert_int_equal(files_in(home), 0);
    rmdir(home);
    assert_int_equal(files_in(temporary_folder), 0);
}

/* When a file was written last. */
static struct timespec written_at(const char *path)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
#if defined(__APPLE__)
    return status.st_mtimespec;
#else
    return status.st_mtim;
#endif
}

static void the_cache_is_made_and_used(void **state)
{
    const char *home = temporary("home"), *cache = temporary("home/a/cache"),
               *file = temporary("home/a/cache/machine.json");
    assert_int_equal(mkdir(home, 0700), 0);
    assert_int_equal(in_an_empty_home(home, cache), 0);
    assert_int_equal(files_in(home), 1);
    assert_int_equal(files_in(cache), 1);
    struct timespec first = written_at(file);
    assert_int_equal(in_an_empty_home(home, cache), 0); /* measured before: nothing is written */
    struct timespec second = written_at(file);
    assert_true(first.tv_sec == second.tv_sec && first.tv_nsec == second.tv_nsec);
    assert_int_equal(files_in(cache), 1);
    assert_int_equal(in_an_empty_home(home, "/dev/null/nowhere"), 0); /* a folder that can't be made does no harm */
    assert_int_equal(files_in(home), 1);
    unlink(file);
    rmdir(cache);
    rmdir(temporary("home/a"));
    rmdir(home);
    assert_int_equal(files_in(temporary_folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enums_have_names),
        cmocka_unit_test(devices_are_listed),
        cmocka_unit_test(kernels_follow_the_mask),
        cmocka_unit_test(wrong_device_calls),
        cmocka_unit_test(model_info),
        cmocka_unit_test(every_part_from_elsewhere),
        cmocka_unit_test(one_part_from_elsewhere),
        cmocka_unit_test(wrong_model_calls),
        cmocka_unit_test(folders_are_inspected),
        cmocka_unit_test(files_and_packed_folders_are_inspected),
        cmocka_unit_test(plans_add_up),
        cmocka_unit_test(all_three_refuse_alike),
        cmocka_unit_test(null_objects_are_refused),
        cmocka_unit_test(null_infos_are_refused),
        cmocka_unit_test(null_arguments_are_refused),
        cmocka_unit_test(null_tokenizer_arguments_are_refused),
        cmocka_unit_test(small_stacks_are_refused),
        cmocka_unit_test(nothing_is_written_without_a_cache),
        cmocka_unit_test(the_cache_is_made_and_used),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
