/* The fields of all dialects: the only place where one is described. */
#include "request.h"

#include "shared/preview.h"

#define ON(name)    (1u << DIALECT_##name)
#define OF_GENERATE (ON(GENERATE) | ON(JOB))
#define OF_EDIT     (ON(EDIT) | ON(JOB))
#define OPENAI      (ON(GENERATE) | ON(EDIT) | ON(JOB))
#define OPENAI_ONLY (ON(GENERATE) | ON(EDIT))
#define SDAPI       (ON(TXT2IMG) | ON(IMG2IMG))
#define EVERYWHERE  (OPENAI | SDAPI)

#define PROMPT_MAX   32000
#define USER_MAX     256
#define MODEL_MAX    256
#define SIDE_MAX     16384
#define IMAGES_MAX   100 /* --max-n says less */
#define STEPS_MAX    1000
#define PERCENT      100
#define GUIDANCE_MAX 50

/* The place of a member, which must have the type that the kind stores. */
#define IS_TYPE(member, type)    _Generic(((serve_request *)0)->member, type : 1)
#define AT(member, type)         .offset = offsetof(serve_request, member) + 0 * IS_TYPE(member, type)
#define TEXT(member, from, to)   .kind = FIELD_TEXT, AT(member, char *), .low = from, .high = to
#define INT(member, from, to)    .kind = FIELD_INT, AT(member, int64_t), .low = from, .high = to
#define SEED(member)             .kind = FIELD_SEED, AT(member, uint64_t)
#define NUMBER(member, from, to) .kind = FIELD_NUMBER, AT(member, double), .low = from, .high = to
#define BOOL(member, otherwise)  .kind = FIELD_BOOL, AT(member, int), .fallback = otherwise
#define WORD(member, list)       .kind = FIELD_WORD, AT(member, int), .words = list
#define IMAGES(member)           .kind = FIELD_IMAGES, .offset = offsetof(serve_request, member)
#define MASK(member)             .kind = FIELD_MASK, .offset = offsetof(serve_request, member)

const char *const serve_format_words[] = {"png", "jpeg", "webp", NULL};
const char *const serve_rng_words[] = {"torch-cpu", "torch-cuda", "mlx", "numpy", NULL};
const char *const serve_quality_words[] = {"auto", "low", "medium", "high", "standard", "hd", NULL};
static const char *const more_quality[] = {"xhigh", "max", NULL};
static const char *const more_formats[] = {"gif", "svg", NULL};
static const char *const delivery[] = {"b64_json", "url", NULL};
static const char *const background[] = {"auto", "opaque", NULL};
static const char *const transparent[] = {"transparent", NULL};
static const char *const generators[] = {"cpu", "cuda", NULL}; /* torch's, as rng names them */
static const char *const priorities[] = {"interactive", "batch", NULL};

