/* zimage generate: prompts to PNG files. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "progress.h"

#define COMMAND "generate"

static const char help[] =
    "usage: zimage generate PROMPT [OPTIONS]\n"
    "       zimage generate --batch FILE.jsonl --out-dir DIR [OPTIONS]\n"
    "\n"
    "  -m, --model DIR        model folder, in diffusers' layout or converted for MLX (default: the bundled emoji "
    "model)\n"
    "  -o, --output FILE.png  where the picture goes (default: a name made from prompt and seed)\n"
    "  -W, --width N          pixels (default: the model's own size)\n"
    "  -H, --height N\n"
    "      --steps N          evaluations of the transformer (default: 8)\n"
    "      --seed N           0 .. 2^64-1 (default: random; always told)\n"
    "  -n, --count N          this many pictures, with seeds N, N+1, ... (files get -1, -2, ...)\n"
    "      --negative TEXT    negative prompt, with --guidance\n"
    "      --guidance G       classifier-free guidance, diffusers' scale (default 0: none; distilled models need "
    "none)\n"
    "      --cfg-truncation T    no guidance once 1 - sigma exceeds T (default 1: always)\n"
    "      --cfg-normalization N limit the guided prediction to N times the unguided one's norm (default 0: off)\n"
    "      --rng KIND         torch-cpu (default), torch-cuda, mlx, numpy: whose noise a seed means\n"
    "      --prompt-embeds FILE.safetensors   tensor prompt_embeds [tokens, dim] instead of a prompt\n"
    "      --latents FILE.safetensors         tensor latents [1, C, H, W]: the initial noise\n"
    "      --save-latents FILE.safetensors    writes the final latents [1, C, H, W]\n"
    "      --batch FILE.jsonl  one JSON object a line: {\"prompt\", \"output\", and optionally \"seed\", "
    "\"negative\",\n"
    "                          \"width\", \"height\", \"steps\", \"guidance\"}; the model is opened once\n"
    "      --out-dir DIR      where --batch puts its files\n"
    "      --mem SIZE         most memory to take: 6G, 512M, ...; refused at once when it is not enough\n"
    "      --plan             only print operations, predicted seconds and memory of each stage\n"
    "      --threads N        (default: all cores)\n"
    "      --dequantize KIND  bf16 or f32: expand packed weights once into memory (default: use them packed)\n"
    "      --compute KIND     auto (default), f32, bf16 or int8: numbers that products are computed in; auto is bf16\n"
    "                         where the processor multiplies it clearly faster than f32, else f32\n"
    "      --cpu-mask LIST    use these processor features only, as zimage devices names them: avx2,avx512, ...\n"
    "      --device KIND      cpu, cuda, cuda:K (card K), or auto (default): a card where zimage devices lists a "
    "usable\n"
    "                         one and nothing else asks for the processor. On a card --compute is auto (bf16), f32, "
    "bf16 or fp8\n"
    "      --vram SIZE        most memory of a card to take: 8G, 4096M, ... (default: what is free); weights that do "
    "not\n"
    "                         fit are sent anew at each step; refused at once when it is not enough\n"
    "      --reference        compute with the slow plain-C oracle\n"
    "      --json             print one JSON object: images (path, seed, seconds), seconds by stage, peak_rss_bytes, "
    "with a "
    "card device\n"
    "  -q, --quiet            no progress\n"
    "  -h, --help\n";

typedef struct options {
    const char *model, *output, *prompt, *negative, *prompt_embeds, *latents, *save_latents, *batch, *out_dir,
        *rng_name;
    int64_t width, height, steps, count, threads;
    uint64_t seed, memory, vram;
    double guidance, cfg_truncation, cfg_normalization;
    zimage_rng rng;
    zimage_dequantize dequantize;
    zimage_compute compute;
    const char *cpu_mask, *device;
    int has_seed, json, quiet, reference, plan;
} options;

/* One picture to make. */
typedef struct picture_job {
    const char *prompt, *negative, *path;
    uint64_t seed;
    int64_t width, height, steps;
    double guidance;
} picture_job;

