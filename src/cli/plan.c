/* What --plan prints. */
#include <string.h>

#include "cli.h"
#include "report.h"

/* Stage number i in the order in which they run; 0: the request has none of it. */
static int stage_at(const zimage_plan *plan, int i, zimage_stage_info *stage)
{
    *stage = (zimage_stage_info){.struct_size = sizeof *stage};
    zimage_plan_get_stage(plan, i == 0 ? ZIMAGE_STAGE_ENCODE : (zimage_stage)(i - 1), stage, NULL);
    return stage->stage != ZIMAGE_STAGE_ENCODE || stage->flops > 0;
}

static int print_json(const zimage_plan *plan, const zimage_plan_info *info, const zimage_memory_info *memory)
{
    json_t *stages = json_array();
    int failed = 0;
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        zimage_stage_info stage;
        if (!stage_at(plan, i, &stage))
            continue;
        failed |= json_array_append_new(
            stages,
            json_pack("{s:s, s:f, s:f, s:I, s:I, s:I}", "name", zimage_stage_name(stage.stage), "flops", stage.flops,
                      "seconds", stage.seconds, "activation_bytes", (json_int_t)stage.activation_bytes, "weight_bytes",
                      (json_int_t)stage.weight_bytes, "peak_bytes", (json_int_t)stage.peak_bytes));
    }
    json_t *all = json_pack("{s:o, s:f, s:I, s:I, s:i, s:o*}", "stages", stages, "seconds", info->seconds, "peak_bytes",
                            (json_int_t)info->peak_bytes, "least_bytes", (json_int_t)info->least_bytes, "band_rows",
                            info->band_rows, "device", cli_memory_json(memory));
    if (failed) {
        json_decref(all);
        all = NULL;
    }
    return cli_print_json("generate", all, CLI_MEASURED);
}

/* `where`: "the GPU" or "each GPU" */
static void print_memory(const zimage_memory_info *m, const char *where)
{
    printf("on %s %llu of %llu MiB: activations %llu, workspace %llu, resident weights %llu, buffer of the other "
           "weights %llu; %llu MiB of weights are copied to it at each step; with --vram at least %lluM\n",
           where, cli_mib(m->total_bytes), (unsigned long long)(m->limit_bytes >> 20), cli_mib(m->activation_bytes),
           cli_mib(m->workspace_bytes), cli_mib(m->resident_bytes), cli_mib(m->ring_bytes), cli_mib(m->step_bytes),
           cli_mib(m->least_bytes));
    if (m->exchange_bytes > 0)
        printf("each GPU sends or receives %llu MiB at each step\n", cli_mib(m->exchange_bytes));
}

static void print_table(const zimage_plan *plan)
{
    printf("%-14s %10s %10s %15s %12s %12s\n", "stage", "TFLOP", "seconds", "activations MiB", "weights MiB",
           "memory MiB");
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        zimage_stage_info stage;
        if (!stage_at(plan, i, &stage))
            continue;
        printf("%-14s %10.3f %10.1f %15llu %12llu %12llu\n", zimage_stage_name(stage.stage), stage.flops * 1e-12,
               stage.seconds, cli_mib(stage.activation_bytes), cli_mib(stage.weight_bytes), cli_mib(stage.peak_bytes));
    }
}

int cli_print_plan(const zimage_plan *plan, const cli_options *o)
{
    zimage_plan_info info = {.struct_size = sizeof info};
    zimage_memory_info memory = {.struct_size = sizeof memory};
    zimage_plan_get_info(plan, &info, NULL); /* these can't fail */
    zimage_plan_get_memory(plan, &memory, NULL);
    if (o->json)
        return print_json(plan, &info, &memory);
    print_table(plan);
    if (memory.limit_bytes > 0)
        print_memory(&memory, strchr(o->device, ',') ? "each GPU" : "the GPU");
    printf("about %.0f s, %llu MiB of memory; with --mem at least %lluM\n", info.seconds, cli_mib(info.peak_bytes),
           cli_mib(info.least_bytes));
    return 0;
}
