#include "jobs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "naming.h"

int cli_jobs_add(cli_jobs *jobs, const cli_job *job)
{
    if ((jobs->count & (jobs->count - 1)) == 0) { /* the memory doubles at each power of two */
        size_t capacity = jobs->count ? 2 * jobs->count : 1;
        cli_job *items = realloc(jobs->items, capacity * sizeof *items);
        if (!items)
            return 0;
        jobs->items = items;
    }
    jobs->items[jobs->count++] = *job;
    return 1;
}

void cli_jobs_free(cli_jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++) {
        free(jobs->items[i].path);
        free(jobs->items[i].own);
        json_decref(jobs->items[i].json);
    }
    free(jobs->items);
    *jobs = (cli_jobs){0};
}

/* The images of the command line's own prompt: --count of them. */
static int make_counted(const cli_options *options, cli_jobs *jobs)
{
    uint64_t seed = CLI_IS_GIVEN(options, seed) ? options->seed : cli_random_seed();
    for (int64_t i = 0; i < options->count; i++) {
        char path[PATH_MAX];
        cli_name_image(options, seed + (uint64_t)i, i + 1, path);
        if (!cli_can_write_image("generate", "--output", path))
            return CLI_USAGE;
        cli_job job = {.options = options, .seed = seed + (uint64_t)i, .path = strdup(path)};
        if (!job.path || !cli_jobs_add(jobs, &job)) {
            free(job.path);
            fprintf(stderr, "zimage generate: no memory for %lld images\n", (long long)options->count);
            return CLI_FAILURE;
        }
    }
    return 0;
}

int cli_jobs_make(const cli_options *options, cli_jobs *jobs)
{
    if (options->save_latents && !cli_can_write("generate", "--save-latents", options->save_latents))
        return CLI_USAGE;
    return options->batch ? cli_batch_read(options, jobs) : make_counted(options, jobs);
}