typedef struct session {
    const options *opt;
    zimage_context *context;
    float *embeds, *latents;
    int64_t embeds_tokens, latents_shape[4];
    int32_t latents_dims;
    json_t *images;            /* for --json */
    zimage_device_plan device; /* of the last picture */
    double seconds[ZIMAGE_STAGES], load_seconds;
} session;

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    interrupted = signal_number;
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the command line ---- */

enum {
    OPT_STEPS = 256,
    OPT_SEED,
    OPT_NEGATIVE,
    OPT_GUIDANCE,
    OPT_CFG_TRUNCATION,
    OPT_CFG_NORMALIZATION,
    OPT_RNG,
    OPT_EMBEDS,
    OPT_LATENTS,
    OPT_SAVE_LATENTS,
    OPT_BATCH,
    OPT_OUT_DIR,
    OPT_MEMORY,
    OPT_VRAM,
    OPT_PLAN,
    OPT_THREADS,
    OPT_DEQUANTIZE,
    OPT_REFERENCE,
    OPT_COMPUTE,
    OPT_CPU_MASK,
    OPT_DEVICE,
    OPT_JSON,
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, 'm'},
    {"output", required_argument, NULL, 'o'},
    {"width", required_argument, NULL, 'W'},
    {"height", required_argument, NULL, 'H'},
    {"steps", required_argument, NULL, OPT_STEPS},
    {"seed", required_argument, NULL, OPT_SEED},
    {"count", required_argument, NULL, 'n'},
    {"negative", required_argument, NULL, OPT_NEGATIVE},
    {"guidance", required_argument, NULL, OPT_GUIDANCE},
    {"cfg-truncation", required_argument, NULL, OPT_CFG_TRUNCATION},
    {"cfg-normalization", required_argument, NULL, OPT_CFG_NORMALIZATION},
    {"rng", required_argument, NULL, OPT_RNG},
    {"prompt-embeds", required_argument, NULL, OPT_EMBEDS},
    {"latents", required_argument, NULL, OPT_LATENTS},
    {"save-latents", required_argument, NULL, OPT_SAVE_LATENTS},
    {"batch", required_argument, NULL, OPT_BATCH},
    {"out-dir", required_argument, NULL, OPT_OUT_DIR},
    {"mem", required_argument, NULL, OPT_MEMORY},
    {"vram", required_argument, NULL, OPT_VRAM},
    {"plan", no_argument, NULL, OPT_PLAN},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"dequantize", required_argument, NULL, OPT_DEQUANTIZE},
    {"compute", required_argument, NULL, OPT_COMPUTE},
    {"cpu-mask", required_argument, NULL, OPT_CPU_MASK},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"reference", no_argument, NULL, OPT_REFERENCE},
    {"json", no_argument, NULL, OPT_JSON},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int parse_rng(const char *text, zimage_rng *rng)
{
    static const char *const names[] = {"torch-cpu", "torch-cuda", "mlx", "numpy"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(text, names[i])) {
            *rng = (zimage_rng)i;
            return 1;
        }
    cli_usage_error(COMMAND, "--rng: \"%s\", expected torch-cpu, torch-cuda, mlx or numpy", text);
    return 0;
}

static int parse_dequantize(const char *text, zimage_dequantize *kind)
{
    *kind = !strcmp(text, "bf16")  ? ZIMAGE_DEQUANTIZE_BF16
            : !strcmp(text, "f32") ? ZIMAGE_DEQUANTIZE_F32
                                   : ZIMAGE_DEQUANTIZE_NONE;
    if (*kind == ZIMAGE_DEQUANTIZE_NONE)
        cli_usage_error(COMMAND, "--dequantize: \"%s\", expected bf16 or f32", text);
    return *kind != ZIMAGE_DEQUANTIZE_NONE;
}

