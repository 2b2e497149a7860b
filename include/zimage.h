/*
 * zimage.h - text-to-image with diffusion models, in C. Version 0.2.
 *
 * A complete program (examples/minimal.c is this text; the tests build and run it):
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
 *       zimage_model *model = NULL;
 *       zimage_session *session = NULL;
 *       zimage_image *image = NULL;
 *       zimage_request request = {.struct_size = sizeof request};
 *       request.prompt = argv[2];
 *       request.seed = 42;
 *       request.progress = on_progress;
 *
 *       zimage_status status = zimage_model_open(argv[1], NULL, &model, &error);
 *       if (status == ZIMAGE_OK)
 *           status = zimage_session_open(model, NULL, &session, &error);
 *       if (status == ZIMAGE_OK)
 *           status = zimage_generate(session, &request, &image, &error);
 *       if (status == ZIMAGE_OK)
 *           status = zimage_image_write(image, argv[3], NULL, 0, &error);
 *       if (status != ZIMAGE_OK)
 *           fprintf(stderr, "%s\n", error.message);
 *       zimage_image_free(image);
 *       zimage_session_close(session);
 *       zimage_model_close(model);
 *       return status == ZIMAGE_OK ? 0 : 1;
 *   }
 *
 * Models and sessions. A model is one opened folder: configurations, tokenizer, mapped weights. It never changes.
 * A session makes images with a model. It has its own threads or a GPU, its own working memory, and one job at a time.
 * It keeps what the text encoder made of its last image's prompts, so an image with the same prompt is made sooner.
 *
 * Threads. Any number of threads may use one model at the same time, each through a session of its own. The weights are
 * in host memory once. Each session has its own threads: with N busy sessions give each a part of the CPU's cores. On a
 * GPU sessions of one compute type share weights (zimage_session_params.device_memory); the rest is each session's own.
 * One thread at a time may use a session. Functions on tokenizers, images, plans and lists may be called from any
 * thread while no thread frees the object. The library keeps no global state but three lists: of mapped files and of
 * temporary files, for handlers of signals, and of weight files that models share.
 * A thread needs 256 KiB of stack to open, plan and generate; with less these calls fail.
 *
 * Errors. Every function that can fail returns a zimage_status. If it fails and `error` is not NULL, it writes one
 * sentence there that names the file, the field and what was expected. A zimage_error starts with ZIMAGE_ERROR_INIT and
 * serves any number of calls of one thread; a call that succeeds does not change it. The library never exits, aborts or
 * prints.
 *
 * Ownership. What a function returns through a `**` argument belongs to the caller, who releases it with the function
 * named beside it. On failure that pointer is NULL. Every function that frees or closes accepts NULL. Images, plans and
 * lists stay valid after their session and model are closed. Pointers inside parameters stay the caller's; they need to
 * live only until the call returns.
 *
 * Files. The library writes only to paths that the caller gives. A file appears under its name when it is complete.
 * Until then it has no name, or, where the system or the file system can't do that, a temporary one in the same folder,
 * which zimage_remove_temporary_files removes. A program with a limit of file sizes should ignore SIGXFSZ, and one that
 * writes images to pipes SIGPIPE: the write then fails with an error instead of ending the process.
 *
 * Weights are mapped files. If another program makes such a file shorter, or if its disk fails, reading the lost part
 * raises SIGBUS, which ends the process unless the program handles it: see zimage_replace_lost_pages.
 *
 * ABI. A struct that starts with `struct_size` may grow in a later version. The caller sets struct_size to sizeof the
 * struct, also in a struct that a function fills, and every other field to zero or to a value: a field that is zero
 * means its default. `zimage_request request = {.struct_size = sizeof request};` is complete. A program that was built
 * against 0.2.x runs with every libzimage.so.0.2, older or newer. An older library refuses a struct with a field set
 * that it does not know. A callback may get an older, shorter struct: its struct_size says how much of it is there. The
 * experimental part at the end of this header may change at any time.
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
#define ZIMAGE_VERSION_MINOR 2
#define ZIMAGE_VERSION_PATCH 0

/* ---- errors, names, memory --------------------------------------------------------------------------------------- */

typedef enum zimage_status {
    ZIMAGE_OK = 0,
    ZIMAGE_ERROR_ARGUMENT = 1,    /* a parameter of the call is out of range */
    ZIMAGE_ERROR_FILE = 2,        /* a file can't be opened, read or written */
    ZIMAGE_ERROR_FORMAT = 3,      /* the content of a file (or of encoded data) is malformed */
    ZIMAGE_ERROR_MODEL = 4,       /* the files are well formed but are no complete model, e.g. a tensor is missing */
    ZIMAGE_ERROR_MEMORY = 5,      /* memory is short: an allocation failed, or a job does not fit its limit */
    ZIMAGE_ERROR_NOT_FINITE = 6,  /* a block computed a NaN or an infinity; the message names the first such block */
    ZIMAGE_ERROR_CANCELLED = 7,   /* the progress callback asked to stop */
    ZIMAGE_ERROR_UNSUPPORTED = 8, /* this build or machine can't do it, e.g. there is no usable GPU */
    ZIMAGE_ERROR_INTERNAL = 9,    /* a failed assumption of the library itself, e.g. a thread could not be started */
} zimage_status;

