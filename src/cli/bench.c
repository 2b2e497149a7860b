/* zimage bench: how fast the stages run here, with random weights or a model's own. */
#include <getopt.h>
#include <jansson.h>
#include <string.h>

#include "cli.h"

#define COMMAND "bench"

static const char help[] =
    "usage: zimage bench --synthetic z-image-turbo [OPTIONS]\n"
    "       zimage bench -m DIR [OPTIONS]\n"
    "\n"
    "Times text encoder, one transformer step and VAE decoder; prints TFLOP/s and percentages of this machine's\n"
    "multiply-add peak and of oneDNN's matrix product (if libdnnl is installed), measured in the same run; on a card\n"
    "percentages of its largest matrix product on random numbers.\n"
    "\n"
    "      --synthetic MODEL  random weights in the sizes of z-image-turbo (or small, a toy), made in memory: one\n"
    "                         random block repeated at changing offsets, one network at a time; writes no file\n"
    "      --format F         of the random weights: bf16 (default), f16, f32, q4, q8 (groups of 32)\n"
    "  -m, --model DIR        this model's weights instead\n"
    "  -W, --width N          pixels (default: 512; the model's own size with -m)\n"
    "  -H, --height N\n"
    "      --steps N          runs of each stage, of which the median counts (default: 3; one more, uncounted, when\n"
    "                         the first is short)\n"
    "      --tokens N         of the caption (default: 64)\n"
    "      --layers N         only the first N layers of text encoder and transformer\n"
    "      --threads N        (default: all cores)\n"
    "      --compute KIND     auto (default), f32, bf16 or int8: numbers that products are computed in; auto is bf16\n"
    "                         where the processor multiplies it clearly faster than f32, else f32\n"
    "      --cpu-mask LIST    use these processor features only, as zimage devices names them: avx2,avx512, ...\n"
    "      --device KIND      cpu, cuda, cuda:K (card K), or auto (default): a card where zimage devices lists a "
    "usable\n"
    "                         one and nothing else asks for the processor. On a card --compute is auto (bf16), f32, "
    "bf16 or fp8\n"
    "      --vram SIZE        most memory of a card to take: 8G, 4096M, ... (default: what is free)\n"
    "      --json             print one JSON object: stages, peak_rss_bytes, tiers, on a card peak_device_bytes\n"
    "  -q, --quiet            no line for each run\n"
    "  -h, --help\n";

typedef struct options {
    const char *model, *synthetic, *format;
    int64_t width, height, steps, tokens, layers, threads;
    zimage_compute compute;
    const char *cpu_mask, *device;
    uint64_t vram;
    int json, quiet;
} options;

enum {
    OPT_SYNTHETIC = 256,
    OPT_FORMAT,
    OPT_STEPS,
    OPT_TOKENS,
    OPT_LAYERS,
    OPT_THREADS,
    OPT_COMPUTE,
    OPT_CPU_MASK,
    OPT_DEVICE,
    OPT_VRAM,
    OPT_JSON
};

static const struct option long_options[] = {
    {"synthetic", required_argument, NULL, OPT_SYNTHETIC},
    {"format", required_argument, NULL, OPT_FORMAT},
    {"model", required_argument, NULL, 'm'},
    {"width", required_argument, NULL, 'W'},
    {"height", required_argument, NULL, 'H'},
    {"steps", required_argument, NULL, OPT_STEPS},
    {"tokens", required_argument, NULL, OPT_TOKENS},
    {"layers", required_argument, NULL, OPT_LAYERS},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"compute", required_argument, NULL, OPT_COMPUTE},
    {"cpu-mask", required_argument, NULL, OPT_CPU_MASK},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"vram", required_argument, NULL, OPT_VRAM},
    {"json", no_argument, NULL, OPT_JSON},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* 1: go on; 0: a wrong value was told. */
static int take_option(options *o, int option)
{
    switch (option) {
    case OPT_SYNTHETIC:
        o->synthetic = optarg;
        return 1;
    case OPT_FORMAT:
        o->format = optarg;
        return 1;
    case 'm':
        o->model = optarg;
        return 1;
    case 'W':
        return cli_parse_int(COMMAND, "--width", optarg, 1, 1 << 14, &o->width);
    case 'H':
        return cli_parse_int(COMMAND, "--height", optarg, 1, 1 << 14, &o->height);
    case OPT_STEPS:
        return cli_parse_int(COMMAND, "--steps", optarg, 1, 1000, &o->steps);
    case OPT_TOKENS:
        return cli_parse_int(COMMAND, "--tokens", optarg, 1, 512, &o->tokens);
    case OPT_LAYERS:
        return cli_parse_int(COMMAND, "--layers", optarg, 1, 1024, &o->layers);
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
    case OPT_VRAM:
        return cli_parse_size(COMMAND, "--vram", optarg, &o->vram);
    case OPT_JSON:
        o->json = 1;
        return 1;
    case 'q':
        o->quiet = 1;
        return 1;
    default:
        fprintf(stderr, "zimage bench --help lists the options\n");
        return 0;
    }
}

static int check_combination(const options *o)
{
    if (!o->model == !o->synthetic)
        return !cli_usage_error(COMMAND, "--synthetic MODEL or -m DIR: expected one of them");
    if (o->model && o->format)
        return !cli_usage_error(COMMAND,
                                "--format: only with --synthetic; a model's weights are as its files have them");
    return cli_check_vram(COMMAND, o->vram, o->device, 0);
}