/* 1: go on; 0: a wrong value was told. */
static int take_option(options *o, int option)
{
    switch (option) {
    case 'm':
        o->model = optarg;
        return 1;
    case 'o':
        o->output = optarg;
        return 1;
    case 'W':
        return cli_parse_int(COMMAND, "--width", optarg, 1, INT_MAX, &o->width);
    case 'H':
        return cli_parse_int(COMMAND, "--height", optarg, 1, INT_MAX, &o->height);
    case OPT_STEPS:
        return cli_parse_int(COMMAND, "--steps", optarg, 1, 1000, &o->steps);
    case OPT_SEED:
        o->has_seed = 1;
        return cli_parse_uint64(COMMAND, "--seed", optarg, &o->seed);
    case 'n':
        return cli_parse_int(COMMAND, "--count", optarg, 1, 100000, &o->count);
    case OPT_NEGATIVE:
        o->negative = optarg;
        return 1;
    case OPT_GUIDANCE:
        return cli_parse_float(COMMAND, "--guidance", optarg, 0, 1000, &o->guidance);
    case OPT_CFG_TRUNCATION:
        return cli_parse_float(COMMAND, "--cfg-truncation", optarg, 0, 1000, &o->cfg_truncation);
    case OPT_CFG_NORMALIZATION:
        return cli_parse_float(COMMAND, "--cfg-normalization", optarg, 0, 1000, &o->cfg_normalization);
    case OPT_RNG:
        o->rng_name = optarg;
        return parse_rng(optarg, &o->rng);
    case OPT_EMBEDS:
        o->prompt_embeds = optarg;
        return 1;
    case OPT_LATENTS:
        o->latents = optarg;
        return 1;
    case OPT_SAVE_LATENTS:
        o->save_latents = optarg;
        return 1;
    case OPT_BATCH:
        o->batch = optarg;
        return 1;
    case OPT_OUT_DIR:
        o->out_dir = optarg;
        return 1;
    case OPT_MEMORY:
        return cli_parse_size(COMMAND, "--mem", optarg, &o->memory);
    case OPT_VRAM:
        return cli_parse_size(COMMAND, "--vram", optarg, &o->vram);
    case OPT_PLAN:
        o->plan = 1;
        return 1;
    case OPT_DEQUANTIZE:
        return parse_dequantize(optarg, &o->dequantize);
    case OPT_THREADS:
        return cli_parse_int(COMMAND, "--threads", optarg, 1, 1024, &o->threads);
    case OPT_COMPUTE:
        return cli_parse_compute(COMMAND, optarg, &o->compute);
    case OPT_CPU_MASK:
        o->cpu_mask = optarg;
        return 1;
    case OPT_DEVICE:
        o->device = optarg;
        return 1;
    case OPT_REFERENCE:
        o->reference = 1;
        return 1;
    case OPT_JSON:
        o->json = 1;
        return 1;
    case 'q':
        o->quiet = 1;
        return 1;
    default:
        fprintf(stderr, "zimage generate --help lists the options\n");
        return 0;
    }
}

/* Combinations that would leave an option without effect are refused rather than ignored. */
static int check_combination(const options *o)
{
    if (!cli_check_vram(COMMAND, o->vram, o->device, o->reference))
        return 0;
    if (o->plan && (o->batch || o->output || o->save_latents || o->count != 1))
        return !cli_usage_error(COMMAND,
                                "--plan: makes no picture; not together with --batch, -o, -n or --save-latents");
    if (o->batch) {
        if (!o->out_dir)
            return !cli_usage_error(COMMAND, "--batch: needs --out-dir, the folder for its pictures");
        if (o->prompt || o->output || o->prompt_embeds || o->latents || o->save_latents || o->count != 1 || o->has_seed)
            return !cli_usage_error(COMMAND,
                                    "--batch: prompt, output, seed and count come from its lines; not together "
                                    "with a prompt, -o, -n, --seed, --prompt-embeds or --(save-)latents");
        return 1;
    }
    if (o->out_dir)
        return !cli_usage_error(COMMAND, "--out-dir: only with --batch; use -o for one picture");
    if (!o->prompt && !o->prompt_embeds)
        return !cli_usage_error(COMMAND, "PROMPT: missing, expected a text such as \"a red apple\" or --prompt-embeds");
    if (o->prompt && o->prompt_embeds)
        return !cli_usage_error(COMMAND, "--prompt-embeds: replaces the prompt; give one of them");
    if (o->negative && !(o->guidance > 0))
        return !cli_usage_error(COMMAND, "--negative: has no effect without --guidance above 0");
    if (o->latents && (o->has_seed || o->rng_name || o->count != 1))
        return !cli_usage_error(COMMAND, "--latents: replaces the seeded noise; not together with --seed, --rng or -n");
    if (o->save_latents && o->count != 1)
        return !cli_usage_error(COMMAND, "--save-latents: one picture at a time, not with -n");
    return 1;
}

