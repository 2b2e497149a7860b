/* zimage generate --shard: each image of a batch is made once, by one of N processes, whatever becomes of them. */
#include "cli/cli.h"
#include "cli/shard.h"
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

/* In a shell: the program on the batch b.jsonl. */
#define GENERATE ZIMAGE_PROGRAM " generate --batch b.jsonl -m " TINY " -q -W 16 -H 16"

#define LINES  (is_brief() ? 40 : 100)
#define SHARDS (is_brief() ? 8 : 64)

static outcome o;

/* Before each test: one that failed may have left files. */
static int clear(void **state)
{
    run_shell("rm -rf '%s'/*", test_folder);
    return 0;
}

static void in_test_folder(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void in_test_folder(const char *format, ...)
{
    char command[2 * PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    run_shell("cd '%s' && { %s; }", test_folder, command);
}

/* LINES lines. Every third has an output, every tenth makes two images, and the last ten are as the first. */
static void put_batch(int steps)
{
    FILE *file = fopen(in_folder("b.jsonl"), "wb");
    assert_non_null(file);
    for (int i = 0; i < LINES; i++) {
        int k = i % (LINES - 10);
        fprintf(file, "{\"prompt\": \"%d apples\", \"seed\": %d, \"steps\": %d", k, k, steps);
        if (i % 3 == 0)
            fprintf(file, ", \"output\": \"%d.png\"", i);
        fprintf(file, "%s}\n", i % 10 == 0 ? ", \"count\": 2" : "");
    }
    assert_int_equal(fclose(file), 0);
}

#define HASHES "find %s -name '*.png' -type f | xargs sha256sum | cut -c 1-64 | sort"

/* ---- all shards together ----------------------------------------------------------------------------------------- */

static void shards_make_the_batch(void **state)
{
    put_batch(1);
    in_test_folder(GENERATE " --out-dir whole >said");
    in_test_folder("i=0; while [ $i -lt %d ]; do " GENERATE
                   " --out-dir out --resume --shard $i/%d --json >>said.json || "
                   "exit 1; i=$((i + 1)); done",
                   SHARDS, SHARDS);
    /* The same images; equal lines without an output share one file. */
    in_test_folder(HASHES " | uniq >a; " HASHES " | uniq >b; [ $(wc -l <a) -gt %d ] && cmp a b", "whole", "out",
                   LINES * 6 / 10);
    in_test_folder("for file in whole/[0-9]*.png; do case $file in whole/*apples*) ;; *) cmp $file "
                   "out/${file#whole/} || exit 1 ;; esac; done");
    /* No image was made twice. */
    in_test_folder("grep -o '\"path\":\"[^\"]*\"' said.json | sort >paths; [ -z \"$(uniq -d paths)\" ] && "
                   "find out -type f | wc -l >files && [ $(wc -l <paths) = $(cat files) ]");
    /* Names by keys lie two folders deep, and the report has the key. */
    in_test_folder(
        "find out -mindepth 3 -name '*.png' | while read -r file; do key=$(basename $file .png) && "
        "[ $file = out/$(printf %%.2s $key)/$(printf %%s $key | cut -c 3-4)/$key.png ] && [ ${#key} = 64 ] && "
        "grep -q \"\\\"key\\\":\\\"$key\\\"\" said.json || exit 1; done");
    in_test_folder("grep -q '\"shard\":\\[%d,%d\\],\"failed\":0' said.json && [ ! -e out/failed-3.jsonl ]", SHARDS - 1,
                   SHARDS);
    /* Again: nothing is left to make. */
    in_test_folder("find out -type f -printf '%%p %%T@\\n' | sort >before; " GENERATE
                   " --out-dir out --resume --shard 0/1 --json >again && grep -q '\"images\":\\[\\]' again && "
                   "find out -type f -printf '%%p %%T@\\n' | sort | cmp - before");
}

/* Killed at any moment, and started again, it makes the same files and leaves no others. */
static void a_killed_shard_goes_on(void **state)
{
    put_batch(is_brief() ? 4 : 40);
    in_test_folder(GENERATE " --out-dir whole --resume --shard 0/1 >said");
    /* Each time a few images later, so that it also works on a slow machine. */
    in_test_folder("made=0; for more in 1 2 3 7 9 11; do " GENERATE
                   " --out-dir out --resume --shard 0/1 >said 2>&1 & work=$!; made=$((made + more)); "
                   "until [ $(find out -name '*.png' 2>/dev/null | wc -l) -ge $made ]; do sleep 0.01; done; "
                   "kill -9 $work && ! wait $work || exit 1; done 2>/dev/null");
    in_test_folder(GENERATE " --out-dir out --resume --shard 0/1 >said");
    in_test_folder("(cd whole && find . -type f | sort | xargs sha256sum) >a; "
                   "(cd out && find . -type f | sort | xargs sha256sum) >b; cmp a b");
}

/* Two processes of one shard, at once. */
static void two_at_once_do_no_harm(void **state)
{
    put_batch(1);
    in_test_folder(GENERATE " --out-dir whole --resume --shard 0/1 >said");
    for (int i = 0; i < (is_brief() ? 1 : 4); i++)
        in_test_folder("rm -rf out; " GENERATE " --out-dir out --resume --shard 0/1 >one 2>&1 & first=$!; " GENERATE
                       " --out-dir out --resume --shard 0/1 >two 2>&1 || exit 1; wait $first || exit 1; "
                       "(cd whole && find . -type f | sort | xargs sha256sum) >a; "
                       "(cd out && find . -type f | sort | xargs sha256sum) >b; cmp a b");
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

/* A line that fails is listed, and the others are made. */
static void failures_are_listed(void **state)
{
    put_file("b.jsonl", "{\"prompt\": \"a\", \"seed\": 1}\n"
                        "  {\"prompt\": \"b\", \"seed\": 2, \"width\": 17}\r\n"
                        "{\"prompt\": \"c\", \"seed\": 3, \"image\": \"no.png\"}\n"
                        "{\"prompt\": \"d\", \"seed\": 18446744073709551615, \"output\": \"d.png\"}\n");
    in_test_folder(GENERATE " --out-dir out --resume --shard 0/1 --json >said 2>err; [ $? = 1 ]");
    in_test_folder("[ -s out/d.png ] && [ $(find out -name '*.png' | wc -l) = 2 ] && grep -q '\"failed\":2' said && "
                   "! grep -q '\"error\"' said");
    json_t *entry[2];
    FILE *file = fopen(in_folder("out/failed-0.jsonl"), "rb");
    assert_non_null(file);
    for (int i = 0; i < 2; i++)
        assert_non_null(entry[i] = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL));
    assert_null(json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL));
    fclose(file);
    /* The one whose key is not known comes first: it fails before anything is made. */
    assert_int_equal(json_integer_value(json_object_get(entry[0], "line")), 3);
    assert_null(json_object_get(entry[0], "key"));
    assert_non_null(strstr(json_string_value(json_object_get(entry[0], "error")), "no.png"));
    assert_int_equal(json_integer_value(json_object_get(entry[1], "line")), 2);
    assert_int_equal(json_integer_value(json_object_get(entry[1], "seed")), 2);
    assert_int_equal(json_string_length(json_object_get(entry[1], "key")), 64);
    assert_string_equal(json_string_value(json_object_get(entry[1], "error")),
                        "b.jsonl: line 2: width: 17, expected a multiple of 16 from 16 to 1024");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(entry[1], "request"), "width")), 17);
    json_decref(entry[0]);
    json_decref(entry[1]);
    /* Every shard notes the line that may be its own. */
    in_test_folder("for i in 0 1 2; do " GENERATE " --out-dir more --resume --shard $i/3 2>err >said; "
                   "grep -q no.png more/failed-$i.jsonl || exit 1; done");
    /* Once nothing fails the list is gone. */
    put_picture("no.png", 16, 16, 0);
    in_test_folder("sed -i 's/, \"width\": 17//' b.jsonl; " GENERATE " --out-dir out --resume --shard 0/1 >said && "
                   "[ ! -e out/failed-0.jsonl ] && [ $(find out -name '*.png' | wc -l) = 4 ]");
}