/* 0: done or wrong, with *code set; 1: go on. */
static int parse(int argc, char **argv, options *o, int *code)
{
    int option;
    *o = (options){0};
    *code = CLI_USAGE;
    while ((option = getopt_long(argc, argv, "m:W:H:qh", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            *code = 0;
            return 0;
        }
        if (!take_option(o, option))
            return 0;
    }
    if (optind < argc)
        return !cli_usage_error(COMMAND, "\"%s\": unexpected; the model goes behind -m", argv[optind]);
    return check_combination(o);
}

/* ---- results ---- */

static json_t *number_or_null(double value)
{
    return value < 0 ? json_null() : json_real(value);
}

static int print_json(const zimage_bench_result *r)
{
    json_t *stages = json_array();
    for (int i = 0; i < ZIMAGE_BENCH_STAGES; i++) {
        const zimage_bench_figures *f = &r->stages[i];
        json_array_append_new(
            stages, json_pack("{s:s, s:o, s:o, s:o, s:o, s:o*}", "name", zimage_bench_stage_name((zimage_bench_stage)i),
                              "seconds", number_or_null(f->seconds), "tflops", number_or_null(f->tflops),
                              "percent_of_peak", number_or_null(f->percent_of_peak), "percent_of_onednn",
                              number_or_null(f->percent_of_onednn), "device", cli_device_json(&r->device[i])));
    }
    json_t *tiers = json_array();
    for (const char *name = r->tiers; *name; name += strspn(name, ", ")) {
        size_t length = strcspn(name, ",");
        json_array_append_new(tiers, json_stringn(name, length));
        name += length;
    }
    json_t *all =
        json_pack("{s:o, s:I, s:o}", "stages", stages, "peak_rss_bytes", (json_int_t)r->peak_rss_bytes, "tiers", tiers);
    if (r->peak_device_bytes)
        json_object_set_new(all, "peak_device_bytes", json_integer((json_int_t)r->peak_device_bytes));
    int failed = !all || json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) != 0 || puts("") < 0;
    json_decref(all);
    return failed ? CLI_FAILURE : 0;
}

static void print_cell(int width, int decimals, double value)
{
    if (value < 0)
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, value);
}

/* Of a card, where not all weights of a stage stay. */
static void print_device_memory(const zimage_bench_result *r)
{
    for (int i = 0; i < ZIMAGE_BENCH_STAGES; i++)
        if (r->device[i].step_bytes > 0)
            printf("%s: weights that stay %llu MiB; %llu MiB are sent at each run\n",
                   zimage_bench_stage_name((zimage_bench_stage)i), cli_mib(r->device[i].resident_bytes),
                   cli_mib(r->device[i].step_bytes));
}

static int print_table(const options *o, const zimage_bench_result *r)
{
    const char *name = o->model ? o->model : o->synthetic;
    if (!strncmp(r->tiers, "cuda:", 5))
        printf("%s, %dx%d, %d caption tokens; %s, peak %.3f TFLOP/s\n", name, r->width, r->height, r->tokens, r->tiers,
               r->peak_tflops);
    else
        printf("%s, %dx%d, %d caption tokens; %s; %d threads, peak %.3f TFLOP/s; oneDNN %s\n", name, r->width,
               r->height, r->tokens, r->tiers, r->threads, r->peak_tflops, *r->onednn ? r->onednn : "not installed");
    if (o->layers)
        printf("only %d layers of the transformer and %d of the text encoder\n", r->transformer_layers, r->text_layers);
    printf("%-18s %10s %10s %10s %10s %12s\n", "stage", "seconds", "TFLOP/s", "% of peak", "% oneDNN", "planned MiB");
    for (int i = 0; i < ZIMAGE_BENCH_STAGES; i++) {
        const zimage_bench_figures *f = &r->stages[i];
        printf("%-18s", zimage_bench_stage_name((zimage_bench_stage)i));
        print_cell(10, 3, f->seconds);
        print_cell(10, 4, f->tflops);
        print_cell(10, 1, f->percent_of_peak);
        print_cell(10, 1, f->percent_of_onednn);
        if (f->planned_bytes)
            printf(" %12llu\n", cli_mib(f->planned_bytes));
        else
            printf(" %12s\n", "-");
    }
    print_device_memory(r);
    if (r->peak_device_bytes)
        printf("device memory in use %llu MiB\n", cli_mib(r->peak_device_bytes));
    return printf("peak memory %llu MiB\n", cli_mib(r->peak_rss_bytes)) < 0 ? CLI_FAILURE : 0;
}

int cmd_bench(int argc, char **argv)
{
    options o;
    int code;
    if (!parse(argc, argv, &o, &code))
        return code;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_bench_params params;
    zimage_bench_result result;
    zimage_bench_params_init(&params);
    int32_t side = o.synthetic ? 512 : 0;
    params.synthetic = o.synthetic;
    if (o.format)
        params.format = o.format;
    params.width = o.width ? (int32_t)o.width : side;
    params.height = o.height ? (int32_t)o.height : side;
    if (o.steps)
        params.repeats = (int32_t)o.steps;
    if (o.tokens)
        params.tokens = (int32_t)o.tokens;
    params.layers = (int32_t)o.layers;
    params.threads = (int32_t)o.threads;
    params.compute = o.compute;
    params.cpu_mask = o.cpu_mask;
    params.device = o.device ? o.device : "auto";
    params.device_memory = o.vram;
    if (!o.quiet)
        params.log = cli_log;
    if (zimage_bench(o.model, &params, &result, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    return o.json ? print_json(&result) : print_table(&o, &result);
}