/* 0: done or wrong, with *code set; 1: go on. */
static int parse(int argc, char **argv, options *o, int *code)
{
    int option;
    *o = (options){.count = 1, .cfg_truncation = 1};
    *code = CLI_USAGE;
    while ((option = getopt_long(argc, argv, "m:o:W:H:n:qh", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            *code = 0;
            return 0;
        }
        if (!take_option(o, option))
            return 0;
    }
    if (optind < argc)
        o->prompt = argv[optind++];
    if (optind < argc) {
        cli_usage_error(COMMAND, "\"%s\": a second prompt; put a prompt of several words in quotes", argv[optind]);
        return 0;
    }
    return check_combination(o);
}

/* ---- where pictures go ---- */

/* "a red apple" -> "a-red-apple", ASCII letters and digits only, at most 40 characters; empty for other scripts. */
static void slug_of(const char *prompt, char slug[64])
{
    size_t length = 0;
    for (const char *c = prompt ? prompt : ""; *c && length < 40; c++) {
        if (isascii((unsigned char)*c) && isalnum((unsigned char)*c))
            slug[length++] = (char)tolower((unsigned char)*c);
        else if (length && slug[length - 1] != '-' && isascii((unsigned char)*c))
            slug[length++] = '-';
    }
    while (length && slug[length - 1] == '-')
        length--;
    slug[length] = 0;
}

static int has_png_suffix(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && !strcasecmp(path + length - 4, ".png");
}

/* The file name of picture `index` (1-based) of `count`. */
static void name_picture(const options *o, uint64_t seed, int64_t index, char path[PATH_MAX])
{
    if (!o->output) {
        char slug[64];
        slug_of(o->prompt, slug);
        snprintf(path, PATH_MAX, "%s-%llu.png", *slug ? slug : "zimage", (unsigned long long)seed);
    } else if (o->count == 1) {
        snprintf(path, PATH_MAX, "%s", o->output);
    } else {
        int stem = has_png_suffix(o->output) ? (int)strlen(o->output) - 4 : (int)strlen(o->output);
        snprintf(path, PATH_MAX, "%.*s-%lld.png", stem, o->output, (long long)index);
    }
}

/* Tells before minutes of work that the file could never be written. */
static int check_output(const char *path)
{
    struct stat st;
    if (strlen(path) >= PATH_MAX - 40)
        return !cli_usage_error(COMMAND, "--output: the path is too long");
    int exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode))
        return !cli_usage_error(COMMAND, "--output: %s is a folder, expected a file name ending in .png", path);
    if (exists && !S_ISREG(st.st_mode))
        return 1;
    if (!has_png_suffix(path))
        return !cli_usage_error(COMMAND, "--output: %s, expected a name ending in .png", path);
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    else
        strcpy(folder, ".");
    if (access(folder, W_OK | X_OK) != 0)
        return !cli_usage_error(COMMAND, "--output: can't write to the folder %s: %s", folder, strerror(errno));
    return 1;
}

static uint64_t random_seed(void)
{
    uint32_t seed;
    if (getentropy(&seed, sizeof seed) != 0)
        seed = (uint32_t)time(NULL);
    return seed;
}

/* ---- making pictures ---- */

static int on_progress(const zimage_progress *p, void *user)
{
    progress_show(user, p);
    return interrupted != 0;
}

