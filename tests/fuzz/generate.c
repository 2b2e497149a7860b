/*
 * Images by toy models from strangers: odd configurations, and weights that are changed, packed or not finite. The file
 * "@request" says what is asked for, a byte each, then the prompt. Two flags add an input image and a mask.
 */
#include <string.h>

#include "fuzz.h"
#include "zimage.h"

#define MOST_SIDE   256 /* pixels; larger images take too long */
#define MOST_PIXELS 16384
#define INPUT_SIDE  64 /* pixels; the least that FLUX.2-klein takes */
#define FLAG_IMAGE  64
#define FLAG_MASK   128

enum { COLUMNS, ROWS, STEPS, COMPUTE, MASK, GUIDANCE, FLAGS, RNG, DEQUANTIZE, BYTES };

static int on_progress(const zimage_progress *progress, void *user)
{
    if (!(progress->fraction >= 0 && progress->fraction <= 1) || progress->block > progress->blocks)
        zi_fuzz_fail("progress: %g, block %d of %d", progress->fraction, progress->block, progress->blocks);
    return 0;
}

/* 0: the image would be too large. */
static int set_size(const zimage_model *model, const uint8_t *bytes, zimage_request *request)
{
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zimage_model_get_info(model, &info, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    if (info.size_multiple > MOST_SIDE)
        return 0;
    request->width = info.size_multiple * (1 + bytes[COLUMNS] % 4);
    request->height = info.size_multiple * (1 + bytes[ROWS] % 4);
    return request->width <= MOST_SIDE && request->height <= MOST_SIDE &&
           request->width * request->height <= MOST_PIXELS;
}

static zimage_request request_of(const uint8_t *bytes)
{
    static const float guidance[] = {0, 0, 0, 3, 1e-30f, 1000, 0.5f, 5};
    int flags = bytes[FLAGS];
    return (zimage_request){
        .struct_size = sizeof(zimage_request),
        .preview = flags & 1,
        .steps = 1 + bytes[STEPS] % 3,
        .guidance_scale = guidance[bytes[GUIDANCE] % 8],
        .negative_prompt = flags & 2 ? "blurry" : NULL,
        .cfg_normalization = flags & 4 ? 1 : 0,
        .cfg_truncation = flags & 8 ? 0.5 : 0,
        .release_weights = flags >> 4 & 1,
        .memory_limit = flags & 32 ? (uint64_t)1 << 30 : 0,
        .rng = (zimage_rng)(bytes[RNG] % 4),
        .seed = bytes[RNG],
        .progress = on_progress,
    };
}

static void check_image(const zimage_image *image, const zimage_request *request)
{
    unsigned sum = 0;
    if (zimage_image_width(image) != request->width || zimage_image_height(image) != request->height)
        zi_fuzz_fail("an image of another size");
    for (int32_t i = 0; i < 3 * request->width * request->height; i++)
        sum += zimage_image_pixels(image)[i];
    if (sum == UINT32_MAX)
        zi_fuzz_fail("a sum that is as good as impossible");
}

static void generate(zimage_model *model, const uint8_t *bytes, zimage_request *request)
{
    static const char *const masks[] = {NULL, NULL, NULL, "generic", "avx2", "avx2,avx512"};
    static const zimage_compute computes[] = {ZIMAGE_COMPUTE_F32, ZIMAGE_COMPUTE_BF16, ZIMAGE_COMPUTE_INT8,
                                              ZIMAGE_COMPUTE_AUTO};
    const zimage_session_params params = {.struct_size = sizeof params,
                                          .threads = 1,
                                          .compute = computes[bytes[COMPUTE] % 4],
                                          .cpu_mask = masks[bytes[MASK] % 6]};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session *session = NULL;
    zimage_image *image = NULL;
    if (zimage_session_open(model, &params, &session, &error) != ZIMAGE_OK) {
        zi_fuzz_note(error.message); /* a mask that this CPU does not have */
        return;
    }
    zimage_status checked = zimage_request_check(session, request, &error);
    zimage_status status = zimage_generate(session, request, &image, &error);
    if (checked != ZIMAGE_OK && status == ZIMAGE_OK)
        zi_fuzz_fail("refused before, and computed now: %s", error.message);
    if (status == ZIMAGE_OK)
        check_image(image, request);
    else if (!error.message[0] || image)
        zi_fuzz_fail("status %d without a message, or with an image", status);
    zi_fuzz_note(status == ZIMAGE_OK ? "an image" : error.message);
    zimage_image_free(image);
    zimage_session_close(session);
}

/* Half white, half grey: an image and its own mask. The caller frees it. */
static zimage_image *make_input(void)
{
    static uint8_t pixels[INPUT_SIDE * INPUT_SIDE * 3];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    memset(pixels, 255, sizeof pixels / 2);
    memset(pixels + sizeof pixels / 2, 100, sizeof pixels / 2);
    if (zimage_image_from_pixels(pixels, INPUT_SIDE, INPUT_SIDE, (size_t)INPUT_SIDE * 3, 3, &image, &error) !=
        ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    return image;
}

static int run(const uint8_t *data, size_t size)
{
    zi_fuzz_file files[ZI_FUZZ_FILES_MAX];
    char prompt[128] = "";
    size_t count = zi_fuzz_model_files(data, size, files);
    const zi_fuzz_file *asked = zi_fuzz_find(files, count, "@request");
    zi_fuzz_write_all(files, count);
    if (!asked || asked->size < BYTES || !zi_fuzz_write_weights(files, count))
        return ZI_FUZZ_DISCARD;
    size_t length = asked->size - BYTES < sizeof prompt ? asked->size - BYTES : sizeof prompt - 1;
    memcpy(prompt, asked->data + BYTES, length);
    zimage_request request = request_of(asked->data);
    request.prompt = prompt;
    if (zi_fuzz_is_klein(files, count))
        request.steps = 1; /* each reads 512 tokens of text, which takes long with libFuzzer's counters */
    zimage_model *model = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_model_params params = {.struct_size = sizeof params, .dequantize = asked->data[DEQUANTIZE] % 3};
    if (zimage_model_open(zi_fuzz_folder_path(), &params, &model, &error) != ZIMAGE_OK) {
        zi_fuzz_note(error.message);
        return ZI_FUZZ_KEEP;
    }
    zimage_image *input = make_input();
    const zimage_image *images[] = {input};
    int small = set_size(model, asked->data, &request), flags = asked->data[FLAGS];
    request.images = images;
    request.image_count = flags & FLAG_IMAGE ? 1 : 0;
    request.mask = flags & FLAG_MASK ? input : NULL;
    if (small)
        generate(model, asked->data, &request);
    zimage_image_free(input);
    zimage_model_close(model);
    return small ? ZI_FUZZ_KEEP : ZI_FUZZ_DISCARD;
}

const zi_fuzz_target zi_fuzz_generate = {
    .name = "generate", .prepare = zi_fuzz_load_base, .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_container)};
