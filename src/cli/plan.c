/* What --plan prints. */
#include "cli.h"
#include "report.h"

static int print_json(const zimage_plan_result *plan)
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
    return cli_print_json("generate", json_pack("{s:o, s:f, s:I, s:I, s:i, s:o*}", "stages", stages, "seconds",
                                                plan->seconds, "peak_bytes", (json_int_t)plan->peak_bytes,
                                                "least_bytes", (json_int_t)plan->least_bytes, "band_rows",
                                                plan->band_rows, "device", cli_device_json(&plan->device)));
}

static void print_device_plan(const zimage_device_plan *d)
{
    printf("on the GPU %llu of %llu MiB: activations %llu, workspace %llu, resident weights %llu, buffer of the other "
           "weights %llu; %llu MiB of weights are copied to it at each step; with --vram at least %lluM\n",
           cli_mib(d->total_bytes), (unsigned long long)(d->limit_bytes >> 20), cli_mib(d->value_bytes),
           cli_mib(d->workspace_bytes), cli_mib(d->resident_bytes), cli_mib(d->ring_bytes), cli_mib(d->step_bytes),
           cli_mib(d->least_bytes));
}

int cli_print_plan(const zimage_plan_result *plan, int json)
{
    if (json)
        return print_json(plan);
    printf("%-14s %10s %10s %15s %12s %12s\n", "stage", "TFLOP", "seconds", "activations MiB", "weights MiB",
           "memory MiB");
    for (int i = 0; i < ZIMAGE_STAGES; i++) {
        const zimage_stage_plan *stage = &plan->stages[i];
        printf("%-14s %10.3f %10.1f %15llu %12llu %12llu\n", zimage_stage_name((zimage_stage)i), stage->flops * 1e-12,
               stage->seconds, cli_mib(stage->activation_bytes), cli_mib(stage->weight_bytes),
               cli_mib(stage->peak_bytes));
    }
    if (plan->device.limit_bytes > 0)
        print_device_plan(&plan->device);
    printf("about %.0f s, %llu MiB of memory; with --mem at least %lluM\n", plan->seconds, cli_mib(plan->peak_bytes),
           cli_mib(plan->least_bytes));
    return 0;
}