/* The text chunks that make a picture reproducible. */
static zimage_status write_picture(const session *s, const picture_job *job, const zimage_image *image,
                                   zimage_error *error)
{
    const options *o = s->opt;
    char seed[32], size[32], steps[16], guidance[32], software[32];
    zimage_text texts[10];
    size_t n = 0;
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)job->seed);
    snprintf(size, sizeof size, "%dx%d", zimage_image_width(image), zimage_image_height(image));
    snprintf(steps, sizeof steps, "%lld", (long long)job->steps);
    snprintf(guidance, sizeof guidance, "%g", job->guidance);
    snprintf(software, sizeof software, "zimage %s", zimage_version());
    if (job->prompt)
        texts[n++] = (zimage_text){"prompt", job->prompt};
    if (job->negative && job->guidance > 0)
        texts[n++] = (zimage_text){"negative_prompt", job->negative};
    if (!o->latents)
        texts[n++] = (zimage_text){"seed", seed};
    if (!o->latents)
        texts[n++] = (zimage_text){"rng", o->rng_name ? o->rng_name : "torch-cpu"};
    texts[n++] = (zimage_text){"size", size};
    texts[n++] = (zimage_text){"steps", steps};
    texts[n++] = (zimage_text){"guidance", guidance};
    texts[n++] = (zimage_text){"model", o->model};
    texts[n++] = (zimage_text){"Software", software};
    return zimage_image_write_png(image, job->path, texts, n, error);
}

static zimage_status save_latents(const options *o, const zimage_image *image, zimage_error *error)
{
    int64_t shape[4] = {1};
    const float *latents = zimage_image_latents(image, shape + 1);
    return zimage_tensor_write(o->save_latents, "latents", latents, shape, 4, error);
}

/* total: seconds from the prompt to the pixels. */
static void tell(session *s, const picture_job *job, const zimage_image *image, double total)
{
    for (int i = 0; i < ZIMAGE_STAGES; i++)
        s->seconds[i] += zimage_image_seconds(image, (zimage_stage)i);
    s->device = *zimage_image_device_plan(image);
    if (s->images)
        json_array_append_new(s->images, json_pack("{s:s, s:I, s:f}", "path", job->path, "seed", (json_int_t)job->seed,
                                                   "seconds", total));
    else if (s->opt->latents)
        printf("%s  %dx%d  %.1f s\n", job->path, zimage_image_width(image), zimage_image_height(image), total);
    else
        printf("%s  %dx%d  seed %llu  %.1f s\n", job->path, zimage_image_width(image), zimage_image_height(image),
               (unsigned long long)job->seed, total);
    fflush(stdout);
}

/* width x height of the request, from the job, else from --latents, else the model's own. */
static void choose_size(const session *s, const picture_job *job, const zimage_model_info *info,
                        zimage_request *request)
{
    if (s->latents) {
        request->height = (int32_t)(s->latents_shape[2] * info->vae_scale_factor);
        request->width = (int32_t)(s->latents_shape[3] * info->vae_scale_factor);
    }
    if (job->width)
        request->width = (int32_t)job->width;
    if (job->height)
        request->height = (int32_t)job->height;
}

static int check_latents(const session *s, const zimage_model_info *info, const zimage_request *request)
{
    int64_t rows = request->height / info->vae_scale_factor, columns = request->width / info->vae_scale_factor;
    const int64_t *shape = s->latents_shape;
    if (!s->latents || (s->latents_dims == 4 && shape[0] == 1 && shape[1] == info->latent_channels &&
                        shape[2] == rows && shape[3] == columns))
        return 1;
    cli_usage_error(COMMAND,
                    "%s: tensor \"latents\" has %d dimensions [%lld, %lld, %lld, %lld], expected [1, %d, %lld, "
                    "%lld] for a picture of %dx%d",
                    s->opt->latents, s->latents_dims, (long long)shape[0], (long long)shape[1], (long long)shape[2],
                    (long long)shape[3], info->latent_channels, (long long)rows, (long long)columns, request->width,
                    request->height);
    return 0;
}

