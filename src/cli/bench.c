/* zimage bench: how fast the stages run here, with random weights or a model's own. */
#include <jansson.h>

#include "cli.h"
#include "places.h"

#define COMMAND "bench"

/* Infos of a stage; these getters can't fail. */
static void get_figures(const zimage_bench *bench, int stage, zimage_bench_figures *figures)
{
    *figures = (zimage_bench_figures){.struct_size = sizeof *figures};
    zimage_bench_get_figures(bench, (zimage_bench_stage)stage, figures, NULL);
}

static void get_memory(const zimage_bench *bench, int stage, zimage_memory_info *memory)
{
    *memory = (zimage_memory_info){.struct_size = sizeof *memory};
    zimage_bench_get_memory(bench, (zimage_bench_stage)stage, memory, NULL);
}

/* ---- JSON ---- */

static json_t *number_or_null(double value)
{
    return value < 0 ? json_null() : json_real(value);
}

static json_t *stage_json(const zimage_bench *bench, int stage)
{
    zimage_bench_figures f;
    zimage_memory_info memory;
    get_figures(bench, stage, &f);
    get_memory(bench, stage, &memory);
    json_t *graph = NULL;
    if (f.graph_evaluations > 0)
        graph = json_pack("{s:I, s:I, s:f, s:I}", "nodes", (json_int_t)f.graph_nodes, "evaluations",
                          (json_int_t)f.graph_evaluations, "seconds", f.graph_seconds, "peak_bytes",
                          (json_int_t)f.graph_peak_bytes);
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o*, s:o*}", "name",
                     zimage_bench_stage_name((zimage_bench_stage)stage), "seconds", number_or_null(f.seconds), "tflops",
                     number_or_null(f.tflops), "percent_of_peak", number_or_null(f.percent_of_peak),
                     "percent_of_onednn", number_or_null(f.percent_of_onednn), "device", cli_memory_json(&memory),
                     "graph", graph);
}

static int print_json(const zimage_bench *bench, const zimage_bench_info *info)
{
    json_t *stages = json_array();
    for (int i = 0; i < ZIMAGE_BENCH_STAGE_COUNT; i++)
        json_array_append_new(stages, stage_json(bench, i));
    json_t *all = json_pack("{s:o, s:I, s:o}", "stages", stages, "peak_rss_bytes", (json_int_t)info->peak_rss_bytes,
                            "tiers", cli_names_json(info->kernels));
    if (info->on_gpu)
        json_object_set_new(all, "peak_device_bytes", json_integer((json_int_t)info->peak_device_bytes));
    return cli_print_json(COMMAND, all, CLI_MEASURED);
}

/* ---- text ---- */

static void print_cell(int width, int decimals, double value)
{
    if (value < 0)
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, value);
}

static void print_stage(const zimage_bench *bench, int stage)
{
    zimage_bench_figures f;
    get_figures(bench, stage, &f);
    printf("%-18s", zimage_bench_stage_name((zimage_bench_stage)stage));
    print_cell(10, 3, f.seconds);
    print_cell(10, 4, f.tflops);
    print_cell(10, 1, f.percent_of_peak);
    print_cell(10, 1, f.percent_of_onednn);
    if (f.planned_bytes)
        printf(" %12llu\n", cli_mib(f.planned_bytes));
    else
        printf(" %12s\n", "-");
}

/* Of a GPU, where not all weights of the stage are resident. */
static void print_memory(const zimage_bench *bench, int stage)
{
    zimage_memory_info m;
    get_memory(bench, stage, &m);
    if (m.step_bytes > 0)
        printf("%s: resident weights %llu MiB; %llu MiB are copied to the GPU at each run\n",
               zimage_bench_stage_name((zimage_bench_stage)stage), cli_mib(m.resident_bytes), cli_mib(m.step_bytes));
}

static void print_graph(const zimage_bench *bench, int stage)
{
    zimage_bench_figures f;
    get_figures(bench, stage, &f);
    if (f.graph_evaluations > 0)
        printf("%s: a graph of %lld operations, built in %.1f ms, %lld evaluations, arrays of at most %llu MiB\n",
               zimage_bench_stage_name((zimage_bench_stage)stage), (long long)f.graph_nodes, f.graph_seconds * 1e3,
               (long long)f.graph_evaluations, cli_mib(f.graph_peak_bytes));
}

static int print_table(const cli_options *o, const zimage_bench *bench, const zimage_bench_info *info)
{
    char machine[CLI_TEXT_MAX];
    if (info->on_gpu)
        snprintf(machine, sizeof machine, ", peak %.3f TFLOP/s", info->peak_tflops);
    else
        snprintf(machine, sizeof machine, "; %d threads, peak %.3f TFLOP/s; oneDNN %s", info->threads,
                 info->peak_tflops, *info->onednn ? info->onednn : "not installed");
    cli_line(stdout, "%s, %dx%d, %d prompt tokens; %s%s", o->model ? o->model : o->synthetic, info->width, info->height,
             info->tokens, info->kernels, machine);
    if (o->layers)
        printf("only %d layers of the transformer and %d of the text encoder\n", info->transformer_layers,
               info->text_layers);
    printf("%-18s %10s %10s %10s %10s %12s\n", "stage", "seconds", "TFLOP/s", "% of peak", "% oneDNN", "planned MiB");
    for (int i = 0; i < ZIMAGE_BENCH_STAGE_COUNT; i++)
        print_stage(bench, i);
    for (int i = 0; i < ZIMAGE_BENCH_STAGE_COUNT; i++)
        print_memory(bench, i);
    for (int i = 0; i < ZIMAGE_BENCH_STAGE_COUNT; i++)
        print_graph(bench, i);
    if (info->on_gpu)
        printf("device memory in use %llu MiB\n", cli_mib(info->peak_device_bytes));
    printf("peak memory %llu MiB\n", cli_mib(info->peak_rss_bytes));
    return 0;
}

int cmd_bench(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params session;
    if (o->cache_dir && !cli_can_make_folder(COMMAND, "--cache-dir", o->cache_dir))
        return CLI_USAGE;
    cli_session_params(o, &session);
    const zimage_bench_params params = {
        .struct_size = sizeof params,
        .synthetic = o->synthetic,
        .format = o->format,
        .width = (int32_t)o->width,
        .height = (int32_t)o->height,
        .tokens = (int32_t)o->tokens,
        .layers = (int32_t)o->layers,
        .repeats = (int32_t)o->steps,
        .session = &session,
        .stages = o->stage > 0 ? 1u << (o->stage - 1) : 0,
    };
    zimage_bench *bench = NULL;
    zimage_bench_info info = {.struct_size = sizeof info};
    if (zimage_bench_run(o->model, &params, &bench, &error) != ZIMAGE_OK)
        return cli_option_failure(CLI_BENCH, o, &error);
    zimage_bench_get_info(bench, &info, NULL);
    int code = o->json ? print_json(bench, &info) : print_table(o, bench, &info);
    zimage_bench_free(bench);
    return code;
}