/* What would meet each image that follows ends the work: here the folder can't be written any more. */
static void a_full_disk_ends_the_work(void **state)
{
    put_batch(1);
    in_test_folder("(ulimit -f 0; " GENERATE " --out-dir out --resume --shard 0/1 >/dev/null 2>err); [ $? = 1 ] && "
                   "[ $(grep -c 'can.t be written' err) -le 2 ] && [ $(find out -name '*.png' | wc -l) = 0 ]");
}

static void refuse(const char *batch, const char *shard, const char *word1, const char *word2)
{
    put_file("b.jsonl", batch);
    expect_refusal(
        ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, "-q", "--resume", "--shard", shard),
        &o, word1, word2);
    assert_int_equal(o.code, 2);
}

static void bad_values_are_refused(void **state)
{
    static const char *const bad[] = {"64/64", "65/64",     "-1/4",  "1/0",    "a/b",   "3",    "3/",
                                      "/3",    "1/1000001", "3/64x", "1/2/3",  "+1/4",  " 1/4", "0x1/4",
                                      "/",     "Auto",      "auto/", "auto/0", "auto64"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse("{\"prompt\": \"a\", \"seed\": 1}", bad[i], "--shard: \"", "with I from 0 to N - 1");
    refuse("{\"prompt\": \"a\"}", "0/1", "line 1 of b.jsonl has no seed", "");
    refuse("{\"prompt\": \"a\", \"seed\": 1}\n{", "0/1", "b.jsonl: line 2", "JSON object");
    refuse("\n", "0/1", "b.jsonl has no line", "");
    /* Also of another shard's line. */
    refuse("{\"prompt\": \"a\", \"seed\": 1, \"output\": \"a.png\"}\n{\"prompt\": \"b\", \"seed\": 1, \"output\": "
           "\"a.png\"}",
           "0/1000", "line 2: output", "line 1 has the same");
    expect_refusal(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, "--shard", "0/1"), &o,
                   "--shard", "only with --resume");
    expect_refusal(ARGUMENTS("generate", "a", "-m", TINY, "--shard", "0/1"), &o, "--shard", "only with --resume");
}

