#include "selection.h"

#include "cli.h"
#include "metadata.h"

/* The request of a line is the same for all of its images, apart from the seed. */
static void read_line(cli_selection *s, const cli_job *job)
{
    if (s->line == job->line)
        return;
    s->inputs.options = NULL; /* another line's options may have had the same address */
    s->line = job->line;
    s->status = cli_request_fill(job->options, s->model, &s->inputs, &s->request, &s->error);
}

int cli_selection_takes(cli_selection *s, cli_job *job, const char *text)
{
    char sentence[CLI_SENTENCE_MAX];
    s->seen++;
    read_line(s, job);
    zimage_status status = s->status;
    if (status == ZIMAGE_OK)
        status = cli_job_key(job, &s->request, s->model, job->key, &s->error);
    if (status == ZIMAGE_OK)
        return job_key_shard(job->key, s->shard.count) == s->shard.index;
    cli_translate(CLI_GENERATE, job->options, s->error.message, sentence);
    cli_failures_add(s->failures, job, text, sentence);
    return 0;
}

void cli_selection_end(cli_selection *s)
{
    cli_inputs_free(&s->inputs);
}
