/*
 * zimage.h - text-to-image with Z-Image models, in C.
 *
 * A complete program (examples/minimal.c is this text, built and run by the tests):
 *
 *   #include <stdio.h>
 *   #include <zimage.h>
 *
 *   static int on_progress(const zimage_progress *p, void *user)
 *   {
 *       (void)user;
 *       if (p->block == p->blocks)
 *           fprintf(stderr, "%s: step %d of %d\n", zimage_stage_name(p->stage), p->step, p->steps);
 *       return 0; // anything else cancels
 *   }
 *
 *   int main(int argc, char **argv)
 *   {
 *       if (argc != 4) {
 *           fprintf(stderr, "usage: minimal MODEL_FOLDER PROMPT OUT.png\n");
 *           return 2;
 *       }
 *       zimage_error error = ZIMAGE_ERROR_INIT;
 *       zimage_open_params params;
 *       zimage_open_params_init(&params);
 *
 *       zimage_context *context = NULL;
 *       if (zimage_open(argv[1], &params, &context, &error) != ZIMAGE_OK) {
 *           fprintf(stderr, "%s\n", error.message);
 *           return 1;
 *       }
 *       zimage_request request;
 *       zimage_request_init(context, &request);
 *       request.prompt = argv[2];
 *       request.seed = 42;
 *       request.progress = on_progress;
 *
 *       zimage_image *image = NULL;
 *       zimage_status status = zimage_generate(context, &request, &image, &error);
 *       if (status == ZIMAGE_OK)
 *           status = zimage_image_write_png(image, argv[3], NULL, 0, &error);
 *       if (status != ZIMAGE_OK)
 *           fprintf(stderr, "%s\n", error.message);
 *       zimage_image_free(image);
 *       zimage_close(context);
 *       return status == ZIMAGE_OK ? 0 : 1;
 *   }
 *
 * Threads: a context belongs to one thread at a time. Any number of contexts (of the same or of different models) may be
 * open at once and used from different threads at the same time: the library keeps no global state. Functions on
 * tokenizers and images may be called from any thread as long as nobody changes or frees the object meanwhile.
 *
 * Errors: every function that can fail returns a zimage_status and, if `error` is not NULL, fills it with one sentence
 * naming the file, the field and what was expected. The library never exits, aborts or prints.
 *
 * Ownership: what a function returns through a `**` argument belongs to the caller and is released with the function
 * named beside it. Pointers inside a request stay the caller's and need to live only until the call returns.
 *
 * ABI: every struct that the caller fills starts with `struct_size`, set by its _init function (or macro); later
 * versions only append fields.
 */
#ifndef ZIMAGE_H
#define ZIMAGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define ZIMAGE_API
#elif defined(__GNUC__)
#define ZIMAGE_API __attribute__((visibility("default")))
#else
#define ZIMAGE_API
#endif

#define ZIMAGE_VERSION_MAJOR 0
#define ZIMAGE_VERSION_MINOR 1
#define ZIMAGE_VERSION_PATCH 0

/* ---- errors ------------------------------------------------------------------------------------------------------ */

typedef enum zimage_status {
    ZIMAGE_OK = 0,
    ZIMAGE_ERROR_ARGUMENT = 1,    /* a parameter of the call is out of range */
    ZIMAGE_ERROR_FILE = 2,        /* a file can't be opened, read or written */
    ZIMAGE_ERROR_FORMAT = 3,      /* a file's content is malformed */
    ZIMAGE_ERROR_MODEL = 4,       /* well-formed files that do not make a model this library can run */
    ZIMAGE_ERROR_MEMORY = 5,      /* an allocation failed */
    ZIMAGE_ERROR_NOT_FINITE = 6,  /* a NaN or Inf left a block; the message names the first such block */
    ZIMAGE_ERROR_CANCELLED = 7,   /* the progress callback asked to stop */
    ZIMAGE_ERROR_UNSUPPORTED = 8, /* a valid model or request that this build can't run */
    ZIMAGE_ERROR_INTERNAL = 9,    /* a failed assumption of the library itself, e.g. a thread could not be started */
} zimage_status;

/* The caller owns the struct; pass NULL where the text is not wanted. */
typedef struct zimage_error {
    uint32_t struct_size;
    zimage_status status;
    char message[1536]; /* UTF-8, one sentence or a short list, no trailing newline */
} zimage_error;