/* 0: the latents do not fit, told. */
static int fill_request(const session *s, picture_job *job, zimage_request *filled)
{
    const options *o = s->opt;
    zimage_model_info info;
    zimage_request request;
    zimage_get_model_info(s->context, &info);
    zimage_request_init(s->context, &request);
    choose_size(s, job, &info, &request);
    if (!check_latents(s, &info, &request))
        return 0;
    if (job->steps)
        request.steps = (int32_t)job->steps;
    job->steps = request.steps;
    request.prompt = job->prompt;
    request.negative_prompt = job->negative;
    request.seed = job->seed;
    request.rng = o->rng;
    request.guidance_scale = (float)job->guidance;
    request.cfg_truncation = o->cfg_truncation;
    request.cfg_normalization = (float)o->cfg_normalization;
    request.prompt_embeds = s->embeds;
    request.prompt_tokens = (int32_t)s->embeds_tokens;
    request.latents = s->latents;
    request.memory_limit = o->memory;
    request.release_weights = !o->batch && o->count == 1; /* nothing comes after this picture */
    *filled = request;
    return 1;
}

static int make_picture(session *s, picture_job *job)
{
    const options *o = s->opt;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    progress_bar bar;
    if (!fill_request(s, job, &request))
        return CLI_FAILURE;
    progress_init(&bar, o->quiet);
    request.progress = on_progress;
    request.progress_user = &bar;

    zimage_image *image = NULL;
    double start = seconds_now();
    zimage_status status = zimage_generate(s->context, &request, &image, &error);
    double total = seconds_now() - start;
    progress_end(&bar);
    if (status == ZIMAGE_OK && o->save_latents)
        status = save_latents(o, image, &error);
    if (status == ZIMAGE_OK)
        status = write_picture(s, job, image, &error);
    if (status == ZIMAGE_OK)
        tell(s, job, image, total);
    zimage_image_free(image);
    return status == ZIMAGE_OK ? 0 : cli_failure(COMMAND, &error);
}

/* ---- plans ---- */

static int print_plan_json(const zimage_plan_result *plan)
{
    json_t *stages = json_array();
    for (int i = 0; i < ZIMAGE_STAGES; i++) {
        const zimage_stage_plan *stage = &plan->stages[i];
        json_array_append_new(stages,
                              json_pack("{s:s, s:f, s:f, s:I, s:I, s:I}", "name", zimage_stage_name((zimage_stage)i),
                                        "flops", stage->flops, "seconds", stage->seconds, "activation_bytes",
                                        (json_int_t)stage->activation_bytes, "weight_bytes",
                                        (json_int_t)stage->weight_bytes, "peak_bytes", (json_int_t)stage->peak_bytes));
    }
    json_t *all = json_pack("{s:o, s:f, s:I, s:I, s:i, s:o*}", "stages", stages, "seconds", plan->seconds, "peak_bytes",
                            (json_int_t)plan->peak_bytes, "least_bytes", (json_int_t)plan->least_bytes, "band_rows",
                            plan->band_rows, "device", cli_device_json(&plan->device));
    int failed = !all || json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) != 0 || puts("") < 0;
    json_decref(all);
    return failed ? CLI_FAILURE : 0;
}

static void print_device_plan(const zimage_device_plan *d)
{
    printf("on the card %llu of %llu MiB: values %llu, workspace %llu, weights that stay %llu, others in turn %llu; "
           "%llu MiB of weights are sent at each step; with --vram at least %lluM\n",
           cli_mib(d->total_bytes), (unsigned long long)(d->limit_bytes >> 20), cli_mib(d->value_bytes),
           cli_mib(d->workspace_bytes), cli_mib(d->resident_bytes), cli_mib(d->ring_bytes), cli_mib(d->step_bytes),
           cli_mib(d->least_bytes));
}

static int print_plan(const zimage_plan_result *plan)
{
    printf("%-14s %10s %10s %12s %12s %12s\n", "stage", "TFLOP", "seconds", "values MiB", "weights MiB", "memory MiB");
    for (int i = 0; i < ZIMAGE_STAGES; i++) {
        const zimage_stage_plan *stage = &plan->stages[i];
        printf("%-14s %10.3f %10.1f %12llu %12llu %12llu\n", zimage_stage_name((zimage_stage)i), stage->flops * 1e-12,
               stage->seconds, cli_mib(stage->activation_bytes), cli_mib(stage->weight_bytes),
               cli_mib(stage->peak_bytes));
    }
    if (plan->device.limit_bytes > 0)
        print_device_plan(&plan->device);
    return printf("about %.0f s, %llu MiB of memory; with --mem at least %lluM\n", plan->seconds,
                  cli_mib(plan->peak_bytes), cli_mib(plan->least_bytes)) < 0
               ? CLI_FAILURE
               : 0;
}

