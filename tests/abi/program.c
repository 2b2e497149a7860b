/*
 * A program of version 0.2.0 or, compiled with a header from grow.awk and GROWN, of a later version, for check_abi.sh:
 *
 *   program serve MODEL OUT.png   uses all of the stable header that has structs; prints a hash of the image
 *   program refuse MODEL          structs that are too small, or (GROWN) have fields set that the library does not know
 *
 * Every struct that it passes lies before bytes that nobody may change.
 */
#define ZIMAGE_EXPERIMENTAL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zimage.h>

#define GUARD 512 /* bytes; more than a later version appends */
#define FILL  0xA5
#define MOST  64

static struct {
    unsigned char *bytes;
    size_t size;
} guarded[MOST];
static int guarded_count;

static void fail(const char *what, const char *text)
{
    fprintf(stderr, "%s: %s\n", what, text);
    exit(1);
}

/* [size] zeros, the struct_size set, before a guard. */
static void *new_struct(size_t size)
{
    unsigned char *bytes = malloc(size + GUARD);
    uint32_t struct_size = (uint32_t)size;
    if (!bytes || guarded_count == MOST)
        fail("new_struct", "no room");
    memset(bytes, 0, size);
    memset(bytes + size, FILL, GUARD);
    memcpy(bytes, &struct_size, sizeof struct_size);
    guarded[guarded_count].bytes = bytes;
    guarded[guarded_count++].size = size;
    return bytes;
}

#define NEW(type) ((type *)new_struct(sizeof(type)))

static void check_guards(const char *what)
{
    for (int i = 0; i < guarded_count; i++) {
        uint32_t struct_size;
        memcpy(&struct_size, guarded[i].bytes, sizeof struct_size);
        if (struct_size != guarded[i].size)
            fail(what, "a struct_size has changed");
        for (size_t k = struct_size < sizeof struct_size ? sizeof struct_size : struct_size; k < struct_size + GUARD;
             k++)
            if (guarded[i].bytes[k] != FILL)
                fail(what, "bytes behind a struct have changed");
    }
}

static void free_structs(void)
{
    for (int i = 0; i < guarded_count; i++)
        free(guarded[i].bytes);
    guarded_count = 0;
}

static zimage_error *error;

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != ZIMAGE_OK)                                                                                       \
            fail(#call, error->message);                                                                               \
        check_guards(#call);                                                                                           \
    } while (0)

#define TRUE(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail("expected", #condition);                                                                              \
    } while (0)

/* The call fails with that status, and its message holds the word. */
#define REFUSED(call, code, word)                                                                                      \
    do {                                                                                                               \
        error->message[0] = 0;                                                                                         \
        if ((call) != (code) || error->status != (code) || !strstr(error->message, word))                              \
            fail(#call " was not refused for " word, error->message);                                                  \
        check_guards(#call);                                                                                           \
    } while (0)

/* ---- serve ------------------------------------------------------------------------------------------------------- */

static int reports;

static int on_progress(const zimage_progress *progress, void *user)
{
    TRUE(user == &reports);
    TRUE(progress->struct_size >= offsetof(zimage_progress, preview_height) + sizeof progress->preview_height);
    TRUE(progress->fraction >= 0 && progress->fraction <= 1);
    reports++;
    return 0;
}

static void use_devices(void)
{
    zimage_device_list *list = NULL;
    zimage_device_info *device = NEW(zimage_device_info);
    zimage_kernel_info *kernel = NEW(zimage_kernel_info);
    OK(zimage_devices("generic", &list, error));
    TRUE(zimage_device_count(list) > 0 && zimage_kernel_count(list) > 0);
    OK(zimage_device_get(list, 0, device, error));
    TRUE(device->usable && !strcmp(device->device, "cpu") && device->threads > 0 && device->memory_bytes == 0);
    OK(zimage_kernel_get(list, 0, kernel, error));
    TRUE(kernel->usable && kernel->gops > 0);
    zimage_device_list_free(list);
}

static void use_plan(zimage_session *session, const zimage_request *request)
{
    zimage_plan *plan = NULL;
    zimage_plan_info *info = NEW(zimage_plan_info);
    zimage_stage_info *stage = NEW(zimage_stage_info);
    zimage_memory_info *memory = NEW(zimage_memory_info);
    OK(zimage_plan_make(session, request, &plan, error));
    OK(zimage_plan_get_info(plan, info, error));
    TRUE(info->peak_bytes > 0 && info->least_bytes > 0 && info->seconds > 0);
    OK(zimage_plan_get_stage(plan, ZIMAGE_STAGE_DECODE, stage, error));
    TRUE(stage->stage == ZIMAGE_STAGE_DECODE && stage->flops > 0 && stage->peak_bytes > 0);
    OK(zimage_plan_get_memory(plan, memory, error));
    TRUE(memory->least_bytes == 0);
    zimage_plan_free(plan);
}

static void use_image(const zimage_image *image, const char *path)
{
    zimage_image_info *info = NEW(zimage_image_info);
    zimage_memory_info *memory = NEW(zimage_memory_info);
    const zimage_text text = {"prompt", "a red apple"};
    zimage_image *again = NULL;
    uint8_t *data = NULL;
    size_t size = 0, bytes = (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image) * 3;
    OK(zimage_image_get_info(image, info, error));
    TRUE(info->prompt_tokens > 0 && info->seconds > 0);
    OK(zimage_image_get_memory(image, memory, error));
    OK(zimage_image_encode(image, ZIMAGE_FORMAT_PNG, &text, 1, &data, &size, error));
    OK(zimage_image_decode(data, size, 0, &again, error));
    TRUE(memcmp(zimage_image_pixels(image), zimage_image_pixels(again), bytes) == 0);
    OK(zimage_image_write(image, path, &text, 1, error));
    zimage_free(data);
    zimage_image_free(again);
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ zimage_image_pixels(image)[i]) * 1099511628211u;
    printf("image %016llx\n", (unsigned long long)hash);
}

static void use_inspection(const char *folder)
{
    zimage_inspection *inspection = NULL;
    zimage_component_info *component = NEW(zimage_component_info);
    zimage_tensor_info *tensor = NEW(zimage_tensor_info);
    OK(zimage_inspect(folder, &inspection, error));
    OK(zimage_inspection_get_component(inspection, 0, component, error));
    TRUE(component->tensors > 0 && component->name[0]);
    OK(zimage_inspection_get_tensor(inspection, 0, 0, tensor, error));
    TRUE(tensor->dimensions > 0 && tensor->name[0] && tensor->file[0]);
    zimage_inspection_free(inspection);
}

/* Errors in structs of every size, this program's included. */
static void use_errors(void)
{
    static const uint32_t sizes[] = {0, 4, 8, 9, 40, sizeof(zimage_error)};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        zimage_error *small = new_struct(sizeof(zimage_error));
        zimage_model *model = NULL;
        guarded[guarded_count - 1].size = sizes[i];
        memset((unsigned char *)small + sizes[i], FILL, sizeof *small - sizes[i] + GUARD);
        small->struct_size = sizes[i];
        TRUE(zimage_model_open("no-such-folder", NULL, &model, small) == ZIMAGE_ERROR_FILE && !model);
        check_guards("a small error");
        TRUE(sizes[i] <= 8 || (small->status == ZIMAGE_ERROR_FILE && memchr(small->message, 0, sizes[i] - 8)));
        TRUE(sizes[i] < 40 || strstr(small->message, "no-such-folder"));
        guarded_count--;
        free(small);
    }
}

