#include "report.h"

#include <stdlib.h>

#include "cli.h"
#include "shared/json_text.h"

int cli_report_begin(cli_report *report, int json)
{
    *report = (cli_report){0};
    report->images = json ? open_memstream(&report->text, &report->size) : NULL;
    return report->images || !json;
}

/* {"path": ..., "seed": ..., "seconds": ..., "line": ...}, without the seed of noise that a file replaced, and the line
 * only of a batch. Whole numbers of jansson end at 2^63 - 1, and seeds at 2^64 - 1: so jansson writes the text only. */
static void add_entry(cli_report *report, const cli_job *job, double seconds, const char *device)
{
    json_t *path = json_of_text(job->path);
    char *text = path ? json_dumps(path, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    json_decref(path);
    fprintf(report->images, "%s{\"path\":%s", report->count ? "," : "", text ? text : "null");
    if (!job->options->latents)
        fprintf(report->images, ",\"seed\":%llu", (unsigned long long)job->seed);
    fprintf(report->images, ",\"seconds\":%.6g", seconds);
    if (job->line)
        fprintf(report->images, ",\"line\":%lld", (long long)job->line);
    if (*job->key)
        fprintf(report->images, ",\"key\":\"%s\"", job->key);
    if (device)
        fprintf(report->images, ",\"device\":\"%s\"", device);
    fputc('}', report->images);
    free(text);
}

/* Standard output that holds the image holds nothing else: then the line is a message, and --quiet omits it. */
static void print_line(const cli_job *job, const zimage_image *image, double seconds)
{
    const cli_options *o = job->options;
    int taken = cli_is_stdout(job->path) || (o->save_latents && cli_is_stdout(o->save_latents));
    char seed[32] = "";
    if (taken && o->quiet)
        return;
    if (!o->latents)
        snprintf(seed, sizeof seed, "seed %llu  ", (unsigned long long)job->seed);
    cli_line(taken ? stderr : stdout, "%s  %dx%d  %s%.1f s", job->path, zimage_image_width(image),
             zimage_image_height(image), seed, seconds);
    cli_flush_output();
}

void cli_report_image(cli_report *report, const cli_job *job, const zimage_image *image, const char *device)
{
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_image_get_info(image, &info, NULL); /* these can't fail */
    report->memory = (zimage_memory_info){.struct_size = sizeof report->memory};
    zimage_image_get_memory(image, &report->memory, NULL);
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++)
        report->seconds[i] += zimage_image_seconds(image, (zimage_stage)i);
    if (report->images) {
        add_entry(report, job, info.seconds, device);
    } else {
        print_line(job, image, info.seconds);
    }
    report->count++;
}

/* The members behind the images, without the braces around them; NULL: no memory. */
static char *other_members(const cli_report *report)
{
    json_t *seconds = json_object();
    json_object_set_new(seconds, "load", json_real(report->load_seconds));
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++)
        if (i != ZIMAGE_STAGE_ENCODE || report->seconds[i] > 0) /* only images from images have it */
            json_object_set_new(seconds, zimage_stage_name((zimage_stage)i), json_real(report->seconds[i]));
    json_t *members = json_pack("{s:o, s:I, s:o*, s:o*}", "seconds", seconds, "peak_rss_bytes",
                                (json_int_t)zimage_peak_rss_bytes(), "device", cli_memory_json(&report->memory),
                                "error", *report->error ? json_of_text(report->error) : NULL);
    const size_t flags = JSON_COMPACT | JSON_EMBED | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(CLI_MEASURED);
    if (members && report->resumed)
        json_object_set_new(members, "skipped", json_integer((json_int_t)report->skipped));
    if (members && report->shard)
        json_object_set_new(members, "shard",
                            json_pack("[I, I]", (json_int_t)report->shard->index, (json_int_t)report->shard->count));
    if (members && report->shard)
        json_object_set_new(members, "failed", json_integer((json_int_t)report->failed));
    char *text = members ? json_dumps(members, flags) : NULL;
    json_decref(members);
    return text;
}

int cli_report_end(cli_report *report)
{
    if (!report->images)
        return 0;
    int failed = fclose(report->images) != 0;
    char *members = other_members(report);
    failed |= !members;
    if (!failed)
        printf("{\"images\":[%s],%s}\n", report->text, members);
    cli_flush_output();
    free(members);
    free(report->text);
    if (failed)
        fprintf(stderr, "zimage generate: --json: the object can't be made\n");
    return failed ? CLI_FAILURE : 0;
}
