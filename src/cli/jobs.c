#include "jobs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "naming.h"
#include "places.h"
#include "selection.h"

#define COMMAND "generate"

#define LABEL_MAX (PATH_MAX + 64)

/* What begins a message about a job's file: "--output", or "b.jsonl: line 3: output". */
static void label_of(const cli_jobs *jobs, const cli_job *job, const char *name, char label[LABEL_MAX])
{
    if (job->line)
        snprintf(label, LABEL_MAX, "%s: line %lld: %s", jobs->options->batch, (long long)job->line,
                 cli_find(CLI_GENERATE, name)->key);
    else
        snprintf(label, LABEL_MAX, "--%s", name);
}

static int no_memory(const cli_jobs *jobs)
{
    (void)cli_usage_error(COMMAND, "no memory for %zu images", jobs->count + 1);
    return CLI_FAILURE;
}

/* ---- one job ---- */

/* Notes that a job writes to a path. An exit code after a message, which calls the file `name`: another does. */
static int take_place(cli_jobs *jobs, const cli_job *job, const char *label, const char *name, const char *path)
{
    char real[PATH_MAX];
    struct stat st;
    if (!jobs->selection && stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return 0; /* a device takes any number of files */
    /* A link may lead to another job's file. A shard follows none, and doesn't look at a million names. */
    const char *paths[] = {path, jobs->selection ? NULL : realpath(path, real)};
    for (int i = 0; i < 2 && paths[i]; i++) {
        const json_t *other = json_object_get(jobs->places, paths[i]);
        if (other && json_integer_value(other))
            return cli_usage_error(COMMAND, "%s: \"%s\", but line %lld has the same", label, name,
                                   (long long)json_integer_value(other));
        if (other)
            return cli_usage_error(COMMAND, "%s: \"%s\", but --output has the same", label, name);
    }
    for (int i = 0; i < 2 && paths[i]; i++)
        json_object_set_new_nocheck(jobs->places, paths[i], json_integer(job->line));
    return 0;
}

/* Where a line's file lies: in the folder of the batch. 0: the path is too long. */
static int in_folder(const cli_job *job, const char *name, char path[PATH_MAX])
{
    const char *folder = job->folder;
    return snprintf(path, PATH_MAX, "%s%s%s", folder ? folder : "", folder ? "/" : "", name) < CLI_PATH_MAX;
}

const char *cli_name_in_folder(const cli_job *job, const char *path)
{
    return path + strlen(job->folder) + 1;
}

/* The path of a job's file, which is noted if `noted`. NULL: an exit code is in *code. */
static char *place_of(cli_jobs *jobs, const cli_job *job, const char *option, const char *name, int noted, int *code)
{
    char label[LABEL_MAX], path[PATH_MAX], *copy = NULL;
    label_of(jobs, job, option, label);
    if (!in_folder(job, name, path))
        *code = cli_usage_error(COMMAND, "%s: the path is too long", label);
    else if (noted)
        *code = take_place(jobs, job, label, name, path);
    if (!*code && !(copy = strdup(path)))
        *code = no_memory(jobs);
    return copy;
}

static int append(cli_jobs *jobs, const cli_job *job)
{
    if ((jobs->count & (jobs->count - 1)) == 0) { /* the memory doubles at each power of two */
        size_t capacity = jobs->count ? 2 * jobs->count : 1;
        cli_job *items = realloc(jobs->items, capacity * sizeof *items);
        if (!items)
            return no_memory(jobs);
        jobs->items = items;
    }
    jobs->items[jobs->count++] = *job;
    return 0;
}

/* Whether a job is one of the shard's. One without a name is named by its key. */
static int take_for_shard(cli_jobs *jobs, cli_job *job, int *code)
{
    char name[JOB_KEY_FILE];
    job->named = job->kept = 1;
    if (!cli_selection_takes(jobs->selection, job, job->text))
        return 0;
    if (job->options->output)
        return 1;
    job_key_file(job->key, ZIMAGE_FORMAT_PNG, name);
    free(job->path);
    job->path = place_of(jobs, job, "output", name, 0, code);
    return 1;
}

static int add_job(cli_jobs *jobs, cli_job *job, int64_t index)
{
    const cli_options *options = job->options;
    char name[PATH_MAX];
    int code = 0, is_taken = 1;
    job->named = options->output && options->count == 1;
    job->folder = job->line ? jobs->options->out_dir : NULL;
    cli_name_image(options, job->seed, index, name);
    job->path = place_of(jobs, job, "output", name, options->output != NULL, &code);
    if (!code && options->save_latents)
        job->latents = place_of(jobs, job, "save-latents", options->save_latents, 1, &code);
    if (!code && jobs->selection)
        is_taken = take_for_shard(jobs, job, &code);
    if (!code && is_taken)
        code = append(jobs, job);
    if (code || !is_taken) {
        free(job->path);
        free(job->latents);
    }
    return code;
}

int cli_jobs_add(cli_jobs *jobs, const cli_options *options, int64_t line)
{
    int is_seeded = CLI_IS_GIVEN(options, seed), code = 0;
    uint64_t seed = is_seeded ? options->seed : cli_random_seed();
    if (jobs->selection && !is_seeded && !options->latents)
        return cli_usage_error(COMMAND,
                               "--shard: line %lld of %s has no seed, expected one: without it its image differs each "
                               "time, and belongs to no shard",
                               (long long)line, jobs->options->batch);
    for (int64_t i = 0; i < options->count && !code; i++) {
        cli_job job = {.options = options, .seed = seed + (uint64_t)i, .line = line};
        job.text = jobs->selection ? jobs->lines->text : NULL;
        code = add_job(jobs, &job, i + 1);
    }
    return code;
}

/* ---- all jobs ---- */

/* A shard tries the folder only: a file that is created and removed could meet one that another process makes now. */
static int try_folder(const cli_jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++) {
        char label[LABEL_MAX];
        label_of(jobs, &jobs->items[i], "output", label);
        if (cli_is_link(COMMAND, label, jobs->items[i].path))
            return CLI_USAGE;
        if (cli_exists(jobs->items[i].path) && !cli_is_file(jobs->items[i].path))
            return cli_usage_error(COMMAND, "%s: %s is no file, expected a file or none", label, jobs->items[i].path);
    }
    return cli_can_write_in(COMMAND, "--out-dir", jobs->options->out_dir) ? 0 : CLI_USAGE;
}

