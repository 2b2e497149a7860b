#include "shard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define SHARDS_MAX 1000000

#define AUTO "auto"

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* A whole number below 2^31, of digits only. 0: the text is none. */
static int read_number(const char *text, uint64_t *number)
{
    char *end;
    if (!text || strspn(text, "0123456789") == 0)
        return 0;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && !*end && *number <= INT32_MAX;
}

/* A variable that is not set, or empty: *is_set is 0. */
static int read_variable(const char *command, const char *name, uint64_t *number, int *is_set)
{
    const char *text = getenv(name);
    *is_set = text && *text;
    if (!*is_set || read_number(text, number))
        return 0;
    return cli_usage_error(command, "--shard: the variable %s is \"%s\", expected a whole number", name, text);
}

/* ---- what started the process ------------------------------------------------------------------------------------ */

/* The variables of those that start many processes at once. The first that is set counts: mpirun starts its processes
 * through srun, whose variables they then have, too. */
static const struct {
    const char *index, *count; /* count NULL: it is not said */
} starters[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
    {"PMI_RANK", "PMI_SIZE"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
    {"PMIX_RANK", NULL},
    {"JOB_COMPLETION_INDEX", NULL}, /* of a Job of Kubernetes whose completionMode is Indexed */
};

/* What the variables say. */
typedef struct place {
    const char *name;      /* of the variable that says the index; NULL: none does */
    uint64_t index, count; /* count 0: not said */
} place;

static int find_starter(const char *command, place *found)
{
    int is_set = 0, code = 0;
    for (size_t i = 0; i < sizeof starters / sizeof *starters && !code && !found->name; i++) {
        const char *count = starters[i].count;
        code = read_variable(command, starters[i].index, &found->index, &is_set);
        if (code || !is_set)
            continue;
        if (count)
            code = read_variable(command, count, &found->count, &is_set);
        if (is_set) /* a script of Slurm that runs outside of srun has an index, too */
            found->name = starters[i].index;
    }
    return code;
}

/* A task of an array of Slurm. Its ids are numbered from 0 here, whatever the array's range. */
static int find_array(const char *command, place *found)
{
    static const char *const names[] = {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
                                        "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"};
    uint64_t values[] = {0, 0, 0, 0, 1};
    int are_set[5];
    for (int i = 0; i < 5; i++) {
        int code = read_variable(command, names[i], &values[i], &are_set[i]);
        if (code)
            return code;
    }
    if (!are_set[0])
        return 0;
    if (!are_set[1] || !are_set[2])
        return cli_usage_error(command, "--shard: %s is set, and not %s, expected both", names[0],
                               names[are_set[1] ? 2 : 1]);
    uint64_t id = values[0], count = values[1], least = values[2], step = values[4] ? values[4] : 1;
    uint64_t most = are_set[3] ? values[3] : least + (count - 1) * step;
    if (id < least || most < least || (id - least) % step || (id - least) / step >= count ||
        (most - least) / step + 1 != count)
        return cli_usage_error(command,
                               "--shard: task %llu of the array is one of %llu from %llu to %llu, expected a whole "
                               "range; write --shard I/N",
                               (unsigned long long)id, (unsigned long long)count, (unsigned long long)least,
                               (unsigned long long)most);
    *found = (place){.name = names[0], .index = (id - least) / step, .count = count};
    return 0;
}

/* Each task of an array may start several processes. */
static int find_place(const char *command, place *found)
{
    place array = {0}, process = {0};
    int code = find_array(command, &array);
    if (!code)
        code = find_starter(command, &process);
    if (code)
        return code;
    if (!array.name || !process.name) {
        *found = array.name ? array : process;
        return 0;
    }
    if (!process.count)
        return cli_usage_error(command, "--shard: %s and %s are set, expected one of them; write --shard I/N",
                               array.name, process.name);
    if (process.index >= process.count)
        return cli_usage_error(command, "--shard: the variable %s is %llu, expected less than %llu", process.name,
                               (unsigned long long)process.index, (unsigned long long)process.count);
    *found = (place){.name = process.name,
                     .index = array.index * process.count + process.index,
                     .count = array.count * process.count};
    return 0;
}

/* count: that the user gives; 0: none. */
static int read_auto(const char *command, uint64_t count, cli_shard *shard)
{
    place found = {0};
    int code = find_place(command, &found);
    if (code)
        return code;
    if (!found.name)
        return cli_usage_error(command,
                               "--shard: " AUTO ", but no variable of Slurm, Kubernetes, Open MPI, PMI or PMIx is set; "
                               "write --shard I/N, with I from 0 to N - 1");
    if (!found.count && !count)
        return cli_usage_error(command, "--shard: " AUTO ", but %s alone is set; write --shard " AUTO "/N", found.name);
    if (found.count && count && found.count != count)
        return cli_usage_error(command, "--shard: " AUTO "/%llu, but the variables beside %s say that there are %llu",
                               (unsigned long long)count, found.name, (unsigned long long)found.count);
    *shard = (cli_shard){found.index, count ? count : found.count};
    if (shard->index < shard->count && shard->count <= SHARDS_MAX)
        return 0;
    return cli_usage_error(command, "--shard: the variable %s is %llu, expected less than %llu", found.name,
                           (unsigned long long)shard->index, (unsigned long long)shard->count);
}

/* ---- the option -------------------------------------------------------------------------------------------------- */

int cli_shard_read(const char *command, const char *text, cli_shard *shard)
{
    char index[32];
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : strlen(text);
    int is_auto = length == strlen(AUTO) && !strncmp(text, AUTO, length);
    snprintf(index, sizeof index, "%.*s", length < sizeof index ? (int)length : 0, text);
    *shard = (cli_shard){0, 0};
    int is_good =
        slash ? read_number(slash + 1, &shard->count) && shard->count > 0 && shard->count <= SHARDS_MAX : is_auto;
    if (is_good && is_auto)
        return read_auto(command, shard->count, shard);
    if (is_good && read_number(index, &shard->index) && shard->index < shard->count)
        return 0;
    return cli_usage_error(command,
                           "--shard: \"%s\", expected I/N such as 3/64, with I from 0 to N - 1 and N at most %d; " AUTO
                           " or " AUTO "/N",
                           text, SHARDS_MAX);
}