#define ZIMAGE_ERROR_INIT                                                                                              \
    {                                                                                                                  \
        sizeof(zimage_error), ZIMAGE_OK,                                                                               \
        {                                                                                                              \
            0                                                                                                          \
        }                                                                                                              \
    }

/* Static text, never NULL: "ok", "invalid argument", ... */
ZIMAGE_API const char *zimage_status_name(zimage_status status);

/* Static text "MAJOR.MINOR.PATCH". */
ZIMAGE_API const char *zimage_version(void);

/* Frees memory that a function of this library returned as plain data (tokens, tensors, JSON text). NULL is fine. */
ZIMAGE_API void zimage_free(void *data);

/* ---- models ------------------------------------------------------------------------------------------------------ */

typedef struct zimage_context zimage_context;

typedef enum zimage_log_level { ZIMAGE_LOG_WARNING = 1, ZIMAGE_LOG_INFO = 2 } zimage_log_level;

/* What is done with weights that MLX's quantiser packed into groups of 2 to 8 bit numbers. */
typedef enum zimage_dequantize {
    ZIMAGE_DEQUANTIZE_NONE = 0, /* they stay packed in the mapped file and are unpacked where they are used */
    ZIMAGE_DEQUANTIZE_BF16 = 1, /* expanded once into memory, rounded to bfloat16: 2 bytes a number */
    ZIMAGE_DEQUANTIZE_F32 = 2,  /* the same without rounding: 4 bytes a number, results equal to NONE's */
} zimage_dequantize;

/* The numbers that matrix products are computed in. Stored weights are not changed; sums are always wide. */
typedef enum zimage_compute {
    ZIMAGE_COMPUTE_AUTO = 0, /* bfloat16 where the processor multiplies it clearly faster than float32, else float32 */
    ZIMAGE_COMPUTE_F32 = 1,
    ZIMAGE_COMPUTE_BF16 = 2, /* products of bfloat16: linear layers, attention, convolutions */
    ZIMAGE_COMPUTE_INT8 =
        3, /* linear layers in 8-bit integers, scaled for each token and each output; the rest as AUTO */
    ZIMAGE_COMPUTE_FP8 =
        4, /* cards of compute capability 9.0: linear layers in e4m3, scaled likewise; the rest as BF16 */
} zimage_compute;

typedef struct zimage_open_params {
    uint32_t struct_size;
    int32_t threads; /* 0 = as many as the process may use */
    /* Called with one line of text, from the thread that called the library. NULL = silent. */
    void (*log)(zimage_log_level level, const char *message, void *user);
    void *log_user;
    /* 1 = the plain C oracle: float32 with float64 sums, one thread, very slow. For checking. */
    int32_t reference;
    zimage_dequantize dequantize;
    zimage_compute compute; /* AUTO or F32 with reference */
    /* Processor features that may be used, a list such as "avx2,avx512" (zimage_devices names them); "generic" = none,
     * NULL = all there are. Results are the same bytes for any number of threads, not for other kernels. */
    const char *cpu_mask;
    /* Where to compute: "cpu" (NULL is the same), "cuda" or "cuda:K" for card K, or "auto": a card that zimage_devices
     * calls usable, else the processor. A card takes compute AUTO (bfloat16), BF16, F32 or
     * FP8, and no cpu_mask. */
    const char *device;
    /* Most bytes of a card's memory to take, 0 = what is free when a picture is begun: values, weights and the libraries'
     * workspace; the driver's own (a few hundred MiB) comes on top. Weights that do not fit are sent anew each time they
     * are read, ahead of their use. The picture is the same. What can't be done in it is refused before it starts, with
     * the numbers. Only with a card. */
    uint64_t device_memory;
} zimage_open_params;

ZIMAGE_API void zimage_open_params_init(zimage_open_params *params);

/*
 * Opens a model folder in diffusers' layout (model_index.json, transformer/, vae/, scheduler/, and unless only prompt
 * embeddings will be used text_encoder/ and tokenizer/) or one converted for MLX: the same folders with MLX's names and
 * packed weights, where model_index.json and scheduler/ may be absent (Z-Image-Turbo's schedule is used then). Weights
 * are memory-mapped and read in place: the files must stay unchanged until zimage_close. params may be NULL. *context
 * is released with zimage_close.
 */