const request_field field_table[] = {
    /* ---- what the image shows ---- */
    {"prompt", NULL, "What the image shows.", TEXT(prompt, 1, PROMPT_MAX), .dialects = EVERYWHERE, .is_required = 1},
    {"negative_prompt", NULL, "What guidance leads away from; needs a guidance above 0.",
     TEXT(negative_prompt, 0, PROMPT_MAX), .dialects = EVERYWHERE},
    {"model", NULL, "The model's id; empty: the default model.", TEXT(model, 0, MODEL_MAX), .dialects = OPENAI},
    {"sd_model_checkpoint", NULL, "The model's title.", TEXT(model, 0, MODEL_MAX), .dialects = SDAPI | ON(OPTIONS)},
    {"override_settings", NULL, "Settings of this request: sd_model_checkpoint.", .kind = FIELD_OBJECT,
     .dialects = SDAPI},
    {"image", "image[]", "Input images: PNG, JPEG or WebP.", IMAGES(images), .dialects = OF_EDIT},
    {"init_images", NULL, "Input images in base64: PNG, JPEG or WebP.", IMAGES(images), .dialects = ON(IMG2IMG),
     .is_required = 1},
    {"mask", NULL,
     "What is repainted: what is transparent, or in an image without transparency what is white. As large as the "
     "image.",
     MASK(mask), .dialects = OF_EDIT | ON(IMG2IMG)},
    {"composite", NULL, "true: outside of the mask the input's own pixels stay; near its edge they are blended.",
     BOOL(composite, 0), .dialects = OF_EDIT},
    {"inpainting_mask_invert", NULL, "1: what is black in the mask is repainted.", BOOL(invert_mask, 0),
     .dialects = ON(IMG2IMG)},
    {"strength", NULL, "How much a start image changes.", NUMBER(strength, 0, 1), .dialects = OF_EDIT},
    {"denoising_strength", NULL, "How much a start image changes.", NUMBER(strength, 0, 1), .dialects = SDAPI},
    /* ---- how many, how large ---- */
    {"n", NULL, "How many images; their seeds count up.", INT(n, 1, IMAGES_MAX), .dialects = OPENAI, .fallback = 1},
    {"batch_size", NULL, "How many images; their seeds count up.", INT(batch_size, 1, IMAGES_MAX), .dialects = SDAPI,
     .fallback = 1},
    {"n_iter", NULL, "How many times batch_size images.", INT(n_iter, 1, IMAGES_MAX), .dialects = SDAPI, .fallback = 1},
    {"size", NULL, "Width and height such as 1024x768, or auto: the first image's, or the model's own.",
     TEXT(size, 1, 32), .dialects = OPENAI},
    {"width", NULL, "Width in pixels.", INT(width, 1, SIDE_MAX), .dialects = SDAPI},
    {"height", NULL, "Height in pixels.", INT(height, 1, SIDE_MAX), .dialects = SDAPI},
    /* ---- how it is computed ---- */
    {"quality", NULL,
     "auto, medium and standard: the model's steps; low: half of them; high and hd: twice, if the model is not "
     "distilled. steps decides if it is given.",
     WORD(quality, serve_quality_words), .refused = more_quality, .dialects = OPENAI},
    {"steps", "num_inference_steps step", "Denoising steps.", INT(steps, 1, STEPS_MAX), .dialects = EVERYWHERE},
    {"guidance", "guidance_scale", "Guidance scale as in diffusers, 0: none.", NUMBER(guidance, 0, GUIDANCE_MAX),
     .dialects = OPENAI},
    {"cfg_scale", NULL, "Guidance scale where 1 is none; a distilled model ignores it.",
     NUMBER(cfg_scale, 0, GUIDANCE_MAX), .dialects = SDAPI},
    {"seed", NULL, "Seed of the first image's noise, up to 2^64 - 1, as a text above 2^63 - 1; -1: a random one.",
     SEED(seed), .dialects = EVERYWHERE},
    {"rng", NULL, "The library whose noise a seed means.", WORD(rng, serve_rng_words), .dialects = OPENAI},
    {"generator_device", NULL, "The same: torch's generator on cpu or cuda.", WORD(rng, generators),
     .dialects = OPENAI},
    {"priority", NULL, "batch: after all requests that are interactive.", WORD(priority, priorities),
     .dialects = OPENAI},
    /* ---- what the answer is ---- */
    {"response_format", NULL, "b64_json: the images themselves; url: where they can be fetched for a while.",
     WORD(response_format, delivery), .dialects = OPENAI_ONLY},
    {"output_format", NULL, "Format of the images.", WORD(format, serve_format_words), .refused = more_formats,
     .dialects = OPENAI},
    {"output_compression", NULL, "Quality of a JPEG or WebP image.", INT(compression, 0, PERCENT), .dialects = OPENAI},
    {"background", NULL, "Images are always opaque.", WORD(background, background), .refused = transparent,
     .dialects = OPENAI_ONLY},
    {"stream", NULL, "1: events as they happen, as a text/event-stream.", BOOL(stream, 0), .dialects = OPENAI_ONLY},
    {"partial_images", NULL, "Previews of each image in the stream.", INT(partial_images, 0, PREVIEW_PARTIALS_MAX),
     .dialects = OPENAI_ONLY},
    {"progress", NULL, "1: the stream has zimage.progress events, too.", BOOL(progress, 0), .dialects = OPENAI_ONLY},
    {"embed_recipe", "embed_image_metadata", "1: the image's file holds what is needed to make it again.",
     BOOL(embed_recipe, 1), .dialects = OPENAI},
    {"send_images", NULL, "0: the answer holds no images.", BOOL(send_images, 1), .dialects = SDAPI},
    {"user", "safety_identifier", "Who asks: callers of one key take turns.", TEXT(user, 0, USER_MAX),
     .dialects = OPENAI},
    /* ---- accepted, because clients send them ---- */
    {"moderation", NULL, "Nothing is moderated.", .kind = FIELD_IGNORED, .dialects = OPENAI},
    {"style", NULL, "A field of older models.", .kind = FIELD_IGNORED, .dialects = OF_GENERATE},
    {"input_fidelity", NULL, "A field of other models.", .kind = FIELD_IGNORED, .dialects = OF_EDIT},
    /* ---- known, and refused ---- */
    {"complexity", NULL, "images are not drawn as SVG", .kind = FIELD_REFUSED, .dialects = OPENAI},
    {"svg", NULL, "images are not drawn as SVG", .kind = FIELD_REFUSED, .dialects = OPENAI},
    {"frame_count", NULL, "images do not move", .kind = FIELD_REFUSED, .dialects = OPENAI},
    {"frame_duration_ms", NULL, "images do not move", .kind = FIELD_REFUSED, .dialects = OPENAI},
    {"markup", NULL, "use a mask", .kind = FIELD_REFUSED, .dialects = OF_EDIT},
    {"url", "image_url url[]", "the server fetches nothing; send the image itself", .kind = FIELD_REFUSED,
     .dialects = OPENAI},
    {"loras", NULL, "there are no LoRAs yet", .kind = FIELD_REFUSED, .dialects = OPENAI},
};

const size_t field_table_size = sizeof field_table / sizeof *field_table;

_Static_assert(sizeof field_table / sizeof *field_table <= ROW_SET_ROWS,
               "serve_request.given has a bit for each field");