/* A name in the folder that is a link or a folder is refused before anything is made. */
static void names_that_are_taken(void **state)
{
    put_file("b.jsonl", "{\"prompt\": \"a\", \"seed\": 1, \"output\": \"a.png\"}\n");
    in_test_folder(
        "mkdir -p out/a.png; " GENERATE " --out-dir out --resume --shard 0/1 2>err; [ $? = 2 ] && "
        "grep -q 'line 1: output: out/a.png is no file' err && rmdir out/a.png && ln -s ../x out/a.png; " GENERATE
        " --out-dir out --resume --shard 0/1 2>err; [ $? = 2 ] && grep -q 'symbolic link' err && [ ! -e x ]");
}

/* ---- the environment --------------------------------------------------------------------------------------------- */

static const char *const variables[] = {"SLURM_ARRAY_TASK_ID",
                                        "SLURM_ARRAY_TASK_COUNT",
                                        "SLURM_ARRAY_TASK_MIN",
                                        "SLURM_ARRAY_TASK_MAX",
                                        "SLURM_ARRAY_TASK_STEP",
                                        "SLURM_PROCID",
                                        "SLURM_STEP_NUM_TASKS",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "PMIX_RANK",
                                        "JOB_COMPLETION_INDEX"};

/* "NAME=VALUE NAME=VALUE": nothing else is set. */
static int read_in(const char *environment, const char *text, cli_shard *shard)
{
    char copy[512], *rest = NULL;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    snprintf(copy, sizeof copy, "%s", environment);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = 0;
        setenv(word, equals + 1, 1);
    }
    return cli_shard_read("generate", text, shard);
}

#define ARRAY "SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_COUNT=8 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=7"

