/* A model folder from a stranger: opened, described, and a request for it checked. Nothing is computed. */
#include <string.h>

#include "fuzz.h"
#include "inspect.h"

#define INPUT_SIDE 64 /* pixels; the least that FLUX.2-klein takes */

/* A request with an input image, which is its own mask, too. */
static void check_with_image(zimage_session *session, zimage_request *request)
{
    static const uint8_t pixels[INPUT_SIDE * INPUT_SIDE * 3];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *input = NULL;
    if (zimage_image_from_pixels(pixels, INPUT_SIDE, INPUT_SIDE, (size_t)INPUT_SIDE * 3, 3, &input, &error) !=
        ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    const zimage_image *images[] = {input};
    request->images = images;
    request->image_count = 1;
    for (int masked = 0; masked < 2; masked++) {
        request->mask = masked ? input : NULL;
        zimage_status status = zimage_request_check(session, request, &error);
        if (status != ZIMAGE_OK && !error.message[0])
            zi_fuzz_fail("status %d without a message", status);
    }
    zimage_image_free(input);
}

static void check_requests(zimage_model *model)
{
    const zimage_session_params params = {.struct_size = sizeof params, .reference = 1};
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session *session = NULL;
    zimage_request request = {.struct_size = sizeof request, .prompt = "a red apple", .steps = 2};
    if (zimage_model_get_info(model, &info, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    if (info.size_multiple < 1 || info.vae_scale_factor < 1 || info.latent_channels < 1 || info.max_prompt_tokens < 0)
        zi_fuzz_fail("sizes of the model: %d, %d, %d, %d", info.size_multiple, info.vae_scale_factor,
                     info.latent_channels, info.max_prompt_tokens);
    if (zimage_session_open(model, &params, &session, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    if (zimage_request_check(session, &request, &error) != ZIMAGE_OK)
        zi_fuzz_note(error.message);
    request.width = request.height = info.size_multiple;
    request.guidance_scale = 3;
    request.memory_limit = (uint64_t)1 << 30;
    zi_fuzz_note(zimage_request_check(session, &request, &error) == ZIMAGE_OK ? "a model" : error.message);
    check_with_image(session, &request);
    zimage_session_close(session);
}

static int run(const uint8_t *data, size_t size)
{
    zi_fuzz_file files[ZI_FUZZ_FILES_MAX];
    size_t count = zi_fuzz_model_files(data, size, files);
    zi_fuzz_write_all(files, count);
    int result = zi_fuzz_write_weights(files, count) ? ZI_FUZZ_KEEP : ZI_FUZZ_DISCARD;
    const zi_fuzz_file *options = zi_fuzz_find(files, count, "@options");
    zimage_model_params params = {.struct_size = sizeof params};
    params.dequantize = options && options->size ? options->data[0] % 3 : 0;
    zi_fuzz_inspect(zi_fuzz_folder_path());
    zimage_model *model = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_status status = zimage_model_open(zi_fuzz_folder_path(), &params, &model, &error);
    if (status == ZIMAGE_OK)
        check_requests(model);
    else
        zi_fuzz_check_error(&error, status);
    zimage_model_close(model);
    return result;
}

const zi_fuzz_target zi_fuzz_folder = {
    .name = "folder", .prepare = zi_fuzz_load_base, .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_container)};