static int tell_plan(const session *s)
{
    const options *o = s->opt;
    picture_job job = {o->prompt, o->negative, NULL, o->seed, o->width, o->height, o->steps, o->guidance};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    zimage_plan_result plan;
    if (!fill_request(s, &job, &request))
        return CLI_FAILURE;
    if (zimage_plan(s->context, &request, &plan, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    return o->json ? print_plan_json(&plan) : print_plan(&plan);
}

static int make_single(session *s)
{
    const options *o = s->opt;
    uint64_t seed = o->has_seed ? o->seed : random_seed();
    int code = 0;
    for (int64_t i = 0; i < o->count && !code; i++) {
        char path[PATH_MAX];
        name_picture(o, seed + (uint64_t)i, i + 1, path);
        picture_job job = {o->prompt, o->negative, path,     seed + (uint64_t)i,
                           o->width,  o->height,   o->steps, o->guidance};
        code = make_picture(s, &job);
    }
    return code;
}

/* ---- batches ---- */

/* A whole number of a batch line; absent = fallback. */
static int line_int(const json_t *line, const char *field, int64_t low, int64_t high, int64_t number, int64_t *value)
{
    const json_t *found = json_object_get(line, field);
    if (!found)
        return 1;
    if (json_is_integer(found) && json_integer_value(found) >= low && json_integer_value(found) <= high) {
        *value = json_integer_value(found);
        return 1;
    }
    cli_usage_error(COMMAND, "--batch line %lld: %s, expected a whole number from %lld to %lld", (long long)number,
                    field, (long long)low, (long long)high);
    return 0;
}

static const char *line_string(const json_t *line, const char *field)
{
    return json_string_value(json_object_get(line, field));
}

static int run_line(session *s, const json_t *line, int64_t number)
{
    const options *o = s->opt;
    int64_t seed = (int64_t)random_seed();
    double guidance = o->guidance;
    const char *output = line_string(line, "output");
    picture_job job = {.prompt = line_string(line, "prompt"),
                       .negative = line_string(line, "negative"),
                       .width = o->width,
                       .height = o->height,
                       .steps = o->steps};
    if (!job.prompt || !output || !has_png_suffix(output) || strchr(output, '/'))
        return cli_usage_error(COMMAND,
                               "--batch line %lld: expected \"prompt\": a text and \"output\": a file name "
                               "ending in .png without folders",
                               (long long)number);
    if (!line_int(line, "seed", 0, INT64_MAX, number, &seed) ||
        !line_int(line, "width", 1, INT_MAX, number, &job.width) ||
        !line_int(line, "height", 1, INT_MAX, number, &job.height) ||
        !line_int(line, "steps", 1, 1000, number, &job.steps))
        return CLI_USAGE;
    const json_t *line_guidance = json_object_get(line, "guidance");
    if (line_guidance) {
        if (!json_is_number(line_guidance))
            return cli_usage_error(COMMAND, "--batch line %lld: guidance, expected a number", (long long)number);
        guidance = json_number_value(line_guidance);
    }
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", o->out_dir, output) >= (int)sizeof path - 40)
        return cli_usage_error(COMMAND, "--batch line %lld: output, the path is too long", (long long)number);
    if (!job.negative)
        job.negative = o->negative;
    job.path = path;
    job.seed = (uint64_t)seed;
    job.guidance = guidance;
    return check_output(path) ? make_picture(s, &job) : CLI_USAGE;
}

static int run_batch(session *s)
{
    FILE *file = fopen(s->opt->batch, "r");
    if (!file)
        return cli_usage_error(COMMAND, "--batch: can't read %s: %s", s->opt->batch, strerror(errno));
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length;
    int code = 0;
    for (int64_t number = 1; !code && (length = getline(&text, &capacity, file)) != -1; number++) {
        if (strspn(text, " \t\r\n") == (size_t)length)
            continue;
        json_error_t reason;
        json_t *line = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &reason);
        code = json_is_object(line) ? run_line(s, line, number)
                                    : cli_usage_error(COMMAND, "%s: line %lld is not a JSON object: %s", s->opt->batch,
                                                      (long long)number, line ? "another value" : reason.text);
        json_decref(line);
    }
    free(text);
    fclose(file);
    return code;
}

/* ---- the command ---- */

static int print_json(const session *s)
{
    json_t *seconds = json_object();
    json_object_set_new(seconds, "load", json_real(s->load_seconds));
    for (int i = 0; i < ZIMAGE_STAGES; i++)
        json_object_set_new(seconds, zimage_stage_name((zimage_stage)i), json_real(s->seconds[i]));
    json_t *all = json_pack("{s:O, s:o, s:I, s:o*}", "images", s->images, "seconds", seconds, "peak_rss_bytes",
                            (json_int_t)cli_peak_resident_bytes(), "device", cli_device_json(&s->device));
    int failed = !all || json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) != 0 || puts("") < 0;
    json_decref(all);
    return failed ? CLI_FAILURE : 0;
}