static void serve(const char *folder, const char *path)
{
    zimage_model_params *model_params = NEW(zimage_model_params);
    zimage_session_params *session_params = NEW(zimage_session_params);
    zimage_model_info *info = NEW(zimage_model_info);
    zimage_request *request = NEW(zimage_request);
    zimage_model *model = NULL;
    zimage_session *session = NULL;
    zimage_image *image = NULL;
    session_params->cpu_mask = "generic";
    session_params->threads = 1;
    request->prompt = "a red apple";
    request->width = request->height = 64;
    request->steps = 2;
    request->seed = 7;
    request->guidance_scale = 2;
    request->preview = 1;
    request->progress = on_progress;
    request->progress_user = &reports;
    request->memory_limit = (uint64_t)1 << 40;
    OK(zimage_model_open(folder, model_params, &model, error));
    OK(zimage_model_get_info(model, info, error));
    TRUE(info->default_steps > 0 && !strcmp(info->family, "z-image"));
    OK(zimage_session_open(model, session_params, &session, error));
    OK(zimage_request_check(session, request, error));
    use_plan(session, request);
    OK(zimage_generate(session, request, &image, error));
    TRUE(reports > 4);
    use_image(image, path);
    zimage_image_free(image);
    zimage_session_close(session);
    zimage_model_close(model);
    use_devices();
    use_inspection(folder);
    use_errors();
}

/* ---- refuse ------------------------------------------------------------------------------------------------------ */

