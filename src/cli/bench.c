/* zimage bench: how fast the stages run here, with random weights or a model's own. */
#include <jansson.h>
#include <string.h>

#include "cli.h"

#define COMMAND        "bench"
#define SYNTHETIC_SIDE 512 /* pixels, where no size is given */

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
    return cli_print_json(COMMAND, all);
}

static void print_cell(int width, int decimals, double value)
{
    if (value < 0)
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, value);
}

/* Of a GPU, where not all weights of a stage are resident. */
static void print_device_memory(const zimage_bench_result *r)
{
    for (int i = 0; i < ZIMAGE_BENCH_STAGES; i++)
        if (r->device[i].step_bytes > 0)
            printf("%s: resident weights %llu MiB; %llu MiB are copied to the GPU at each run\n",
                   zimage_bench_stage_name((zimage_bench_stage)i), cli_mib(r->device[i].resident_bytes),
                   cli_mib(r->device[i].step_bytes));
}

static int print_table(const cli_options *o, const zimage_bench_result *r)
{
    const char *name = o->model ? o->model : o->synthetic;
    if (!strncmp(r->tiers, "cuda:", 5))
        printf("%s, %dx%d, %d prompt tokens; %s, peak %.3f TFLOP/s\n", name, r->width, r->height, r->tokens, r->tiers,
               r->peak_tflops);
    else
        printf("%s, %dx%d, %d prompt tokens; %s; %d threads, peak %.3f TFLOP/s; oneDNN %s\n", name, r->width, r->height,
               r->tokens, r->tiers, r->threads, r->peak_tflops, *r->onednn ? r->onednn : "not installed");
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
    printf("peak memory %llu MiB\n", cli_mib(r->peak_rss_bytes));
    return 0;
}

int cmd_bench(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_bench_params params;
    zimage_bench_result result;
    zimage_bench_params_init(&params);
    int32_t side = o->synthetic ? SYNTHETIC_SIDE : 0;
    params.synthetic = o->synthetic;
    params.format = o->format;
    params.width = o->width ? (int32_t)o->width : side;
    params.height = o->height ? (int32_t)o->height : side;
    params.repeats = (int32_t)o->steps;
    params.tokens = (int32_t)o->tokens;
    params.layers = (int32_t)o->layers;
    params.threads = (int32_t)o->threads;
    params.compute = (zimage_compute)o->compute;
    params.cpu_mask = o->cpu_mask;
    params.device = o->device;
    params.device_memory = o->vram;
    params.log = o->quiet ? cli_log_warnings : cli_log;
    if (zimage_bench(o->model, &params, &result, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    return o->json ? print_json(&result) : print_table(o, &result);
}