static zimage_status read_inputs(session *s, zimage_error *error)
{
    const options *o = s->opt;
    if (o->prompt_embeds) {
        int64_t shape[4];
        int32_t dims;
        zimage_model_info info;
        zimage_get_model_info(s->context, &info);
        zimage_status status = zimage_tensor_read(o->prompt_embeds, "prompt_embeds", &s->embeds, shape, &dims, error);
        if (status != ZIMAGE_OK)
            return status;
        if (dims != 2 || shape[0] < 1 || shape[0] > info.max_prompt_tokens || shape[1] != info.prompt_embeds_dim) {
            snprintf(error->message, sizeof error->message,
                     "%s: tensor \"prompt_embeds\" has %d dimensions [%lld, %lld], expected [1 to %d tokens, %d]",
                     o->prompt_embeds, dims, (long long)shape[0], (long long)shape[1], info.max_prompt_tokens,
                     info.prompt_embeds_dim);
            return error->status = ZIMAGE_ERROR_ARGUMENT;
        }
        s->embeds_tokens = shape[0];
    }
    if (o->latents)
        return zimage_tensor_read(o->latents, "latents", &s->latents, s->latents_shape, &s->latents_dims, error);
    return ZIMAGE_OK;
}

static int run(session *s)
{
    const options *o = s->opt;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_open_params params;
    zimage_open_params_init(&params);
    params.threads = (int32_t)o->threads;
    params.log = cli_log;
    params.log_user = o->quiet ? (void *)o : NULL;
    params.reference = o->reference;
    params.dequantize = o->dequantize;
    params.compute = o->compute;
    params.cpu_mask = o->cpu_mask;
    params.device = o->device ? o->device : "auto";
    params.device_memory = o->vram;
    double start = seconds_now();
    if (zimage_open(o->model, &params, &s->context, &error) != ZIMAGE_OK || read_inputs(s, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    s->load_seconds = seconds_now() - start;
    if (o->plan)
        return tell_plan(s);
    int code = o->batch ? run_batch(s) : make_single(s);
    return !code && s->images ? print_json(s) : code;
}

int cmd_generate(int argc, char **argv)
{
    options o;
    int code;
    if (!parse(argc, argv, &o, &code))
        return code;
    if (!o.model)
        o.model = cli_default_model();
    if (access(o.model, F_OK) != 0)
        return cli_usage_error(COMMAND, "--model: there is no model folder %s; name one with -m DIR", o.model);
    if (o.output && !check_output(o.output))
        return CLI_USAGE;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    session s = {.opt = &o, .images = o.json ? json_array() : NULL};
    code = run(&s);
    json_decref(s.images);
    zimage_free(s.embeds);
    zimage_free(s.latents);
    zimage_close(s.context);
    return interrupted ? 128 + interrupted : code;
}