ZIMAGE_API zimage_status zimage_open(const char *model_path, const zimage_open_params *params, zimage_context **context,
                                     zimage_error *error);
ZIMAGE_API void zimage_close(zimage_context *context);

/*
 * What this machine can compute with, as JSON: {"cpu": {"model", "threads", "features": [name], "kernels": [{"name",
 * "usable", "gops"}]}, "cuda": {"devices": [{"device", "name", "capability", "bytes", "usable", "fault"}], "fault"}}: gops
 * is 10^9 operations a second of one thread, measured in the call (a few milliseconds); a fault is null or a sentence that
 * says why a card, or any, can't be used.
 * cpu_mask as in zimage_open_params. *json is released with zimage_free.
 */
ZIMAGE_API zimage_status zimage_devices(const char *cpu_mask, char **json, zimage_error *error);

/*
 * Whether this machine computes rightly: every kernel of every kind that cpu_mask (as in zimage_open_params) allows
 * against plain C, and a tiny picture by each, without any model; a few seconds. *json: {"passed", "kernels": [{"name",
 * "usable", "passed", "max_error", "checks": [{"name", "passed", "max_error"}], "picture": {"passed", "mean_difference",
 * "largest_difference"}, "faults": [text]}], "seconds"}; the first of the kernels is "reference", plain C itself, whose
 * picture is compared with a stored one; what was not checked is null. Wrong results are no error: ZIMAGE_OK with "passed"
 * false. log (may be NULL) is called before each set of kernels, so that one that ends the process has a name. *json is
 * released with zimage_free.
 */
ZIMAGE_API zimage_status zimage_selftest(const char *cpu_mask,
                                         void (*log)(zimage_log_level level, const char *message, void *user),
                                         void *log_user, char **json, zimage_error *error);

/* Facts of an open model that a caller needs to fill a request. */
typedef struct zimage_model_info {
    uint32_t struct_size;
    int32_t has_text_encoder; /* 0: only requests with prompt_embeds */
    int32_t latent_channels;  /* C of latents [1, C, height / scale, width / scale] */
    int32_t vae_scale_factor; /* image pixels per latent, each way */
    int32_t size_multiple;    /* width and height must be multiples of this */
    int32_t max_width;        /* limits of the transformer's RoPE tables, in pixels */
    int32_t max_height;
    int32_t prompt_embeds_dim; /* width of the text features */
    int32_t max_prompt_tokens; /* 512; longer prompts are truncated with a warning */
    int32_t default_width;
    int32_t default_height;
    int32_t default_steps;
} zimage_model_info;

ZIMAGE_API void zimage_get_model_info(const zimage_context *context, zimage_model_info *info);

/*
 * Describes a model folder or a single safetensors file as JSON: {"path", "class", "components": [{"name", "class",
 * "config": {...}, "parameters", "bytes", "tensors": [{"name", "dtype", "shape", "bytes", "file"}]}]}.
 * Reads headers only. "dtype" is the file's own word, or "U4 group 32" for a matrix packed by MLX's quantiser: then
 * "shape" is the matrix's own. *json is released with zimage_free.
 */
ZIMAGE_API zimage_status zimage_inspect(const char *path, char **json, zimage_error *error);

/* ---- generating -------------------------------------------------------------------------------------------------- */

typedef enum zimage_rng {
    ZIMAGE_RNG_TORCH_CPU = 0,  /* torch.Generator("cpu"), the default */
    ZIMAGE_RNG_TORCH_CUDA = 1, /* torch.Generator("cuda"), independent of the card's size */
    ZIMAGE_RNG_MLX = 2,        /* mlx.core.random.normal(key = key(seed)) */
    ZIMAGE_RNG_NUMPY = 3,      /* numpy.random.seed + randn */
} zimage_rng;

typedef enum zimage_stage {
    ZIMAGE_STAGE_TEXT = 0,    /* text encoder */
    ZIMAGE_STAGE_CAPTION = 1, /* caption embedder and refiner, once per prompt */
    ZIMAGE_STAGE_DENOISE = 2, /* transformer evaluations */
    ZIMAGE_STAGE_DECODE = 3,  /* VAE decoder */
    ZIMAGE_STAGES = 4,
} zimage_stage;