static const struct {
    const char *environment, *text;
    uint64_t index, count; /* count 0: refused */
} environments[] = {
    {"", "3/64", 3, 64},
    {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2", "0/5", 0, 5},
    {"", "auto", 0, 0},
    {"", "auto/4", 0, 0},
    {ARRAY, "auto", 5, 8},
    {ARRAY " SLURM_ARRAY_TASK_STEP=1", "auto/8", 5, 8},
    {ARRAY, "auto/9", 0, 0},
    {"SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1", "auto", 2, 4},
    {"SLURM_ARRAY_TASK_ID=9 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=13 "
     "SLURM_ARRAY_TASK_STEP=4",
     "auto", 2, 4},
    /* --array=3,17: no range, and its tasks are parts of another count */
    {"SLURM_ARRAY_TASK_ID=17 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_MAX=17 "
     "SLURM_ARRAY_TASK_STEP=1",
     "auto", 0, 0},
    {"SLURM_ARRAY_TASK_ID=3", "auto", 0, 0},
    {"SLURM_ARRAY_TASK_ID=x SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=0", "auto", 0, 0},
    {ARRAY " SLURM_PROCID=0", "auto", 5, 8}, /* the script itself */
    {ARRAY " SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=4", "auto", 21, 32},
    {ARRAY " OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1", "auto", 11, 16},
    {ARRAY " OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=2", "auto", 0, 0},
    {ARRAY " PMIX_RANK=1", "auto", 0, 0},
    {"SLURM_PROCID=2 SLURM_STEP_NUM_TASKS=3", "auto", 2, 3},
    {"SLURM_PROCID=0", "auto", 0, 0},
    {"SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=3", "auto", 0, 0},
    {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMIX_RANK=1", "auto", 1, 2},
    {"OMPI_COMM_WORLD_RANK=-1 OMPI_COMM_WORLD_SIZE=2", "auto", 0, 0},
    {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=two", "auto", 0, 0},
    {"PMI_RANK=6 PMI_SIZE=7", "auto", 6, 7},
    {"PMIX_RANK=6", "auto", 0, 0},
    {"PMIX_RANK=6", "auto/7", 6, 7},
    {"PMIX_RANK=7", "auto/7", 0, 0},
    {"JOB_COMPLETION_INDEX=6", "auto", 0, 0},
    {"JOB_COMPLETION_INDEX=6", "auto/7", 6, 7},
    {"JOB_COMPLETION_INDEX=7", "auto/7", 0, 0},
    {"JOB_COMPLETION_INDEX= PMI_RANK=0 PMI_SIZE=1", "auto", 0, 1},
    {"PMI_RANK=0 PMI_SIZE=2000000", "auto", 0, 0},
    {"PMI_RANK=99999999999999999999 PMI_SIZE=2", "auto", 0, 0},
};

static void every_starter_is_known(void **state)
{
    for (size_t i = 0; i < sizeof environments / sizeof *environments; i++) {
        cli_shard shard = {0, 0};
        int code = read_in(environments[i].environment, environments[i].text, &shard);
        if (code != (environments[i].count ? 0 : CLI_USAGE) ||
            (!code && (shard.index != environments[i].index || shard.count != environments[i].count)))
            fail_msg("%s with %s: exit code %d, %llu of %llu", environments[i].text, environments[i].environment, code,
                     (unsigned long long)shard.index, (unsigned long long)shard.count);
    }
    read_in("", "0/1", &(cli_shard){0, 0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(shards_make_the_batch, clear),     cmocka_unit_test_setup(a_killed_shard_goes_on, clear),
        cmocka_unit_test_setup(two_at_once_do_no_harm, clear),    cmocka_unit_test_setup(failures_are_listed, clear),
        cmocka_unit_test_setup(a_full_disk_ends_the_work, clear), cmocka_unit_test_setup(bad_values_are_refused, clear),
        cmocka_unit_test_setup(names_that_are_taken, clear),      cmocka_unit_test_setup(every_starter_is_known, clear),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