/* Whether every file can be written. */
static int try_places(const cli_jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++) {
        const cli_job *job = &jobs->items[i];
        char label[LABEL_MAX];
        label_of(jobs, job, "output", label);
        if (job->named && job->folder && cli_is_link(COMMAND, label, job->path))
            return CLI_USAGE;
        if (!(job->named ? cli_can_write_image : cli_can_create)(COMMAND, label, job->path))
            return CLI_USAGE;
        label_of(jobs, job, "save-latents", label);
        if (job->folder && job->latents && cli_is_link(COMMAND, label, job->latents))
            return CLI_USAGE;
        if (job->latents && !cli_can_write(COMMAND, label, job->latents))
            return CLI_USAGE;
    }
    return 0;
}

/* How many jobs before this one have the same path: a default name, which then gets a number. */
static int same_before(const cli_jobs *jobs, json_t *counts, const cli_job *job)
{
    json_int_t before = json_integer_value(json_object_get(counts, job->path));
    json_object_set_new_nocheck(counts, job->path, json_integer(before + 1));
    return (int)before;
}

/* Marks the jobs whose files exist. A default name is the same in each run only if its seed is. */
static int find_done(cli_jobs *jobs)
{
    int code = 0;
    json_t *counts = json_object();
    for (size_t i = 0; i < jobs->count && counts && !code; i++) {
        cli_job *job = &jobs->items[i];
        char path[PATH_MAX];
        cli_number_name(job->path, job->named ? 1 : 1 + same_before(jobs, counts, job), path);
        if (!job->options->output && !CLI_IS_GIVEN(job->options, seed))
            code = cli_usage_error(COMMAND,
                                   "--resume: line %lld of %s has neither output nor seed, expected one of them: "
                                   "without them the name of its image differs each time",
                                   (long long)job->line, jobs->options->batch);
        job->kept = job->named;
        job->done = cli_is_complete(path) && (!job->latents || cli_is_complete(job->latents));
    }
    json_decref(counts);
    return counts ? code : no_memory(jobs);
}

int cli_job_is_done(const cli_job *job)
{
    return cli_is_complete(job->path) && (!job->latents || cli_is_complete(job->latents));
}

/* A shard's jobs have names that no run changes. */
static void find_done_of_shard(cli_jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++)
        jobs->items[i].done = cli_job_is_done(&jobs->items[i]);
}

size_t cli_jobs_done(const cli_jobs *jobs)
{
    size_t done = 0;
    for (size_t i = 0; i < jobs->count; i++)
        done += jobs->items[i].done != 0;
    return done;
}

int cli_jobs_make(const cli_options *options, cli_selection *selection, cli_jobs *jobs)
{
    *jobs =
        (cli_jobs){.options = options, .selection = selection, .places = json_object(), .existing_folder = SIZE_MAX};
    if (!jobs->places)
        return no_memory(jobs);
    int code = options->batch ? cli_batch_read(jobs) : cli_jobs_add(jobs, options, 0);
    if (!code && options->batch && !cli_folder_make(COMMAND, "--out-dir", options->out_dir, &jobs->existing_folder))
        code = CLI_USAGE;
    if (!code && selection) {
        jobs->existing_folder = SIZE_MAX; /* it stays: another shard may be about to write into it */
        find_done_of_shard(jobs);
        return try_folder(jobs);
    }
    if (!code && options->resume)
        code = find_done(jobs);
    return code ? code : try_places(jobs);
}

void cli_batch_line_free(cli_batch_line *line)
{
    json_decref(line->json);
    free(line->text);
    free(line);
}

void cli_jobs_free(cli_jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++) {
        free(jobs->items[i].path);
        free(jobs->items[i].latents);
    }
    while (jobs->lines) {
        cli_batch_line *line = jobs->lines;
        jobs->lines = line->next;
        cli_batch_line_free(line);
    }
    if (jobs->options && jobs->options->out_dir)
        cli_folder_unmake(jobs->options->out_dir, jobs->existing_folder);
    json_decref(jobs->places);
    free(jobs->items);
    *jobs = (cli_jobs){0};
}