ZIMAGE_API const char *zimage_stage_name(zimage_stage stage);

typedef struct zimage_progress {
    uint32_t struct_size;
    zimage_stage stage;
    int32_t step;  /* 1-based evaluation in ZIMAGE_STAGE_DENOISE, else 1 */
    int32_t steps; /* evaluations in all, else 1 */
    int32_t block; /* blocks of this step done so far, 0 .. blocks */
    int32_t blocks;
    double fraction; /* of the whole request, 0 .. 1, by counted floating-point operations */
    double elapsed;  /* seconds since zimage_generate was called */
    /* With request.preview: at the end of each step a small RGB picture of the expected result; else NULL. */
    const uint8_t *preview; /* [preview_height][preview_width][3], valid during the call */
    int32_t preview_width;
    int32_t preview_height;
} zimage_progress;

/* Called after every block, from the thread that called zimage_generate. Return non-zero to cancel. */
typedef int (*zimage_progress_fn)(const zimage_progress *progress, void *user);

typedef struct zimage_request {
    uint32_t struct_size;
    const char *prompt;          /* UTF-8, zero-terminated; may be NULL only with prompt_embeds */
    const char *negative_prompt; /* used when guidance_scale > 0; NULL = "" */
    int32_t width;               /* pixels, multiples of size_multiple */
    int32_t height;
    int32_t steps; /* evaluations of the transformer, 1 .. 1000 */
    uint64_t seed;
    zimage_rng rng;
    float guidance_scale;    /* diffusers' convention: prediction = pos + g (pos - neg); 0 = none */
    double cfg_truncation;   /* no guidance once 1 - sigma exceeds this; 1 = always (diffusers' default) */
    float cfg_normalization; /* limit of |prediction| / |pos|; 0 = none */
    /* Text features instead of a prompt: row-major [prompt_tokens, prompt_embeds_dim]. */
    const float *prompt_embeds;
    int32_t prompt_tokens;
    const float *negative_prompt_embeds; /* same, for guidance without a text encoder */
    int32_t negative_prompt_tokens;
    /* Initial noise instead of seed: row-major [1, latent_channels, height / scale, width / scale]. */
    const float *latents;
    int32_t preview; /* 1 = progress carries a preview after each step */
    zimage_progress_fn progress;
    void *progress_user;
    /* Bytes of memory the process may take, 0 = no limit. The VAE then works in bands as narrow as it must, each
     * network's weights are given back once it has done its work, and what still does not fit is refused before it
     * starts, with the numbers. The picture is the same. How memory is counted: see zimage_plan. Not on a card:
     * see zimage_open_params' device_memory. */
    uint64_t memory_limit;
    /* 1 = each network's weights are given back once it has done its work, also without a memory_limit: for the last
     * picture of a context. 0 (default) = they stay for the next request. */
    int32_t release_weights;
} zimage_request;

/* Fills defaults: the model's own size and steps, seed 0, no guidance. context may not be NULL. */
ZIMAGE_API void zimage_request_init(const zimage_context *context, zimage_request *request);

/* What zimage_generate will do for a request. */
typedef struct zimage_stage_plan {
    double flops;              /* floating-point operations, all prompts and steps */
    double seconds;            /* predicted */
    uint64_t activation_bytes; /* most at once, of the networks' values and host buffers */
    uint64_t weight_bytes;     /* stored weights that the stage reads */
    uint64_t peak_bytes;       /* of the process in memory at the stage's peak */
} zimage_stage_plan;

/* How a card's memory is divided for a request; all 0 where a processor computes. */
typedef struct zimage_device_plan {
    uint64_t limit_bytes;     /* that may be taken: device_memory, or what is free */
    uint64_t total_bytes;     /* that is taken: the sum of the next four */
    uint64_t value_bytes;     /* most at once, of the networks' values */
    uint64_t workspace_bytes; /* of libraries */
    uint64_t resident_bytes;  /* weights that stay */
    uint64_t ring_bytes;      /* where the other weights pass through */
    uint64_t step_bytes;      /* weights that are sent at each step, because they do not stay */
    uint64_t least_bytes;     /* the smallest device_memory that this request can be given */
} zimage_device_plan;

