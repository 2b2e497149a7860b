#include "failures.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "shared/json_text.h"

#define COMMAND "generate"

#define FILE_MODE 0666

int cli_failures_begin(cli_failures *failures)
{
    *failures = (cli_failures){0};
    failures->file = open_memstream(&failures->text, &failures->size);
    return failures->file != NULL;
}

/* jansson's whole numbers end at 2^63 - 1, and seeds at 2^64 - 1: so it writes the texts only. */
void cli_failures_add(cli_failures *failures, const cli_job *job, const char *line, const char *error)
{
    json_t *sentence = json_of_text(error);
    char *text = sentence ? json_dumps(sentence, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    json_decref(sentence);
    fprintf(failures->file, "{\"line\":%lld", (long long)job->line);
    if (!job->options->latents)
        fprintf(failures->file, ",\"seed\":%llu", (unsigned long long)job->seed);
    if (*job->key)
        fprintf(failures->file, ",\"key\":\"%s\"", job->key);
    fprintf(failures->file, ",\"error\":%s,\"request\":%s}\n", text ? text : "\"\"", line);
    free(text);
    failures->count++;
}

/* Returns 0 or an errno value. */
static int write_all(int file, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t written = write(file, text, size);
        if (written < 0 && errno != EINTR)
            return errno;
        text += written > 0 ? written : 0;
        size -= written > 0 ? (size_t)written : 0;
    }
    return fsync(file) == 0 ? 0 : errno;
}

/* The file appears when it is complete: under its own name it replaces the one of an earlier run. */
static int write_file(const char *path, const char *text, size_t size)
{
    char temporary[PATH_MAX + 32];
    snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (file < 0)
        return errno;
    int code = write_all(file, text, size);
    if (close(file) != 0 && !code)
        code = errno;
    if (!code && rename(temporary, path) != 0)
        code = errno;
    if (code)
        unlink(temporary);
    return code;
}

void cli_failures_drop(cli_failures *failures)
{
    fclose(failures->file);
    free(failures->text);
}

int cli_failures_end(cli_failures *failures, const char *folder, unsigned long long shard)
{
    char path[PATH_MAX];
    int code = fclose(failures->file) == 0 ? 0 : ENOMEM;
    snprintf(path, sizeof path, "%s/failed-%llu.jsonl", folder, shard);
    if (!code && failures->count > 0)
        code = write_file(path, failures->text, failures->size);
    else if (!code && unlink(path) != 0 && errno != ENOENT)
        code = errno;
    free(failures->text);
    if (!code)
        return 0;
    (void)cli_usage_error(COMMAND, "%s: can't be written: %s", path, strerror(code));
    return CLI_FAILURE;
}