/* The caller owns the struct. Pass NULL if you do not need the text. */
typedef struct zimage_error {
    uint32_t struct_size;
    zimage_status status;
    char message[1536]; /* one printable line (zimage_printable): a sentence or a short list, no trailing newline */
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

/* Frees plain data that a function of this library returned: tokens, tensors, encoded images. data may be NULL. */
ZIMAGE_API void zimage_free(void *data);

/*
 * Writes a text into line [size] as one printable line of valid UTF-8, and returns the bytes that the whole line has
 * (without its zero). What does not fit is cut between two characters. text NULL is ""; line may be NULL if size is 0.
 * Names of files and tensors come from strangers: printed as they are, they could command a terminal. So control
 * characters and bytes that are not UTF-8 become \x1b, \xff; U+0080 to U+009F, and the characters that end a line or
 * change the direction of writing (U+2028 to U+202E, U+2066 to U+2069), become \u009b, \u202e. All else stays. Messages
 * of this library are printable already; names that functions return are as the files have them.
 */
ZIMAGE_API size_t zimage_printable(const char *text, char *line, size_t size);

/*
 * For handlers of signals. The library installs none, and calls neither function itself. Both are async-signal-safe.
 *
 * zimage_replace_lost_pages is for SIGBUS. If the address (si_addr) lies in a file that the library has mapped, it puts
 * zeros in place of the lost page and all later ones and returns the path of the file, which stays valid until the
 * model is closed. The handler may then return, and the thread goes on. Calls that use the file fail soon afterwards
 * with ZIMAGE_ERROR_FILE, and the message names the file. NULL: the address is none of the library's. Then the handler
 * does what it would do without the library.
 *
 *   static void on_bus_error(int number, siginfo_t *info, void *context)
 *   {
 *       if (!zimage_replace_lost_pages(info->si_addr))
 *           signal(number, SIG_DFL); // the thread repeats its access, and the signal ends the process
 *   }
 *   ...
 *   struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
 *   sigaction(SIGBUS, &action, NULL);
 *
 * zimage_remove_temporary_files removes the temporary files of all calls that are writing. A handler calls it before it
 * ends the process.
 */
ZIMAGE_API const char *zimage_replace_lost_pages(const void *address);
ZIMAGE_API void zimage_remove_temporary_files(void);

/* The most physical memory that this process has occupied at once, in bytes, mapped weights included; 0: unknown. */
ZIMAGE_API uint64_t zimage_peak_rss_bytes(void);

typedef enum zimage_log_level { ZIMAGE_LOG_WARNING = 1, ZIMAGE_LOG_INFO = 2 } zimage_log_level;

/* Receives one printable line of text, in the thread that called the library. */
typedef void (*zimage_log_fn)(zimage_log_level level, const char *message, void *user);

/*
 * Every enum whose values a user may type has names. zimage_X_name returns the name of a value ("unknown" if there is
 * none). zimage_X_parse stores the value of a name and returns 1; for an unknown name it returns 0 and stores nothing.
 * The values count from 0 without gaps.
 */

/* ---- devices ----------------------------------------------------------------------------------------------------- */

/* The type that matrix products are computed in. Stored weights stay as they are. Sums are float32; of int8 int32. */
typedef enum zimage_compute {
    ZIMAGE_COMPUTE_AUTO = 0, /* "auto": a GPU: bf16; the CPU: bf16 where it is clearly faster than f32, else f32 */
    ZIMAGE_COMPUTE_F32 = 1,  /* "f32" */
    ZIMAGE_COMPUTE_BF16 = 2, /* "bf16": linear layers, attention, convolutions */
    ZIMAGE_COMPUTE_INT8 = 3, /* "int8", CPU only: linear layers, a scale per token and weight row; all else as auto */
    ZIMAGE_COMPUTE_FP8 = 4,  /* "fp8", compute capability 9.0 only: linear layers in e4m3, scaled as int8; else bf16 */
} zimage_compute;
ZIMAGE_API const char *zimage_compute_name(zimage_compute compute);
ZIMAGE_API int zimage_compute_parse(const char *name, zimage_compute *compute);

typedef struct zimage_device_info {
    uint32_t struct_size;
    int32_t usable;      /* 1: a session can be opened on it */
    char device[24];     /* the name for zimage_session_params: "cpu", "cuda:0", "mlx"; "cuda": there is no such GPU */
    char name[200];      /* "AMD EPYC 9354", "NVIDIA H200", ...; empty where no GPU was found */
    char fault[512];     /* why it can't be used, one sentence; empty: it can */
    char capability[24]; /* CUDA compute capability, "9.0"; else empty */
    char cpu_features[256]; /* CPU: "avx2,avx512,...", the names that cpu_mask takes; else empty */
    int32_t threads;        /* CPU: threads that the process may use; else 0 */
    uint64_t memory_bytes;  /* GPU: its total memory; CPU: 0 */
} zimage_device_info;

/* A set of CPU kernels: the float32 kernels for one instruction set, or one kind of bf16 or int8 matrix product. */
typedef struct zimage_kernel_info {
    uint32_t struct_size;
    int32_t usable; /* 1: this CPU can run it, and cpu_mask allows it */
    char name[40];  /* "avx2", "bf16 amx", ... */
    double gops;    /* 10^9 operations a second of one thread, measured by zimage_devices; 0: not usable */
} zimage_kernel_info;

typedef struct zimage_device_list zimage_device_list;

/* Finds the devices of this machine: the CPU first. cpu_mask as in zimage_session_params. Takes some milliseconds, and
 * where there is a GPU the time in which its driver starts. *list is released with zimage_device_list_free. */
ZIMAGE_API zimage_status zimage_devices(const char *cpu_mask, zimage_device_list **list, zimage_error *error);
ZIMAGE_API size_t zimage_device_count(const zimage_device_list *list);
ZIMAGE_API zimage_status zimage_device_get(const zimage_device_list *list, size_t index, zimage_device_info *info,
                                           zimage_error *error);
ZIMAGE_API size_t zimage_kernel_count(const zimage_device_list *list);
ZIMAGE_API zimage_status zimage_kernel_get(const zimage_device_list *list, size_t index, zimage_kernel_info *info,
                                           zimage_error *error);
ZIMAGE_API void zimage_device_list_free(zimage_device_list *list);

/* ---- models ------------------------------------------------------------------------------------------------------ */

typedef struct zimage_model zimage_model;

/* What happens to weights that MLX has quantised to 1 to 6 or 8 bits a number. */
typedef enum zimage_dequantize {
    ZIMAGE_DEQUANTIZE_NONE = 0, /* "none": they stay quantised in the mapped file, and are dequantised at each use */
    ZIMAGE_DEQUANTIZE_BF16 = 1, /* "bf16": expanded once into memory, rounded to bfloat16: 2 bytes a number */
    ZIMAGE_DEQUANTIZE_F32 = 2,  /* "f32": the same without rounding: 4 bytes a number, results equal to NONE's */
} zimage_dequantize;
ZIMAGE_API const char *zimage_dequantize_name(zimage_dequantize dequantize);
ZIMAGE_API int zimage_dequantize_parse(const char *name, zimage_dequantize *dequantize);

typedef struct zimage_model_params {
    uint32_t struct_size;
    zimage_dequantize dequantize;
    zimage_log_fn log; /* warnings while the model is opened; NULL: silent */
    void *log_user;
    /* Optional folders that replace those of the model folder. NULL: the model folder's own. */
    const char *transformer;
    const char *text_encoder;
    const char *vae;
    const char *tokenizer;
    const char *scheduler;
} zimage_model_params;

/*
 * Opens a model folder in diffusers' layout (model_index.json, transformer/, vae/, scheduler/, and unless only prompt
 * embeddings will be used text_encoder/ and tokenizer/) or one converted for MLX: the same folders with MLX's names and
 * quantised weights, where model_index.json and scheduler/ may be absent (Z-Image-Turbo's schedule is used then). The
 * weights are memory-mapped and read in place: the files must stay unchanged until the model is closed (a file that is
 * replaced by a rename counts as unchanged). zimage_generate fails if one has become shorter, and warns if one was
 * written.
 *
 * Open models share weights, in host memory: a file that another model has mapped is mapped no second time, and a
 * tensor with the name, type, shape and bytes of one that is open already becomes that one, however the files are cut
 * into shards. So Z-Image-Turbo and FLUX.2-klein-4B hold one text encoder. To find equal tensors of different files the
 * call reads both up to the first difference; where all is equal, that takes as long as reading both files. Messages
 * name a shared file as it was opened first. It must stay unchanged until all its models are closed. Copies that
 * dequantize makes are not shared.
 *
 * params may be NULL.
 * *model is released with zimage_model_close.
 */
ZIMAGE_API zimage_status zimage_model_open(const char *path, const zimage_model_params *params, zimage_model **model,
                                           zimage_error *error);
/* A model may be closed before its sessions. Its memory is freed when the model and all its sessions are closed. */
ZIMAGE_API void zimage_model_close(zimage_model *model);

/* Facts of an open model that a caller needs to fill a request. */
typedef struct zimage_model_info {
    uint32_t struct_size;
    int32_t has_text_encoder; /* 0: only requests with prompt_embeds */
    int32_t latent_channels;  /* C of latents [1, C, height / vae_scale_factor, width / vae_scale_factor] */
    int32_t vae_scale_factor; /* pixels of the image for each latent, each way */
    int32_t size_multiple;    /* width and height must be multiples of this */
    int32_t max_width;        /* limits of the transformer's position tables, in pixels */
    int32_t max_height;
    int32_t prompt_embeds_dim; /* width of the text features */
    int32_t max_prompt_tokens; /* longer prompts are cut; the session's log function receives a warning */
    int32_t default_width;
    int32_t default_height;
    int32_t default_steps;
    int32_t distilled; /* 1: made for few steps without guidance */
    char family[32];   /* "z-image" */
    /* guidance_scale of the model's reference pipeline; 0: none. A request's 0 is no guidance all the same. */
    float default_guidance;
    int32_t has_image_encoder; /* 1: requests may have images */
    int32_t max_references;    /* input images that the transformer can read; 0: it only starts from one */
    /* 32 hexadecimal digits that tell this model from others: of its configurations, of the names, types and shapes of
     * its tensors, and of a few numbers of each network. Another conversion or precision has others; other names and
     * cuts of the files do not matter. "": it has none. */
    char fingerprint[36];
} zimage_model_info;

ZIMAGE_API zimage_status zimage_model_get_info(const zimage_model *model, zimage_model_info *info, zimage_error *error);

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

typedef struct zimage_session zimage_session;

typedef struct zimage_session_params {
    uint32_t struct_size;
    int32_t threads; /* 1 to 1024; 0: as many as the process may use */
    /* Where to compute: "cpu" (NULL is the same), "cuda" or "cuda:K" for GPU K, "cuda:K,L" for up to 8 GPUs of one kind
     * that make an image together, "mlx" for the GPU of Apple's chips, or "auto": a GPU that zimage_devices calls
     * usable, else the CPU; also the CPU if the other fields ask for something that only the CPU has (int8, cpu_mask,
     * reference). The program zimage uses "auto" by default, the library "cpu". */
    const char *device;
    zimage_compute compute;
    /* CPU features that may be used, a list such as "avx2,avx512" (zimage_devices lists them); "generic": none, NULL:
     * all. CPU only; refused with a GPU. Another mask may change results slightly. The number of threads never does. */
    const char *cpu_mask;
    /* Limit of the GPU memory in bytes; 0: what is free when an image begins. It covers activations, weights and the
     * workspace of libraries; the driver's own memory (a few hundred MiB) comes on top. Weights that do not fit are
     * copied to the GPU again at each step, in the background, before they are needed. The image is the same. A job
     * that does not fit is refused before it starts; the message says how much it needs. Refused on the CPU.
     * Sessions of one process, GPU and compute type share weights that their models share (zimage_model_open). An image
     * uses the weights that another session has copied to the GPU when the image begins, and they count as memory of
     * that session alone. When it closes, or needs its memory for something else, they count as memory of one of the
     * others from its next image on. Sessions that make their first images at the same time each copy the weights, and
     * share them from their second images on. */
    uint64_t device_memory;
    /* 1: the plain C reference backend: float32 with float64 sums, one thread, very slow. For checking. compute AUTO or
     * F32. */
    int32_t reference;
    zimage_log_fn log; /* NULL: silent */
    void *log_user;
    /* A folder where measurements of this machine are kept between processes (speeds, the fastest algorithms). The
     * library makes it if it does not exist. NULL: nothing is kept. */
    const char *cache_folder;
} zimage_session_params;

/* params may be NULL. *session is released with zimage_session_close, before or after the model is closed. */
ZIMAGE_API zimage_status zimage_session_open(zimage_model *model, const zimage_session_params *params,
                                             zimage_session **session, zimage_error *error);
ZIMAGE_API void zimage_session_close(zimage_session *session);

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Whose random numbers a seed means. */
typedef enum zimage_rng {
    ZIMAGE_RNG_TORCH_CPU = 0,  /* "torch-cpu": torch.Generator("cpu"), the default */
    ZIMAGE_RNG_TORCH_CUDA = 1, /* "torch-cuda": torch.Generator("cuda"), independent of the GPU's size */
    ZIMAGE_RNG_MLX = 2,        /* "mlx": mlx.core.random.normal(key = key(seed)) */
    ZIMAGE_RNG_NUMPY = 3,      /* "numpy": numpy.random.seed + randn */
} zimage_rng;
ZIMAGE_API const char *zimage_rng_name(zimage_rng rng);
ZIMAGE_API int zimage_rng_parse(const char *name, zimage_rng *rng);

typedef enum zimage_stage {
    ZIMAGE_STAGE_TEXT = 0,    /* "text_encoder" */
    ZIMAGE_STAGE_CONTEXT = 1, /* "context": what the transformer makes of text features and references for all steps */
    ZIMAGE_STAGE_DENOISE = 2, /* "denoise": forward passes of the transformer */
    ZIMAGE_STAGE_DECODE = 3,  /* "vae_decode" */
    ZIMAGE_STAGE_ENCODE = 4,  /* "vae_encode": input images, before all other stages */
} zimage_stage;
#define ZIMAGE_STAGE_COUNT 5 /* of this version of the header */
ZIMAGE_API const char *zimage_stage_name(zimage_stage stage);
ZIMAGE_API int zimage_stage_parse(const char *name, zimage_stage *stage);

typedef struct zimage_progress {
    uint32_t struct_size;
    zimage_stage stage;
    int32_t step;    /* 1-based in ZIMAGE_STAGE_DENOISE, else 1 */
    int32_t steps;   /* those that are run in ZIMAGE_STAGE_DENOISE, else 1 */
    int32_t block;   /* blocks of this step done so far, 0 .. blocks */
    int32_t blocks;  /* of this step; with guidance those of both forward passes */
    double fraction; /* of the whole request, 0 .. 1, by counted floating-point operations */
    double elapsed;  /* seconds since zimage_generate was called */
    /* With request.preview: a small RGB image of the expected result at the end of each step; else NULL. */
    const uint8_t *preview; /* [preview_height][preview_width][3], valid during the call */
    int32_t preview_width;
    int32_t preview_height;
} zimage_progress;

/*
 * Called in the thread that called zimage_generate: on the CPU after every block, on a GPU at least once a step. Return
 * non-zero to cancel: zimage_generate then returns ZIMAGE_ERROR_CANCELLED, and the session can be used again. To cancel
 * from another thread, set an atomic flag that this function reads. It must not call functions on the same session. It
 * may wait: before the first step, for example, until another session has done its last one. Work that was handed to a
 * GPU goes on meanwhile.
 */
typedef int (*zimage_progress_fn)(const zimage_progress *progress, void *user);

/* Whether a step, from 1, shall have a preview: 0: none, or what zimage_request.preview can be. Called at the end of
 * the step, in the thread that called zimage_generate. */
typedef int (*zimage_preview_fn)(int32_t step, int32_t steps, void *user);

typedef struct zimage_image zimage_image;

typedef struct zimage_request {
    uint32_t struct_size;
    int32_t preview;             /* 1: progress carries a preview after each step. 2: on a CPU only after steps where
                                  * all previews but the first take at most 5 % of the time; a GPU makes all */
    const char *prompt;          /* UTF-8, zero-terminated; not used, and may be NULL, with prompt_embeds */
    const char *negative_prompt; /* used when guidance_scale > 0; NULL: "" */
    /* Pixels, a multiple of size_multiple, at most max_width; 0: as the first input image, or the default width. */
    int32_t width;
    int32_t height; /* likewise, whatever the width */
    int32_t steps;  /* 1 .. 1000; 0: the model's default */
    zimage_rng rng;
    uint64_t seed; /* 0 is a seed like any other; the library never chooses one by chance */
    /* Result = positive + guidance_scale * (positive - negative), as diffusers' ZImagePipeline; 0 to 1000. 0: no
     * guidance and one forward pass a step, right for distilled models. Others need about 3 to 5
     * (zimage_model_info.default_guidance): also there 0 means no guidance. */
    float guidance_scale;
    /* Limit of the norm of the guided result, in norms of the positive one; 0 to 1000. 0: no limit. */
    float cfg_normalization;
    /* 1 - sigma grows from about 0 at the first step to 1 at the end. Guidance stops once it exceeds this; 0 to 1000.
     * 0: never (diffusers' default). A tiny number: guidance at the first step only. */
    double cfg_truncation;
    /* Text features instead of a prompt: row-major [prompt_tokens, prompt_embeds_dim]. */
    const float *prompt_embeds;
    const float *negative_prompt_embeds; /* for guidance without a text encoder; as wide as prompt_embeds */
    int32_t prompt_tokens;
    int32_t negative_prompt_tokens;
    int32_t prompt_embeds_dim; /* must be the model's */
    /* 1: the memory of each network's weights is given back to the system when that network has finished. The next
     * request reads them from the files again, so use it for the last image of a session. memory_limit implies it. It
     * does nothing on a GPU, or with weights that another open session's model has, too. */
    int32_t release_weights;
    /* Initial noise of variance 1 instead of the seed's: row-major [1, latent_channels, height / f, width / f] with
     * f = vae_scale_factor. With a start image, too, where diffusers takes latents to which noise was added already. */
    const float *latents;
    uint64_t latents_count; /* elements of latents, the product of that shape */
    zimage_progress_fn progress;
    void *progress_user;
    /* Limit of the resident memory of the whole process in bytes. 0: none, but a job on the CPU that needs more memory
     * than is free, weights aside, is refused before it starts. All that the process held when the session was opened
     * counts, your own data and other sessions included; what these take later is not known. To stay below the limit,
     * the VAE decodes the image in bands of fewer rows, and weights are released as by release_weights. A job that
     * still does not fit is refused before it starts; the message says how much it needs. The image is the same. On a
     * GPU memory_limit is refused: use device_memory. */
    uint64_t memory_limit;
    /*
     * Input images, [image_count] of any size; they stay the caller's. A model that reads references
     * (zimage_model_info.max_references) shows what they show. Another model starts from one image: it is resized to
     * the request's size, and only the last steps are run, as strength says. With a mask every model starts from the
     * first image and repaints a part of it; the others are references.
     * Memory: the plan counts these images. Those that were made before the session was opened count twice.
     */
    const zimage_image *const *images;
    /* What is repainted, as large as the first image: white (a luminance of at least 0.5), or of a mask with
     * transparency what is transparent. All else stays, apart from what the VAE and the edge of a latent blur. */
    const zimage_image *mask;
    /* How much a start image changes, in (0, 1]: the first steps * (1 - strength) steps, rounded down, are left out. 0:
     * the default of the model's reference pipeline. Expected 0 without a start image. */
    double strength;
    size_t image_count;
    /* 1: with a mask, the image's pixels outside of it become those of the first image, scaled to the request's size: w
     * made + (1 - w) input, with w = max(0, 1 - d / D), the distance d in pixels to the nearest repainted one, and D =
     * size_multiple. So from D pixels on they are the input's exactly. 0: as the reference, all of the image comes from
     * the VAE. */
    int64_t composite;
    /* With preview: asked for each step, with progress_user, so that nothing is made while nobody looks. NULL:
     * `preview` decides for all steps. A GPU that streams weights gains little by it. */
    zimage_preview_fn wants_preview;
} zimage_request;

/*
 * Checks everything that zimage_generate refuses before it computes, memory included. Computes, measures and writes
 * nothing. To ask whether an image fits into a memory limit, set memory_limit (CPU) and call this: ZIMAGE_ERROR_MEMORY
 * means no. To learn what it needs, leave memory_limit 0 and read zimage_plan_info.least_bytes (CPU) or
 * zimage_memory_info.least_bytes (GPU).
 */
ZIMAGE_API zimage_status zimage_request_check(zimage_session *session, const zimage_request *request,
                                              zimage_error *error);
/* *completed <- the request with the model's defaults in place of zeros: width, height, steps, strength and
 * cfg_truncation. Two requests that are equal then make the same image. Pointers stay the caller's. Checks input images
 * and strength, and nothing else; completed->struct_size is set by the caller. */
ZIMAGE_API zimage_status zimage_request_complete(const zimage_model *model, const zimage_request *request,
                                                 zimage_request *completed, zimage_error *error);

/* ---- plans ------------------------------------------------------------------------------------------------------- */

typedef struct zimage_plan zimage_plan;

/* What zimage_generate will do for a request. */
typedef struct zimage_plan_info {
    uint32_t struct_size;
    int32_t band_rows;    /* the VAE decodes the image in bands of so many rows; 0: it chooses by the image's size */
    double seconds;       /* predicted */
    uint64_t peak_bytes;  /* of the process in host memory, the largest of all stages */
    uint64_t least_bytes; /* the smallest memory_limit with which this request can run */
} zimage_plan_info;

typedef struct zimage_stage_info {
    uint32_t struct_size;
    zimage_stage stage;
    double flops;              /* floating-point operations, all prompts and steps */
    double seconds;            /* predicted */
    uint64_t activation_bytes; /* most bytes at once of activations and of buffers in host memory */
    uint64_t weight_bytes;     /* stored weights that the stage reads */
    uint64_t peak_bytes;       /* of the process in host memory during the stage */
} zimage_stage_info;

/* How a GPU's own memory is divided for a request; all 0 on the CPU. With several GPUs for one image, how that of the
 * GPU with the least room is divided: each takes as much, but may keep other weights. */
typedef struct zimage_memory_info {
    uint32_t struct_size;
    uint64_t limit_bytes;      /* GPU memory that the request may take: device_memory, or what is free */
    uint64_t total_bytes;      /* GPU memory that it takes: the sum of the next four */
    uint64_t activation_bytes; /* most bytes of activations at once */
    uint64_t workspace_bytes;  /* workspace of cuBLASLt and cuDNN */
    uint64_t resident_bytes;   /* weights that stay in GPU memory */
    uint64_t ring_bytes;       /* buffer into which the other weights are copied in turn */
    uint64_t step_bytes;       /* weights that are copied to the GPU at each step, because they do not stay */
    uint64_t least_bytes;      /* the smallest device_memory with which this request can run */
    uint64_t shared_bytes;     /* weights that it reads in the memory of other sessions: not in total_bytes */
    uint64_t exchange_bytes;   /* that it sends to the other GPUs of the image, or receives, at each step */
} zimage_memory_info;

/*
 * Counts a request's operations by running the networks' own code without data, finds its memory by a rehearsal on the
 * session's device, and predicts seconds from a quick measurement of this machine (kept in the session's cache_folder,
 * if there is one). Fails as zimage_generate would, also for a request that does not fit its memory_limit.
 *
 * Host memory is resident memory as the system counts it. Weights are pages of mapped files: the system may evict them
 * when memory is short, but a stage reads all of its weights, most of them at every step, so they count in full.
 * Without memory_limit and release_weights the weights of earlier stages count, too. *plan is released with
 * zimage_plan_free.
 */
ZIMAGE_API zimage_status zimage_plan_make(zimage_session *session, const zimage_request *request, zimage_plan **plan,
                                          zimage_error *error);
ZIMAGE_API zimage_status zimage_plan_get_info(const zimage_plan *plan, zimage_plan_info *info, zimage_error *error);
ZIMAGE_API zimage_status zimage_plan_get_stage(const zimage_plan *plan, zimage_stage stage, zimage_stage_info *info,
                                               zimage_error *error);
ZIMAGE_API zimage_status zimage_plan_get_memory(const zimage_plan *plan, zimage_memory_info *info, zimage_error *error);
ZIMAGE_API void zimage_plan_free(zimage_plan *plan);

/* The same as zimage_request_check, and tells how the GPU's memory would be divided if the image began now. So it says,
 * without measuring anything, whether an image fits beside what other sessions hold, and how much it would add. */
ZIMAGE_API zimage_status zimage_request_memory(zimage_session *session, const zimage_request *request,
                                               zimage_memory_info *info, zimage_error *error);

/* ---- images ------------------------------------------------------------------------------------------------------ */

/* Makes one image. *image is released with zimage_image_free. */
ZIMAGE_API zimage_status zimage_generate(zimage_session *session, const zimage_request *request, zimage_image **image,
                                         zimage_error *error);

/* Of an image that is NULL: 0 and NULL. */
ZIMAGE_API int32_t zimage_image_width(const zimage_image *image);
ZIMAGE_API int32_t zimage_image_height(const zimage_image *image);
ZIMAGE_API const uint8_t *zimage_image_pixels(const zimage_image *image); /* [height][width][3] RGB, owned by image */
/* [height][width], owned by image: what was transparent is 0. NULL: all is opaque. A mask may say with it what is
 * repainted; pixels are blended over the background already. */
ZIMAGE_API const uint8_t *zimage_image_alpha(const zimage_image *image);
ZIMAGE_API void zimage_image_free(zimage_image *image);

/* How an image was made; zeros for images that zimage_generate did not make. */
typedef struct zimage_image_info {
    uint32_t struct_size;
    int32_t prompt_tokens; /* tokens of the prompt with its template, after a cut */
    double seconds;        /* time of the whole call */
    /* Together with the request, the model and the version these decide the bytes of the image. */
    zimage_compute compute; /* what AUTO became */
    char kernels[116];      /* what computed it, in a few words: "avx512, bf16 amx", "cuda bf16 NVIDIA H200" */
    double strength;        /* of the request, or the default in its place; 0: there was no start image */
} zimage_image_info;
ZIMAGE_API zimage_status zimage_image_get_info(const zimage_image *image, zimage_image_info *info, zimage_error *error);
/* Seconds that a stage took. */
ZIMAGE_API double zimage_image_seconds(const zimage_image *image, zimage_stage stage);
/* How the GPU's memory was divided. */
ZIMAGE_API zimage_status zimage_image_get_memory(const zimage_image *image, zimage_memory_info *info,
                                                 zimage_error *error);
/* Final latents [channels, rows, columns] in the transformer's scale: the VAE's scaling factor and shift are not yet
 * undone. Owned by image. NULL: zimage_generate did not make the image. shape may be NULL. */
ZIMAGE_API const float *zimage_image_latents(const zimage_image *image, int64_t shape[3]);

/* A copy of pixels [height][width][channels] with `stride` bytes between rows; channels: 3 (RGB) or 4 (RGBA: alpha is
 * blended over white, and kept for a mask). *image is released with zimage_image_free. */
ZIMAGE_API zimage_status zimage_image_from_pixels(const uint8_t *pixels, int32_t width, int32_t height, size_t stride,
                                                  int32_t channels, zimage_image **image, zimage_error *error);

typedef enum zimage_format {
    ZIMAGE_FORMAT_PNG = 0,  /* "png": .png */
    ZIMAGE_FORMAT_JPEG = 1, /* "jpeg": .jpg, .jpeg */
    ZIMAGE_FORMAT_WEBP = 2, /* "webp": .webp */
} zimage_format;
ZIMAGE_API const char *zimage_format_name(zimage_format format);
ZIMAGE_API int zimage_format_parse(const char *name, zimage_format *format);
/* The format that the extension of a path stands for, in upper or lower case. 0: it stands for none. */
ZIMAGE_API int zimage_format_of_path(const char *path, zimage_format *format);

/*
 * Images that are read: PNG of every kind, JPEG (baseline, progressive; grey, colour, CMYK) and WebP (lossy, lossless),
 * recognised by their bytes. They become 8-bit RGB. EXIF's orientation turns them upright. Alpha is blended over the
 * background, and kept for a mask. Colours are taken for sRGB: an ICC profile of another colour space is ignored, with
 * one warning to the log. A truncated or damaged file, and an animated WebP, is an error (ZIMAGE_ERROR_FORMAT).
 */
typedef struct zimage_decode_params {
    uint32_t struct_size;
    uint64_t max_pixels;       /* 0: 2^26. Decoding takes about 16 bytes a pixel, at most */
    uint64_t max_bytes;        /* of the encoded file; 0: 2^29 */
    const uint8_t *background; /* 3 bytes, RGB; NULL: white */
    zimage_log_fn log;         /* NULL: silent */
    void *log_user;
} zimage_decode_params;

/* Both limits are checked before memory is allocated. params may be NULL. *image is released with zimage_image_free. */
ZIMAGE_API zimage_status zimage_image_decode_with(const uint8_t *data, size_t size, const zimage_decode_params *params,
                                                  zimage_image **image, zimage_error *error);
/* The same with a limit of pixels only (0: 2^26). */
ZIMAGE_API zimage_status zimage_image_decode(const uint8_t *data, size_t size, uint64_t max_pixels,
                                             zimage_image **image, zimage_error *error);
/* The same for a file. A folder, a device or a pipe is refused (ZIMAGE_ERROR_FILE). */
ZIMAGE_API zimage_status zimage_image_read(const char *path, const zimage_decode_params *params, zimage_image **image,
                                           zimage_error *error);

/* A text stored in an image file: PNG has chunks for them, JPEG and WebP a packet of XMP. A JPEG file holds at most
 * 65504 bytes of such a packet. */
typedef struct zimage_text {
    const char *key;   /* 1 .. 79 Latin-1 characters; of JPEG and WebP bytes of UTF-8 */
    const char *value; /* UTF-8 */
} zimage_text;

typedef struct zimage_save_params {
    uint32_t struct_size;
    /* 1 .. 100. JPEG (always 4:4:4): 0 is 95. WebP: 0 is lossless, all else lossy. PNG: 0 */
    int32_t quality;
    const zimage_text *texts; /* stored in the file, and nothing else is */
    size_t text_count;
    /* Of zimage_image_save only. Not NULL: the path is a name that a stranger chose. The file lies in this folder, or
     * in a folder below it. A name that leads out of the folder, by ".." or by a symbolic link, is refused, and so is a
     * name that is itself a symbolic link. */
    const char *folder;
    /* Of zimage_image_save only. 1: a file that exists, or appears meanwhile, is an error and stays as it is. */
    int64_t is_new;
    /* Of PNG only. Not NULL: the image's alpha is written, too, with colours that give the image's pixels again when
     * the file is decoded over this background (3 bytes, RGB): the one that the image was decoded over. NULL: the
     * file is opaque. */
    const uint8_t *alpha_over;
} zimage_save_params;

/* Encodes to memory. params may be NULL. *data [*size] is released with zimage_free. */
ZIMAGE_API zimage_status zimage_image_encode_with(const zimage_image *image, zimage_format format,
                                                  const zimage_save_params *params, uint8_t **data, size_t *size,
                                                  zimage_error *error);
/* The same with texts only. */
ZIMAGE_API zimage_status zimage_image_encode(const zimage_image *image, zimage_format format, const zimage_text *texts,
                                             size_t text_count, uint8_t **data, size_t *size, zimage_error *error);
/*
 * Writes a file and replaces an existing one in one step: a reader never sees half a file. A symbolic link is followed.
 * The extension of `path` chooses the format: .png, .jpg, .jpeg or .webp, in upper or lower case. A name with another
 * extension, or without one, is refused (ZIMAGE_ERROR_ARGUMENT); a device or a pipe with such a name gets PNG. params
 * may be NULL.
 */
ZIMAGE_API zimage_status zimage_image_save(const zimage_image *image, const char *path,
                                           const zimage_save_params *params, zimage_error *error);
/* The same with texts only; with the folder too; with the folder (or NULL) and is_new too. */
ZIMAGE_API zimage_status zimage_image_write(const zimage_image *image, const char *path, const zimage_text *texts,
                                            size_t text_count, zimage_error *error);
ZIMAGE_API zimage_status zimage_image_write_beneath(const zimage_image *image, const char *folder, const char *name,
                                                    const zimage_text *texts, size_t text_count, zimage_error *error);
ZIMAGE_API zimage_status zimage_image_write_new(const zimage_image *image, const char *folder, const char *path,
                                                const zimage_text *texts, size_t text_count, zimage_error *error);
/* Whether a file of that format can hold an image of that size and these texts: what can be known before the image. */
ZIMAGE_API zimage_status zimage_format_check(zimage_format format, int32_t width, int32_t height,
                                             const zimage_text *texts, size_t text_count, zimage_error *error);

/* ---- tokenizers -------------------------------------------------------------------------------------------------- */

typedef struct zimage_tokenizer zimage_tokenizer;

/* What a family puts around a prompt. */
typedef enum zimage_template {
    ZIMAGE_TEMPLATE_NONE = 0,    /* "none" */
    ZIMAGE_TEMPLATE_Z_IMAGE = 1, /* "z-image" */
    ZIMAGE_TEMPLATE_KLEIN = 2,   /* "klein": FLUX.2-klein */
} zimage_template;
ZIMAGE_API const char *zimage_template_name(zimage_template kind);
ZIMAGE_API int zimage_template_parse(const char *name, zimage_template *kind);

/* path: a tokenizer's folder as transformers saves it, a model folder with tokenizer/, or a tokenizer.json, of which
 * nothing else in its folder is read then. Released with zimage_tokenizer_close. */
ZIMAGE_API zimage_status zimage_tokenizer_open(const char *path, zimage_tokenizer **tokenizer, zimage_error *error);
ZIMAGE_API void zimage_tokenizer_close(zimage_tokenizer *tokenizer);
/* text: UTF-8 of `length` bytes, at most 1 MiB (zero bytes allowed). Nothing is cut. *ids [*count] is released with
 * zimage_free. */
ZIMAGE_API zimage_status zimage_tokenizer_encode(const zimage_tokenizer *tokenizer, zimage_template kind,
                                                 const char *text, size_t length, int32_t **ids, size_t *count,
                                                 zimage_error *error);

/* ---- tensors in safetensors files (prompt embeddings, latents) --------------------------------------------------- */

/* Reads tensor `name` (f32, f16 or bf16) as float32. shape holds up to 4 sizes. *data is released with zimage_free. */
ZIMAGE_API zimage_status zimage_tensor_read(const char *path, const char *name, float **data, int64_t shape[4],
                                            int32_t *dimensions, zimage_error *error);
/* Writes a file with one float32 tensor; it appears when it is complete. */
ZIMAGE_API zimage_status zimage_tensor_write(const char *path, const char *name, const float *data,
                                             const int64_t *shape, int32_t dimensions, zimage_error *error);
/* The same for the name of a file that a stranger chose: see zimage_image_write_beneath. */
ZIMAGE_API zimage_status zimage_tensor_write_beneath(const char *folder, const char *file, const char *name,
                                                     const float *data, const int64_t *shape, int32_t dimensions,
                                                     zimage_error *error);

/* ==== experimental: may change in any version ===================================================================== */

#ifdef ZIMAGE_EXPERIMENTAL

/* ---- looking into models ----------------------------------------------------------------------------------------- */

typedef struct zimage_inspection zimage_inspection;

typedef struct zimage_component_info {
    uint32_t struct_size;
    uint64_t parameters;
    uint64_t bytes; /* of tensor data */
    size_t tensors;
    const char *name;        /* "transformer"; a single file: its path */
    const char *class_name;  /* of its config.json; empty: unknown */
    const char *config_json; /* the text of its config.json; NULL: it has none */
} zimage_component_info;

typedef struct zimage_tensor_info {
    uint32_t struct_size;
    int32_t dimensions;
    int64_t shape[4];
    uint64_t bytes;
    const char *name;
    const char *dtype; /* the file's own word; "U4 group 32": MLX quantised this matrix; shape is the matrix's own */
    const char *file;
} zimage_tensor_info;

/* Reads the headers of a model folder or of a single safetensors file. *inspection is released with
 * zimage_inspection_free; the pointers in its infos live as long. */
ZIMAGE_API zimage_status zimage_inspect(const char *path, zimage_inspection **inspection, zimage_error *error);
ZIMAGE_API const char *zimage_inspection_class(const zimage_inspection *inspection); /* of model_index.json, or "" */
ZIMAGE_API size_t zimage_inspection_components(const zimage_inspection *inspection);
ZIMAGE_API zimage_status zimage_inspection_get_component(const zimage_inspection *inspection, size_t component,
                                                         zimage_component_info *info, zimage_error *error);
ZIMAGE_API zimage_status zimage_inspection_get_tensor(const zimage_inspection *inspection, size_t component,
                                                      size_t tensor, zimage_tensor_info *info, zimage_error *error);
ZIMAGE_API void zimage_inspection_free(zimage_inspection *inspection);

/* ---- texts in image files ---------------------------------------------------------------------------------------- */

typedef struct zimage_texts zimage_texts;

/* Reads the texts of an image file's bytes: of PNG all that are not compressed, in the file's order; of JPEG and WebP
 * those that this library has stored. Without a text "parameters" the user's comment in EXIF, if there is one, becomes
 * that text: AUTOMATIC1111's program has its settings there. (A text of that key is also written there.) *texts is
 * released with zimage_texts_free; the texts live as long. */
ZIMAGE_API zimage_status zimage_texts_decode(const uint8_t *data, size_t size, zimage_texts **texts,
                                             zimage_error *error);
/* The same for a file of at most 2^29 bytes. A folder, a device or a pipe is refused (ZIMAGE_ERROR_FILE). */
ZIMAGE_API zimage_status zimage_texts_read(const char *path, zimage_texts **texts, zimage_error *error);
/* The format of the file that held them, by its bytes. */
ZIMAGE_API zimage_format zimage_texts_format(const zimage_texts *texts);
ZIMAGE_API size_t zimage_texts_count(const zimage_texts *texts);
ZIMAGE_API const zimage_text *zimage_texts_get(const zimage_texts *texts, size_t index); /* NULL: there is none */
ZIMAGE_API void zimage_texts_free(zimage_texts *texts);

/* ---- self-test --------------------------------------------------------------------------------------------------- */

/* One finding of zimage_selftest. The strings live during the callback. */
typedef struct zimage_check {
    uint32_t struct_size;
    int32_t usable; /* 0: this machine can't run these kernels, or the mask forbids them; nothing was checked */
    int32_t passed;
    const char *kernels; /* "reference", "avx2", "bf16 amx", "cuda bf16 NVIDIA H200", ... */
    const char *name;    /* an operation; "image": a tiny image; "begin": the checks of these kernels begin */
    /* Operation: largest error, relative to the result's scale. Image: mean difference, 0 .. 255. "begin": -1. */
    double error;
    double largest;    /* image: largest difference, 0 .. 255; else 0 */
    const char *fault; /* what is wrong; NULL: nothing */
} zimage_check;

typedef void (*zimage_check_fn)(const zimage_check *check, void *user);

typedef struct zimage_selftest_params {
    uint32_t struct_size;
    const char *device;   /* "cpu" (NULL is the same): every set of CPU kernels; "cuda", "cuda:K", "mlx": that GPU */
    const char *cpu_mask; /* as in zimage_session_params */
    zimage_check_fn check;
    void *check_user;
} zimage_selftest_params;

/*
 * Checks that a device computes correctly: every operation of every set of kernels against plain C, and a tiny image by
 * each, without any model; takes some seconds. "begin" is reported before each set, so that a set that ends the process
 * is known. Wrong results are no error: ZIMAGE_OK, with *passed 0.
 */
ZIMAGE_API zimage_status zimage_selftest(const zimage_selftest_params *params, int32_t *passed, zimage_error *error);

/* ---- measuring --------------------------------------------------------------------------------------------------- */

typedef enum zimage_bench_stage {
    ZIMAGE_BENCH_TEXT_ENCODER = 0,     /* "text_encoder" */
    ZIMAGE_BENCH_TRANSFORMER_STEP = 1, /* "transformer_step": one forward pass */
    ZIMAGE_BENCH_VAE_DECODE = 2,       /* "vae_decode" */
    ZIMAGE_BENCH_VAE_ENCODE = 3,       /* "vae_encode": of an input image */
    ZIMAGE_BENCH_LOAD = 4,             /* "load": opening the model, or making the synthetic one */
} zimage_bench_stage;
#define ZIMAGE_BENCH_STAGE_COUNT 5
ZIMAGE_API const char *zimage_bench_stage_name(zimage_bench_stage stage);

typedef struct zimage_bench_params {
    uint32_t struct_size;
    /* Instead of a model folder: "z-image-turbo", "klein-4b" or "klein-9b", its published sizes with random weights
     * made in memory, one network at a time; or "small" or "klein-small", toys of the same kinds. */
    const char *synthetic;
    const char *format;    /* of synthetic weights: "bf16" (default), "f16", "f32", "q4", "q8" (groups of 32) */
    int32_t width, height; /* pixels; 0: the model's own, or 512 for a synthetic one */
    int32_t tokens;        /* of the prompt; 0: 64 */
    int32_t layers;        /* at most so many layers of text encoder and transformer; 0: all */
    int32_t repeats;       /* of each stage; 0: 3 */
    const zimage_session_params *session; /* NULL: defaults */
    uint64_t stages;                      /* a set of bits, 1 << zimage_bench_stage: only these are timed; 0: all */
} zimage_bench_params;

typedef struct zimage_bench zimage_bench;

/* Negative figures: not measured (no text encoder in the model, oneDNN not installed, no operations while loading). */
typedef struct zimage_bench_figures {
    uint32_t struct_size;
    double seconds; /* median of the repeats */
    double tflops;  /* 10^12 floating-point operations a second, counted by running the same model code without data */
    /* Speed as a percentage of the peak rate. CPU: the rate of the linear layers' instruction on data in registers,
     * measured before, during and after each repeat. GPU: the rate of one large matrix product. */
    double percent_of_peak;
    /* Speed as a percentage of oneDNN's matrix products of the stage's main sizes, measured in the same run. Each is
     * first divided by the peak rate of its own time, so that other work on the machine does not favour one of them. */
    double percent_of_onednn;
    uint64_t planned_bytes; /* activations and weights of the stage, by the plan */
    /* Where the backend builds a graph of operations (MLX), of one run; else 0. */
    int64_t graph_nodes;       /* operations */
    int64_t graph_evaluations; /* how often a graph was handed over to be computed */
    double graph_seconds;      /* that the host took to build the graphs */
    uint64_t graph_peak_bytes; /* most bytes of arrays, weights included */
} zimage_bench_figures;

typedef struct zimage_bench_info {
    uint32_t struct_size;
    int32_t threads, width, height, tokens;
    int32_t transformer_layers, text_layers; /* layers that were timed; 0: no such network */
    int32_t on_gpu;
    uint64_t peak_rss_bytes;    /* of the process, mapped weights included; before oneDNN was measured */
    uint64_t peak_device_bytes; /* of the GPU's memory in use after the stages' first runs, by any process; 0: no GPU */
    double peak_tflops;         /* the peak rate of all threads that percent_of_peak refers to */
    char kernels[80];           /* kernels that were used: "avx2", "avx512, int8 amx, bf16 amx", ... */
    char onednn[16];            /* its version; empty: not installed */
} zimage_bench_info;

/* Times the stages of the model folder model_path, or with params->synthetic (then model_path is NULL) of random
 * weights. *bench is released with zimage_bench_free. */
ZIMAGE_API zimage_status zimage_bench_run(const char *model_path, const zimage_bench_params *params,
                                          zimage_bench **bench, zimage_error *error);
ZIMAGE_API zimage_status zimage_bench_get_info(const zimage_bench *bench, zimage_bench_info *info, zimage_error *error);
ZIMAGE_API zimage_status zimage_bench_get_figures(const zimage_bench *bench, zimage_bench_stage stage,
                                                  zimage_bench_figures *figures, zimage_error *error);
/* GPU memory of one stage alone. */
ZIMAGE_API zimage_status zimage_bench_get_memory(const zimage_bench *bench, zimage_bench_stage stage,
                                                 zimage_memory_info *info, zimage_error *error);
ZIMAGE_API void zimage_bench_free(zimage_bench *bench);

#endif /* ZIMAGE_EXPERIMENTAL */

#ifdef __cplusplus
}
#endif

#endif