typedef struct zimage_plan_result {
    uint32_t struct_size;
    int32_t band_rows; /* of the VAE; 0 = as it chooses by size */
    zimage_stage_plan stages[ZIMAGE_STAGES];
    double seconds;
    uint64_t peak_bytes;  /* the largest of the stages' */
    uint64_t least_bytes; /* the smallest memory_limit that this request can be given */
    zimage_device_plan device;
} zimage_plan_result;

/*
 * Counts a request's operations and memory by running the networks' own code without data, and predicts seconds from a
 * quick measurement of this machine (kept in $XDG_CACHE_HOME/zimage or ~/.cache/zimage). Fails as zimage_generate would,
 * also for a request that does not fit its memory_limit.
 *
 * Memory is resident memory as the system counts it (ru_maxrss): weights are pages of mapped files, which the system may
 * evict when it is short, but a stage reads all of its own, most of them at every step, so they count in full. Without a
 * memory_limit or release_weights those of earlier stages count, too. Of a card's memory `device` tells.
 */
ZIMAGE_API zimage_status zimage_plan(zimage_context *context, const zimage_request *request, zimage_plan_result *result,
                                     zimage_error *error);

typedef struct zimage_image zimage_image;

/* Makes one picture. *image is released with zimage_image_free; on failure it is NULL. */
ZIMAGE_API zimage_status zimage_generate(zimage_context *context, const zimage_request *request, zimage_image **image,
                                         zimage_error *error);

ZIMAGE_API int32_t zimage_image_width(const zimage_image *image);
ZIMAGE_API int32_t zimage_image_height(const zimage_image *image);
ZIMAGE_API const uint8_t *zimage_image_pixels(const zimage_image *image); /* [height][width][3] RGB, owned by image */
/* Final latents [channels, rows, columns] as they entered the VAE's scaling; owned by image. */
ZIMAGE_API const float *zimage_image_latents(const zimage_image *image, int64_t shape[3]);
ZIMAGE_API double zimage_image_seconds(const zimage_image *image, zimage_stage stage);
ZIMAGE_API int32_t zimage_image_prompt_tokens(const zimage_image *image); /* tokens the transformer saw */
/* How the card's memory was divided; owned by image. */
ZIMAGE_API const zimage_device_plan *zimage_image_device_plan(const zimage_image *image);
ZIMAGE_API void zimage_image_free(zimage_image *image);

typedef struct zimage_text {
    const char *key;   /* PNG keyword, 1 .. 79 Latin-1 characters */
    const char *value; /* UTF-8 */
} zimage_text;

/* Writes a PNG with text chunks: to a temporary name beside `path`, then renamed, so a reader never sees half a file. */
ZIMAGE_API zimage_status zimage_image_write_png(const zimage_image *image, const char *path, const zimage_text *texts,
                                                size_t text_count, zimage_error *error);

/* ---- measuring ----------------------------------------------------------------------------------------------------- */

typedef enum zimage_bench_stage {
    ZIMAGE_BENCH_TEXT_ENCODER = 0,
    ZIMAGE_BENCH_TRANSFORMER_STEP = 1, /* one evaluation */
    ZIMAGE_BENCH_VAE_DECODE = 2,
    ZIMAGE_BENCH_LOAD = 3, /* opening the model, or making the synthetic one */
    ZIMAGE_BENCH_STAGES = 4,
} zimage_bench_stage;

/* "text_encoder", "transformer_step", "vae_decode", "load" */
ZIMAGE_API const char *zimage_bench_stage_name(zimage_bench_stage stage);

typedef struct zimage_bench_params {
    uint32_t struct_size;
    /* Instead of a model folder: "z-image-turbo", its published sizes with random weights made in memory, one network at
     * a time; or "small", a toy of the same kind. */
    const char *synthetic;
    const char *format;     /* of synthetic weights: "bf16" (default), "f16", "f32", "q4", "q8" (groups of 32) */
    int32_t width, height;  /* pixels; 0 = the model's own (not with synthetic) */
    int32_t tokens;         /* of the caption, default 64 */
    int32_t layers;         /* at most so many layers of text encoder and transformer; 0 = all */
    int32_t repeats;        /* of each stage, default 3 */
    int32_t threads;        /* 0 = as many as the process may use */
    zimage_compute compute; /* these three as in zimage_open_params */
    const char *cpu_mask;
    const char *device;
    void (*log)(zimage_log_level level, const char *message, void *user); /* a line for each run; NULL = silent */
    void *log_user;
    uint64_t device_memory; /* as in zimage_open_params */
} zimage_bench_params;