/* Each of the calls with the struct. All of them have to refuse it. */
#define REFUSE_PARAMS(type, call, code)                                                                                \
    do {                                                                                                               \
        type *in = NEW(type);                                                                                          \
        REFUSE_SIZES(in, call, #type);                                                                                 \
        REFUSE_FIELDS(in, call, code, #type);                                                                          \
    } while (0)

static void set_size(void *at, uint32_t size)
{
    memcpy(at, &size, sizeof size);
    guarded[guarded_count - 1].size = size;
}

/* A struct of a size that no version had; its other bytes must not be read or written. */
#define REFUSE_SIZES(in, call, name)                                                                                   \
    do {                                                                                                               \
        for (uint32_t size = 0; size < 16; size += 5) {                                                                \
            memset(in, FILL, sizeof *in);                                                                              \
            set_size(in, size);                                                                                        \
            error->message[0] = 0;                                                                                     \
            if ((call) != ZIMAGE_ERROR_ARGUMENT || !strstr(error->message, name ".struct_size"))                       \
                fail(#call ": a wrong struct_size was not refused", error->message);                                   \
            for (size_t i = 4; i < sizeof *in + GUARD; i++)                                                            \
                if (((unsigned char *)in)[i] != FILL)                                                                  \
                    fail(#call, "bytes of a refused struct have changed");                                             \
        }                                                                                                              \
        memset(in, 0, sizeof *in);                                                                                     \
        set_size(in, sizeof *in);                                                                                      \
    } while (0)

#ifdef GROWN
#define REFUSE_FIELDS(in, call, code, name)                                                                            \
    do {                                                                                                               \
        in->grown_number = 1;                                                                                          \
        REFUSED(call, code, name);                                                                                     \
        in->grown_number = 0;                                                                                          \
        in->grown_text = "";                                                                                           \
        REFUSED(call, code, name);                                                                                     \
        in->grown_text = NULL;                                                                                         \
        in->grown_size = (uint64_t)1 << 63;                                                                            \
        REFUSED(call, code, name);                                                                                     \
    } while (0)
#else
#define REFUSE_FIELDS(in, call, code, name) (void)0
#endif

#define REFUSE_INFO(type, call)                                                                                        \
    do {                                                                                                               \
        type *in = NEW(type);                                                                                          \
        REFUSE_SIZES(in, call, #type);                                                                                 \
        OK(call);                                                                                                      \
    } while (0)

static void refuse_infos(zimage_session *session, const zimage_model *model, const char *folder)
{
    zimage_request *request = NEW(zimage_request);
    zimage_plan *plan = NULL;
    zimage_image *image = NULL;
    zimage_device_list *list = NULL;
    zimage_inspection *inspection = NULL;
    request->prompt = "x";
    request->width = request->height = 16;
    request->steps = 1;
    OK(zimage_plan_make(session, request, &plan, error));
    OK(zimage_generate(session, request, &image, error));
    OK(zimage_devices(NULL, &list, error));
    OK(zimage_inspect(folder, &inspection, error));
    REFUSE_INFO(zimage_model_info, zimage_model_get_info(model, in, error));
    REFUSE_INFO(zimage_request, zimage_request_complete(model, request, in, error));
    REFUSE_INFO(zimage_device_info, zimage_device_get(list, 0, in, error));
    REFUSE_INFO(zimage_kernel_info, zimage_kernel_get(list, 0, in, error));
    REFUSE_INFO(zimage_plan_info, zimage_plan_get_info(plan, in, error));
    REFUSE_INFO(zimage_stage_info, zimage_plan_get_stage(plan, ZIMAGE_STAGE_TEXT, in, error));
    REFUSE_INFO(zimage_memory_info, zimage_plan_get_memory(plan, in, error));
    REFUSE_INFO(zimage_image_info, zimage_image_get_info(image, in, error));
    REFUSE_INFO(zimage_component_info, zimage_inspection_get_component(inspection, 0, in, error));
    REFUSE_INFO(zimage_tensor_info, zimage_inspection_get_tensor(inspection, 0, 0, in, error));
    zimage_inspection_free(inspection);
    zimage_device_list_free(list);
    zimage_image_free(image);
    zimage_plan_free(plan);
}

static void refuse(const char *folder)
{
    zimage_model *model = NULL, *no_model = NULL;
    zimage_session *session = NULL, *no_session = NULL;
    zimage_plan *no_plan = NULL;
    zimage_image *no_image = NULL;
    OK(zimage_model_open(folder, NULL, &model, error));
    OK(zimage_session_open(model, NULL, &session, error));
    const zimage_status unknown = ZIMAGE_ERROR_UNSUPPORTED;
    (void)unknown;
    REFUSE_PARAMS(zimage_model_params, zimage_model_open(folder, in, &no_model, error), unknown);
    REFUSE_PARAMS(zimage_session_params, zimage_session_open(model, in, &no_session, error), unknown);
    REFUSE_PARAMS(zimage_request, zimage_request_check(session, in, error), unknown);
    REFUSE_PARAMS(zimage_request, zimage_request_memory(session, in, NULL, error), unknown);
    zimage_request *completed = NEW(zimage_request);
    REFUSE_PARAMS(zimage_request, zimage_request_complete(model, in, completed, error), unknown);
    REFUSE_PARAMS(zimage_request, zimage_plan_make(session, in, &no_plan, error), unknown);
    REFUSE_PARAMS(zimage_request, zimage_generate(session, in, &no_image, error), unknown);
    TRUE(!no_model && !no_session && !no_plan && !no_image);
    refuse_infos(session, model, folder);
    zimage_session_close(session);
    zimage_model_close(model);
}

int main(int argc, char **argv)
{
    error = NEW(zimage_error);
    if (argc == 4 && !strcmp(argv[1], "serve"))
        serve(argv[2], argv[3]);
    else if (argc == 3 && !strcmp(argv[1], "refuse"))
        refuse(argv[2]);
    else
        fail("usage", "program serve MODEL OUT.png | refuse MODEL");
    free_structs();
    return 0;
}