ZIMAGE_API void zimage_bench_params_init(zimage_bench_params *params);

/* Negative: not measured (no text encoder in the model, oneDNN not installed, no operations while loading). */
typedef struct zimage_bench_figures {
    double seconds; /* median of the repeats */
    double tflops;  /* 10^12 floating-point operations a second, counted by running the same model code without data */
    /* Of the linear layers' instruction in registers, measured before and after each repeat and up to ten times a second
     * between its blocks (their harmonic mean; the median of the repeats); on a card of its largest matrix product. */
    double percent_of_peak;
    /* Of oneDNN's matrix product on the stage's main sizes, weighted, in the same run; both as shares of the peak beside
     * them, so that other work on the machine does not favour either. */
    double percent_of_onednn;
    uint64_t planned_bytes; /* activations and weights of the stage, by the plan */
} zimage_bench_figures;

typedef struct zimage_bench_result {
    uint32_t struct_size;
    zimage_bench_figures stages[ZIMAGE_BENCH_STAGES];
    uint64_t peak_rss_bytes;    /* of the process, mapped weights included; before oneDNN was measured */
    uint64_t peak_device_bytes; /* of a card's memory in use behind the stages' first runs, by whomever; 0: no card */
    double peak_tflops;         /* of what percent_of_peak is taken of, all threads */
    char tiers[80];             /* the kernels used: "avx2", "avx512, int8 amx, bf16 amx", ... */
    char onednn[16];            /* its version; empty: not installed */
    int32_t threads, width, height, tokens;
    int32_t transformer_layers, text_layers;        /* that were timed; 0: no such network */
    zimage_device_plan device[ZIMAGE_BENCH_STAGES]; /* of each stage by itself; a stage is one step */
} zimage_bench_result;

/* Times the stages of the model folder model_path, or with params->synthetic (then model_path is NULL) of random weights.
 * No file is written. */
ZIMAGE_API zimage_status zimage_bench(const char *model_path, const zimage_bench_params *params,
                                      zimage_bench_result *result, zimage_error *error);

/* ---- tensors in safetensors files (embeddings, latents) ----------------------------------------------------------- */

/* Reads tensor `name` (f32, f16 or bf16) as float32. shape holds up to 4 sizes. *data is released with zimage_free. */
ZIMAGE_API zimage_status zimage_tensor_read(const char *path, const char *name, float **data, int64_t shape[4],
                                            int32_t *dimensions, zimage_error *error);
/* Writes one float32 tensor, atomically as above. */
ZIMAGE_API zimage_status zimage_tensor_write(const char *path, const char *name, const float *data,
                                             const int64_t *shape, int32_t dimensions, zimage_error *error);

/* ---- tokenizer ---------------------------------------------------------------------------------------------------- */

typedef struct zimage_tokenizer zimage_tokenizer;

typedef enum zimage_template {
    ZIMAGE_TEMPLATE_NONE = 0,
    ZIMAGE_TEMPLATE_Z_IMAGE = 1,
    ZIMAGE_TEMPLATE_KLEIN = 2,
} zimage_template;

/* path: a tokenizer.json, the folder that holds it, or a model folder with tokenizer/. Released with _close. */
ZIMAGE_API zimage_status zimage_tokenizer_open(const char *path, zimage_tokenizer **tokenizer, zimage_error *error);
ZIMAGE_API void zimage_tokenizer_close(zimage_tokenizer *tokenizer);
/* text: UTF-8 of `length` bytes (zero bytes allowed). No truncation. *ids is released with zimage_free. */
ZIMAGE_API zimage_status zimage_tokenizer_encode(const zimage_tokenizer *tokenizer, zimage_template template_kind,
                                                 const char *text, size_t length, int32_t **ids, size_t *count,
                                                 zimage_error *error);

#ifdef __cplusplus
}
#endif

#endif
