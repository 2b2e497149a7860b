/* The table of options and what is made from it: every option in help, manual page and completions; every rule about
 * combinations on the command line and in lines of a batch; every kind of value; the cache folder. */
#include "cli/cli.h"
#include "cli/names.h"
#include "cli/options.h"
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

static outcome o;

/* ---- command lines, built from the table ---- */

#define WORDS_MAX 40
#define WORD_MAX  64

typedef struct line {
    const char *words[WORDS_MAX]; /* NULL-terminated */
    char memory[WORDS_MAX][WORD_MAX];
    int count;
} line;

static void add_word(line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_word(line *l, const char *format, ...)
{
    assert_true(l->count + 1 < WORDS_MAX);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(l->memory[l->count], WORD_MAX, format, arguments);
    va_end(arguments);
    l->words[l->count] = l->memory[l->count];
    l->words[++l->count] = NULL;
}

/* A value that the option takes; a number is larger than `above`. */
static void sample(const cli_option *option, double above, char text[WORD_MAX])
{
    double number = above + 1 > option->low ? above + 1 : option->low;
    switch (option->kind) {
    case CLI_INT:
    case CLI_FLOAT:
    case CLI_UINT64:
        snprintf(text, WORD_MAX, "%.0f", number);
        break;
    case CLI_SIZE:
        strcpy(text, "4G");
        break;
    case CLI_ENUM:
        strcpy(text, option->value_name(0));
        break;
    case CLI_PIXELS:
        strcpy(text, "64x48");
        break;
    case CLI_COLOUR:
        strcpy(text, "#ffcc00");
        break;
    default:
        strcpy(text, "x.png");
        break;
    }
}

/* Whether a rule counts the other option also where it is not given: then the model decides (options.h). */
static int model_decides(const cli_rule *rule, const cli_option *other)
{
    return rule->kind == CLI_NEEDS && rule->condition == CLI_ABOVE && !other->fallback;
}

static void add_option(line *l, const cli_option *option, const char *value)
{
    if (option->bare) {
        add_word(l, "--%s=%s", option->name, value);
        return;
    }
    add_word(l, "--%s", option->name);
    if (option->kind != CLI_FLAG)
        add_word(l, "%s", value);
}

/* Adds the option and what it needs, but for what the rule `without` needs. */
static void add_with_needs(line *l, cli_command_id command, const cli_option *option, const char *value,
                           const cli_rule *without)
{
    add_option(l, option, value);
    for (const cli_rule *rule = option->rules; rule->kind; rule++)
        if (rule != without && rule->kind == CLI_NEEDS) {
            char needed[WORD_MAX];
            const cli_option *other = cli_find(command, rule->other);
            assert_non_null(other);
            sample(other, rule->above, needed);
            add_option(l, other, needed);
        }
}

static void expect_usage_error(const char *const *arguments, const char *word1, const char *word2)
{
    int before = count_files(test_folder);
    run_program(arguments, &o);
    if (o.code != 2 || !strstr(o.err, word1) || !strstr(o.err, word2))
        fail_msg("exit code %d, expected \"%s\" and \"%s\" in: %s", o.code, word1, word2, o.err);
    if (strchr(o.err, '\n') != o.err + strlen(o.err) - 1)
        fail_msg("expected one line: %s", o.err);
    assert_int_equal(count_files(test_folder), before);
}

/* ---- what is made from the table ---- */

/* The part of a text from `begin` to `end`, to be released with free. */
static char *part_of(const char *text, const char *begin, const char *end)
{
    const char *from = strstr(text, begin);
    if (!from)
        fail_msg("no \"%s\"", begin);
    from += strlen(begin);
    const char *to = strstr(from, end);
    return strndup(from, to ? (size_t)(to - from) : strlen(from));
}

static void expect_in(const char *part, const char *what, const char *where, const char *command)
{
    if (!strstr(part, what))
        fail_msg("%s of %s: no \"%s\" in: %s", where, command, what, part);
}

/* Options that the help of a command names are its own, but for those behind the name of another command. */
static void expect_own_options(cli_command_id command, const char *help)
{
    for (const char *word = help; (word = strstr(word, " --"));) {
        char name[64];
        word += strlen(" --");
        snprintf(name, sizeof name, "%.*s", (int)strspn(word, "abcdefghijklmnopqrstuvwxyz-"), word);
        const char *other = word - help > 60 ? word - 60 : help;
        int is_of_another = 0;
        for (; other < word && !is_of_another; other++)
            is_of_another = !strncmp(other, "zimage ", strlen("zimage "));
        if (*name && !cli_find(command, name) && !is_of_another)
            fail_msg("%s --help: no option --%s", cli_commands[command].name, name);
    }
}

static void every_option_is_in_help(void **state)
{
    for (int c = 0; c < CLI_COMMANDS; c++) {
        run_program(ARGUMENTS(cli_commands[c].name, "--help"), &o);
        assert_int_equal(o.code, 0);
        expect_own_options((cli_command_id)c, o.out);
        assert_int_equal(strstr(o.out, "A line of a batch:") != NULL, c == CLI_GENERATE);
        expect_in(o.out, strrchr(cli_commands[c].about, ' ') + 1, "help", cli_commands[c].name);
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)c, option));) {
            char text[WORD_MAX];
            snprintf(text, sizeof text, "--%s%s%s%s", option->name,
                     option->bare       ? "[="
                     : option->argument ? " "
                                        : "",
                     option->argument ? option->argument : "", option->bare ? "]" : "");
            expect_in(o.out, text, "help", cli_commands[c].name);
            if (option->letter) {
                snprintf(text, sizeof text, "  -%c, --%s", option->letter, option->name);
                expect_in(o.out, text, "help", cli_commands[c].name);
            }
        }
        char *long_help = strdup(o.out);
        run_program(ARGUMENTS("help", cli_commands[c].name), &o);
        assert_string_equal(o.out, long_help);
        free(long_help);
        for (char *next = o.out, *end; *next; next = end + 1) {
            end = strchr(next, '\n');
            if (end - next > 80)
                fail_msg("%s --help: a line of %d characters", cli_commands[c].name, (int)(end - next));
        }
    }
    run_program(ARGUMENTS("--help"), &o);
    for (int c = 0; c < CLI_COMMANDS; c++)
        expect_in(o.out, cli_commands[c].summary, "help", "zimage");
}

static void every_option_is_in_the_manual(void **state)
{
    run_program(ARGUMENTS("help", "--man"), &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(strncmp(o.out, ".TH ZIMAGE 1", 12), 0);
    for (int c = 0; c < CLI_COMMANDS; c++) {
        char begin[WORD_MAX];
        snprintf(begin, sizeof begin, ".SS zimage %s\n", cli_commands[c].name);
        char *part = part_of(o.out, begin, "\n.S");
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)c, option));) {
            char name[2 * WORD_MAX] = "\\fB\\-\\-";
            for (const char *n = option->name; *n; n++)
                sprintf(name + strlen(name), "%s%c", *n == '-' ? "\\" : "", *n);
            strcat(name, "\\fR");
            expect_in(part, name, "manual", cli_commands[c].name);
        }
        free(part);
    }
    char *keys = part_of(o.out, ".SH BATCH FILES", "\n.SH");
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key) {
            char key[WORD_MAX];
            snprintf(key, sizeof key, "\\fB%s\\fR", option->key);
            expect_in(keys, key, "manual", "batch files");
        }
    free(keys);
}

static void every_option_is_completed(void **state)
{
    static const struct {
        const char *begin, *end, *option;
    } forms[] = {
        {"    %s) words=\"", "\n", "--%s "},
        {"    %s)\n", ";;", "--%s["},
        {"", "\1", ""}, /* all of the script: each line names its command */
    };
    for (int shell = 0; cli_shell_name(shell); shell++) {
        run_program(ARGUMENTS("completion", cli_shell_name(shell)), &o);
        assert_int_equal(o.code, 0);
        for (int c = 0; c < CLI_COMMANDS; c++) {
            char begin[WORD_MAX], name[WORD_MAX];
            snprintf(begin, sizeof begin, forms[shell].begin, cli_commands[c].name);
            char *part = part_of(o.out, begin, forms[shell].end);
            for (const cli_option *option = NULL; (option = cli_next((cli_command_id)c, option));) {
                snprintf(name, sizeof name, forms[shell].option, option->name);
                if (shell == 1 && option->letter) /* '(-q --quiet)'{-q,--quiet}'[ */
                    snprintf(name, sizeof name, "--%s}'[", option->name);
                if (shell == 1 && option->bare)
                    snprintf(name, sizeof name, "--%s=-[", option->name);
                if (shell == 2)
                    snprintf(name, sizeof name, "_from %s' -l %s ", cli_commands[c].name, option->name);
                expect_in(part, name, cli_shell_name(shell), cli_commands[c].name);
            }
            free(part);
        }
    }
    expect_usage_error(ARGUMENTS("completion", "tcsh"), "\"tcsh\"", "bash, zsh or fish");
}

/* ---- rules ---- */

static void rules_on_the_command_line(void **state)
{
    int checked = 0;
    for (int c = 0; c < CLI_COMMANDS; c++)
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)c, option));)
            for (const cli_rule *rule = option->rules; rule->kind; rule++) {
                const cli_option *other = cli_find((cli_command_id)c, rule->other);
                if (!other)
                    continue;
                line l = {.count = 0};
                char value[WORD_MAX], this_one[WORD_MAX], other_one[WORD_MAX];
                add_word(&l, "%s", cli_commands[c].name);
                sample(option, 0, value);
                add_with_needs(&l, (cli_command_id)c, option, value, rule);
                sample(other, rule->above, value);
                if (model_decides(rule, other))
                    add_option(&l, other, "0");
                if (rule->kind == CLI_EXCLUDES)
                    add_with_needs(&l, (cli_command_id)c, other, rule->text ? rule->text : value, NULL);
                snprintf(this_one, sizeof this_one, "--%s: %s", option->name,
                         rule->kind == CLI_NEEDS ? "only with" : "not together with");
                snprintf(other_one, sizeof other_one, " --%s", other->name);
                expect_usage_error(l.words, this_one, other_one);
                expect_in(o.err, rule->why, "the message", option->name);
                checked++;
                if (rule->condition != CLI_ABOVE)
                    continue;
                /* With the other's number just not large enough, or small enough. */
                l = (line){.count = 0};
                add_word(&l, "%s", cli_commands[c].name);
                sample(option, 0, value);
                add_with_needs(&l, (cli_command_id)c, option, value, rule);
                snprintf(value, sizeof value, "%g", rule->above);
                add_option(&l, other, value);
                run_program(l.words, &o);
                assert_int_equal(strstr(o.err, this_one) != NULL, rule->kind == CLI_NEEDS);
            }
    assert_true(checked >= 25);
    for (int c = 0; c < CLI_COMMANDS; c++)
        for (int i = 0; i < CLI_CHOICES && cli_commands[c].one_of[i]; i++) {
            expect_usage_error(ARGUMENTS(cli_commands[c].name), cli_commands[c].missing, "");
            if (i == 0)
                continue;
            line l = {.count = 0};
            add_word(&l, "%s", cli_commands[c].name);
            for (int k = i - 1; k <= i; k++)
                add_with_needs(&l, (cli_command_id)c, cli_find((cli_command_id)c, cli_commands[c].one_of[k]), "x",
                               NULL);
            expect_usage_error(l.words, "expected one of them", cli_commands[c].one_of[i]);
        }
}

static void write_lines(const char *lines)
{
    put_file("b.jsonl", lines);
}

#define BATCH(...)                                                                                                     \
    ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", ".", "-m", TINY, "-q", "--steps", "1", __VA_ARGS__)
#define GOOD_LINE "{\"prompt\": \"a\", \"output\": \"good.png\", \"width\": 16, \"height\": 16}\n"

static void expect_line_refused(const char *second_line, const char *word1, const char *word2)
{
    char text[8192];
    snprintf(text, sizeof text, GOOD_LINE "%s\n", second_line);
    write_lines(text);
    expect_usage_error(BATCH(NULL), "b.jsonl: line 2: ", word1);
    expect_in(o.err, word2, "the message", second_line);
}

/* A value as JSON. */
static void json_of(const cli_option *option, const char *value, char text[2 * WORD_MAX])
{
    int number = option->kind == CLI_INT || option->kind == CLI_UINT64 || option->kind == CLI_FLOAT;
    snprintf(text, 2 * WORD_MAX, number ? "%s" : "\"%s\"", value);
    if (option->kind == CLI_FLAG)
        strcpy(text, "true");
}

static void rules_in_lines(void **state)
{
    int checked = 0;
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        for (const cli_rule *rule = option->rules; rule->kind; rule++) {
            const cli_option *other = cli_find(CLI_GENERATE, rule->other);
            if (!option->key || !other->key)
                continue;
            char value[WORD_MAX], one[2 * WORD_MAX], two[2 * WORD_MAX], text[1024], word[WORD_MAX];
            sample(option, 0, value);
            json_of(option, value, one);
            sample(other, rule->above, value);
            json_of(other, value, two);
            int both = rule->kind == CLI_EXCLUDES || model_decides(rule, other);
            snprintf(text, sizeof text, "{\"prompt\": \"a\", \"output\": \"1.png\", \"%s\": %s%s%s%s%s}", option->key,
                     one, both ? ", \"" : "", both ? other->key : "", both ? "\": " : "",
                     !both                        ? ""
                     : rule->kind == CLI_EXCLUDES ? two
                                                  : "0");
            snprintf(word, sizeof word, "line 2: %s: ", option->key);
            expect_line_refused(text, word, other->key);
            /* On the command line for all lines, of which none makes it count. */
            sample(option, 0, value);
            char name[WORD_MAX], option_word[WORD_MAX];
            snprintf(name, sizeof name, "--%s", option->name);
            snprintf(option_word, sizeof option_word, "--%s: no line of b.jsonl", option->name);
            write_lines(GOOD_LINE);
            if (rule->kind == CLI_NEEDS)
                expect_usage_error(BATCH(name, option->kind == CLI_FLAG ? NULL : value), option_word, "");
            checked++;
        }
    assert_true(checked >= 3);
    run_shell("rm '%s'", in_folder("b.jsonl"));
}

/* ---- values ---- */

static void values_and_bounds(void **state)
{
    for (int c = 0; c < CLI_COMMANDS; c++)
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)c, option));) {
            cli_options options = {0};
            char value[WORD_MAX], name[WORD_MAX], expected[CLI_TEXT_MAX];
            sample(option, 0, value);
            assert_true(cli_set(&options, option, value));
            assert_true(cli_given(&options, option->offset));
            if (option->fallback)
                assert_true(cli_set(&options, option, option->fallback));
            if (option->kind == CLI_FLAG || option->kind == CLI_TEXT)
                continue;
            static const char *const wrong[] = {"",    " 1",  "+1",    "1 ", "x",  "0x1p3",
                                                "nan", "inf", "1e999", "-",  "--", "99999999999999999999"};
            int named = option->kind == CLI_FILE || option->kind == CLI_FOLDER || option->kind == CLI_FILES;
            size_t count = named ? 1 : sizeof wrong / sizeof *wrong;
            for (size_t i = 0; i < count; i++)
                if (cli_set(&options, option, wrong[i]) && strcmp(wrong[i], "0x1p3") != 0 &&
                    !(option->kind == CLI_SIZE && i == 11))
                    fail_msg("--%s takes \"%s\"", option->name, wrong[i]);
            cli_expected(option, expected);
            snprintf(name, sizeof name, "--%s=", option->name);
            expect_usage_error(ARGUMENTS(cli_commands[c].name, name), expected, "\"\"");
            if (option->kind != CLI_INT && option->kind != CLI_FLOAT)
                continue;
            for (int i = 0; i < 4; i++) {
                snprintf(value, sizeof value, "%.0f",
                         (double[]){option->low, option->high, option->low - 1, option->high + 1}[i]);
                assert_int_equal(cli_set(&options, option, value), i < 2 && !(i == 0 && option->above_low));
            }
        }
}

static void forms_of_options(void **state)
{
    cli_options options;
    char *words[] = {"-W48", "--height=32", "-qn", "2", "--", "-5 degrees"};
    assert_int_equal(cli_parse(CLI_GENERATE, 6, words, &options), 0);
    assert_int_equal(options.width, 48);
    assert_int_equal(options.height, 32);
    assert_int_equal(options.count, 2);
    assert_true(options.quiet && !options.json);
    assert_string_equal(options.prompt, "-5 degrees");
    assert_string_equal(options.device, "auto");
    assert_true(CLI_IS_GIVEN(&options, width) && !CLI_IS_GIVEN(&options, seed) && !CLI_IS_GIVEN(&options, device));

    expect_usage_error(ARGUMENTS("generate", "--prompt-e", "x"), "--prompt-e: unknown option",
                       "did you mean --prompt-embeds?");
    expect_usage_error(ARGUMENTS("generate", "--guidence", "4"), "--guidence", "did you mean --guidance?");
    expect_usage_error(ARGUMENTS("generate", "-5 degrees, snow"), "-5 degrees", "write -- before it");
    expect_usage_error(ARGUMENTS("generate", "x", "--quiet=yes"), "--quiet", "takes no value");
    expect_usage_error(ARGUMENTS("generate", "x", "--steps"), "--steps", "1 to 1000");
    expect_usage_error(ARGUMENTS("generate", "x", "--steps", "2", "--steps", "3"), "--steps", "given already");
    expect_usage_error(ARGUMENTS("generate", "x", "-p", "y"), "--prompt", "given already");
    expect_usage_error(ARGUMENTS("generate", "x", "--plan", "--seed", "7"), "--plan", "--seed");
    expect_usage_error(ARGUMENTS("help", "paint"), "\"paint\"", "generate, words, explain");
    expect_usage_error(ARGUMENTS("devices", "all"), "\"all\"", "options only");
    run_program(ARGUMENTS("generate", "--steps", "x"), &o);
    assert_string_equal(o.err, "zimage generate: --steps: \"x\", expected a whole number from 1 to 1000\n");
    run_program(ARGUMENTS("generate", "--help", "--frobnicate"), &o);
    assert_int_equal(o.code, 0);
}

/* ---- the library's sentences ---- */

static void expect_translated(cli_command_id command, const cli_options *options, const char *sentence,
                              const char *expected)
{
    char text[CLI_SENTENCE_MAX];
    cli_translate(command, options, sentence, text);
    assert_string_equal(text, expected);
}

static void sentences_name_what_was_typed(void **state)
{
    cli_options options;
    char *words[] = {"x", "-W", "17", "--guidance=3", "--mem", "1G", "--negative", "y", "--device", "cpu"};
    assert_int_equal(cli_parse(CLI_GENERATE, 10, words, &options), 0);
    expect_translated(CLI_GENERATE, &options, "width: 17, expected 16", "--width: 17, expected 16");
    expect_translated(CLI_GENERATE, &options, "height: 17, expected 16", "height: 17, expected 16"); /* the model's */
    expect_translated(CLI_GENERATE, &options, "width and height: 17x17", "--width and --height: 17x17");
    expect_translated(CLI_GENERATE, &options, "guidance_scale: 3", "--guidance: 3");
    expect_translated(CLI_GENERATE, &options, "negative_prompt: no prompt_embeds", "--negative: no --prompt-embeds");
    expect_translated(CLI_GENERATE, &options, "memory_limit: 1; device_memory limits that",
                      "--mem: 1; --vram limits that");
    expect_translated(CLI_GENERATE, &options, "width/x.safetensors: memory_limit", "width/x.safetensors: memory_limit");
    expect_translated(CLI_GENERATE, &options, "width: the tensor \"memory_limit\"",
                      "--width: the tensor \"memory_limit\"");
    expect_translated(CLI_GENERATE, &options, "widths: 17", "widths: 17");
    expect_translated(CLI_GENERATE, &options, "width", "width");
    expect_translated(CLI_GENERATE, &options, "", "");
    char *size[] = {"x", "--size", "17x17"}, *bench[] = {"-m", "x", "--steps", "5"};
    assert_int_equal(cli_parse(CLI_GENERATE, 3, size, &options), 0);
    expect_translated(CLI_GENERATE, &options, "height: 17", "--size: 17");
    expect_translated(CLI_GENERATE, &options, "width and height: 17x17", "--size: 17x17");
    assert_int_equal(cli_parse(CLI_BENCH, 4, bench, &options), 0);
    expect_translated(CLI_BENCH, &options, "repeats: 5, expected 1", "--steps: 5, expected 1");

    run_program(ARGUMENTS("devices", "--cpu-mask", "mmx"), &o);
    expect_in(o.err, "zimage devices: --cpu-mask: ", "the message", "devices");
}

/* Nobody listens at the ledger's address: what is wrong without a ledger is said before it is asked. */
static void sentences_of_other_commands(void **state)
{
#define LEDGER "--queue=postgresql://127.0.0.1:1/x"
    static const struct {
        const char *arguments[6], *sentence;
    } cases[] = {
        {{"generate", "a", "cat"}, "zimage generate: \"cat\": unexpected, the PROMPT is given already; put a text"},
        {{"generate", "a cat", "--prompt-embeds=x"},
         "zimage generate: PROMPT and --prompt-embeds: expected one of them"},
        {{"words", ""}, "zimage words: TEXT: \"\", expected a word"},
        {{"words", "..."}, "zimage words: TEXT: \"...\", expected a word"},
        {{"words", "\xff"}, "zimage words: TEXT: \"\\xff\", expected a word"},
        {{"queue", "add", LEDGER}, "zimage queue: FILE.jsonl: missing, expected a file of jobs"},
        {{"queue", "retry", LEDGER}, "zimage queue: retry: expected --batch or --id, so that no other job is meant"},
        {{"queue", "cancel", LEDGER, "--batch="}, "zimage queue: --batch: expected a name of 1 to 200 bytes"},
        {{"queue", "export", LEDGER, "--priority=3"}, "zimage queue: --priority: export does not use it"},
        {{"work", LEDGER, "--out-dir=s3:/b/c"},
         "zimage work: --out-dir: s3:/b/c, expected a folder or s3://BUCKET/PREFIX"},
        {{"work", LEDGER, "--pack=gs://b/c"}, "zimage work: --pack: gs://b/c, expected a folder: a tar file grows"},
        {{"queue", "status", LEDGER, "-mx"}, "zimage queue: --model: status does not use it"},
        {{"queue", "init", LEDGER, "--id=3"}, "zimage queue: --id: init does not use it"},
        {{"queue", "status", "x.jsonl", LEDGER}, "zimage queue: \"x.jsonl\": unexpected; only add takes a file"},
        {{"serve", "--host=0.0.0.0"},
         "zimage serve: --host: \"0.0.0.0\", expected an address of this machine alone, "
         "such as 127.0.0.1; another one needs --api-key-file"},
        {{"serve", "--host="}, "zimage serve: --host: \"\", expected an address"},
        {{"serve", "--host=images.example"}, "zimage serve: --host: \"images.example\", expected an address such as"},
        {{"serve", "--allow-host=a.example,https://b.example"},
         "zimage serve: --allow-host: \"https://b.example\", expected a name such as images.example, without a port"},
        {{"serve", "--allow-host=a.example:8443"}, "zimage serve: --allow-host: \"a.example:8443\", expected a name"},
        {{"serve", "--cors-origins=*"},
         "zimage serve: --cors-origins: \"*\", expected an origin such as https://images.example"},
        {{"serve", "--cors-origins=https://a.example https://b.example/page"},
         "zimage serve: --cors-origins: \"https://b.example/page\", expected an origin"},
        {{"serve", "--api-key-file=/missing/keys"},
         "zimage serve: --api-key-file: /missing/keys: can't be read: No such file or directory"},
        {{"serve", "--tls-cert=/missing/c.pem", "--tls-key=/missing/k.pem"},
         "zimage serve: --tls-cert: /missing/c.pem: No such file or directory; expected certificates in PEM"},
        {{"serve", "--web-dir=/missing"},
         "zimage serve: --web-dir: /missing: there is no index.html, expected the page's files"},
        {{"serve", "--models-dir=/missing"},
         "zimage serve: --models-dir: /missing: No such file or directory; expected a folder of model folders"},
        {{"models", "--remove=../.."}, "zimage models: --remove: \"../..\", expected ORGANISATION/NAME"},
        {{"explain", "/"}, "zimage explain: /: this is a folder, expected a regular file"},
        {{"generate", "--prompt-embeds=/", "-o", "x.png"},
         "zimage generate: --prompt-embeds: /: this is a folder, expected a regular file"},
        {{"generate", "x", "--latents=/", "-o", "x.png"},
         "zimage generate: --latents: /: this is a folder, expected a regular file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        line l = {.count = 0};
        for (int k = 0; k < 6 && cases[i].arguments[k]; k++)
            add_word(&l, "%s", cases[i].arguments[k]);
        run_program(l.words, &o);
        if (o.code == 0 || strncmp(o.err, cases[i].sentence, strlen(cases[i].sentence)) != 0 || *o.out)
            fail_msg("expected \"%s\" in: %s", cases[i].sentence, o.err);
        const char *end = strchr(o.err, '\n');
        if (!end || end[1])
            fail_msg("expected one line: %s", o.err);
    }
#undef LEDGER
}

static void sentences_of_the_program(void **state)
{
    static const struct {
        const char *arguments[4], *begin;
    } cases[] = {{{"-W", "17"}, "zimage generate: --width: 17, expected a multiple of 16"},
                 {{"-H", "17"}, "zimage generate: --height: 17, expected"},
                 {{"--size", "32x17"}, "zimage generate: --size: 17, expected"},
                 {{"--size=17x32"}, "zimage generate: --size: 17, expected"},
                 {{"--mem", "1M"}, "zimage generate: --mem: 1 MiB, but"},
                 {{"--device", "tpu"}, "zimage generate: --device: \"tpu\", expected"},
                 {{"--cpu-mask", "mmx"}, "zimage generate: --cpu-mask: "},
                 {{"--compute", "fp8", "--device", "cpu"}, "zimage generate: --compute: fp8, expected"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        line l = {.count = 0};
        add_word(&l, "generate");
        add_word(&l, "x");
        add_word(&l, "-m%s", TINY);
        for (int k = 0; k < 4 && cases[i].arguments[k]; k++)
            add_word(&l, "%s", cases[i].arguments[k]);
        run_program(l.words, &o);
        if (o.code == 0 || strncmp(o.err, cases[i].begin, strlen(cases[i].begin)) != 0)
            fail_msg("expected \"%s\" in: %s", cases[i].begin, o.err);
    }
    run_program(ARGUMENTS("generate", "a\xff", "-m", TINY), &o);
    expect_in(o.err, "zimage generate: --prompt: ", "the message", "a broken text");
    run_program(ARGUMENTS("bench", "--synthetic", "huge"), &o);
    expect_in(o.err, "zimage bench: --synthetic: \"huge\"", "the message", "bench");
    run_program(ARGUMENTS("bench", "--synthetic", "small", "--size", "17x16"), &o);
    expect_in(o.err, "zimage bench: --size: 17x16", "the message", "bench");
    run_program(ARGUMENTS("selftest", "--device", "tpu"), &o);
    expect_in(o.err, "zimage selftest: --device: ", "the message", "selftest");
    setenv("ZIMAGE_MODEL", "nowhere", 1);
    expect_usage_error(ARGUMENTS("generate", "x"), "zimage generate: ZIMAGE_MODEL: there is no model folder nowhere",
                       "");
    expect_usage_error(ARGUMENTS("generate", "x", "-m", "here"), "zimage generate: --model: ", "here");
    unsetenv("ZIMAGE_MODEL");
    /* In a batch: the key of the line, or the option for all lines. */
    write_lines("{\"prompt\": \"a\", \"output\": \"1.png\", \"height\": 16, \"width\": 17}\n");
    expect_usage_error(BATCH(NULL), "b.jsonl: line 1: width: 17, expected", "");
    expect_usage_error(BATCH("--size", "32x32"), "--size: no line of b.jsonl uses it", "");
    write_lines("{\"prompt\": \"a\", \"output\": \"1.png\", \"height\": 16}\n");
    expect_usage_error(BATCH("-W", "17"), "b.jsonl: line 1: --width: 17, expected", "");
    expect_usage_error(BATCH("--size", "17x17"), "b.jsonl: line 1: --size: 17, expected", "");
    write_lines("{\"prompt\": \"a\", \"output\": \"1.png\", \"size\": \"16x17\"}\n");
    expect_usage_error(BATCH(NULL), "b.jsonl: line 1: size: 17, expected", "");
    expect_usage_error(BATCH("-W", "17"), "--width: no line of b.jsonl uses it", "");
    run_shell("rm -f '%s'/*", test_folder);
}

/* A text that begins with a dash is never taken for letters of options: each of these was. */
static void prompts_that_begin_with_a_dash(void **state)
{
    static const char *const prompts[] = {"-5 degrees, snow",
                                          "-portrait of a man",
                                          "-hazy morning",
                                          "-quiet lake",
                                          "-mountain of gold",
                                          "-snow on a tree",
                                          "-no people",
                                          "--- a cat",
                                          "--steps of stone",
                                          "--prompt a cat",
                                          "-5",
                                          "-\xe9\x9b\xaa"};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        cli_options options;
        char *words[] = {"--", (char *)(uintptr_t)prompts[i]};
        expect_usage_error(ARGUMENTS("generate", prompts[i]), prompts[i], "write -- before it: zimage generate -- \"");
        assert_int_equal(cli_parse(CLI_GENERATE, 2, words, &options), 0);
        assert_string_equal(options.prompt, prompts[i]);
    }
    expect_usage_error(ARGUMENTS("tokenize", "-5 degrees"), "-5 degrees", "zimage tokenize -- \"");
    cli_options options;
    char *apart[] = {"-p", "-5 degrees, snow"}, *joined[] = {"--prompt=--steps", "-pq"};
    assert_int_equal(cli_parse(CLI_GENERATE, 2, apart, &options), 0);
    assert_string_equal(options.prompt, "-5 degrees, snow");
    assert_int_equal(cli_parse(CLI_GENERATE, 1, joined, &options), 0);
    assert_string_equal(options.prompt, "--steps");
    assert_int_equal(cli_parse(CLI_GENERATE, 1, joined + 1, &options), 0);
    assert_string_equal(options.prompt, "q");
}

/* A long name behind one dash was read as letters: -prompt=x was the prompt "rompt=x", -height printed the help. */
static void long_names_behind_one_dash(void **state)
{
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));) {
        char typed[WORD_MAX], meant[WORD_MAX];
        snprintf(meant, sizeof meant, "did you mean --%s?", option->name);
        snprintf(typed, sizeof typed, option->kind == CLI_FLAG ? "-%s" : "-%s=4", option->name);
        expect_usage_error(ARGUMENTS("generate", typed), typed, meant);
    }
    expect_usage_error(ARGUMENTS("generate", "-steps", "4"), "-steps: unknown option", "did you mean --steps?");
}

/* Editors and web pages turn two minus signs into one dash of another kind. */
static void dashes_of_other_kinds(void **state)
{
    static const char *const dashes[] = {"\xe2\x80\x93", "\xe2\x80\x94", "\xe2\x88\x92", "\xe2\x80\x90"};
    for (size_t i = 0; i < sizeof dashes / sizeof *dashes; i++) {
        char typed[WORD_MAX];
        snprintf(typed, sizeof typed, "%ssteps", dashes[i]);
        expect_usage_error(ARGUMENTS("generate", "x", typed, "4"), typed, "another character than -");
        expect_usage_error(ARGUMENTS(typed, "4"), typed, "another character than -");
        expect_usage_error(ARGUMENTS("devices", typed), typed, "another character than -");
        cli_options options;
        char *words[] = {"--", typed};
        assert_int_equal(cli_parse(CLI_GENERATE, 2, words, &options), 0);
        assert_string_equal(options.prompt, typed);
    }
    cli_options options;
    char *dialogue[] = {"\xe2\x80\x94 a dialogue"};
    assert_int_equal(cli_parse(CLI_GENERATE, 1, dialogue, &options), 0);
}

/* Where a value is missing, the next option is not taken for it. */
static void an_option_is_no_value(void **state)
{
    expect_usage_error(ARGUMENTS("generate", "x", "-o", "--seed", "7"), "--output: the value is missing",
                       "write --output=--seed");
    expect_usage_error(ARGUMENTS("generate", "-p", "-W", "32"), "--prompt: the value is missing", "--prompt=-W");
    expect_usage_error(ARGUMENTS("generate", "x", "--model", "-q"), "--model: the value is missing", "folder");
    expect_usage_error(ARGUMENTS("generate", "x", "--steps", "--seed"), "--steps: the value is missing", "1 to 1000");
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        int width, height;
    } cases[] = {{"1024x768", 1024, 768},
                 {"16X32", 16, 32},
                 {"16*32", 16, 32},
                 {"16\xc3\x97"
                  "32",
                  16, 32},
                 {"1024", 0, 0},
                 {"1024x", 0, 0},
                 {"x768", 0, 0},
                 {"1024x768x2", 0, 0},
                 {"0x16", 0, 0},
                 {"16x-16", 0, 0},
                 {"16 x 16", 0, 0},
                 {"16,16", 0, 0},
                 {"-16x16", 0, 0},
                 {"16x99999999999", 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cli_options options = {0};
        const cli_option *size = cli_find(CLI_GENERATE, "size");
        assert_int_equal(cli_set(&options, size, cases[i].text), cases[i].width > 0);
        assert_int_equal(options.width, cases[i].width);
        assert_int_equal(options.height, cases[i].height);
        assert_int_equal(CLI_IS_GIVEN(&options, height), cases[i].width > 0);
    }
    expect_usage_error(ARGUMENTS("generate", "x", "--size", "64x48", "-W", "64"), "--width", "given already");
    expect_usage_error(ARGUMENTS("generate", "x", "-H", "64", "--size", "64x48"), "--size", "given already");
    expect_usage_error(ARGUMENTS("bench", "--synthetic", "small", "--size", "99999x16"), "--size", "1024x768");
    run_program(ARGUMENTS("a cat", "-m", TINY, "-q", "--steps", "1", "--size", "48x32", "-s", "7", "-o", "a.png"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_non_null(strstr(o.out, "a.png  48x32  seed 7  "));
    run_shell("rm -f '%s'/*", test_folder);
}

/* A prompt or an option where a command is expected means generate; a single word may be a mistyped command. */
static void commands_are_optional(void **state)
{
    static const char *const first[][2] = {
        {"-p", "x"}, {"--prompt", "x"}, {"a cat", NULL}, {"--prompt=x", NULL}, {"\xe7\x8c\xab", NULL}};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        line l = {.count = 0};
        for (int k = 0; k < 2 && first[i][k]; k++)
            add_word(&l, "%s", first[i][k]);
        add_word(&l, "%s", "--steps=0");
        expect_usage_error(l.words, "zimage generate: --steps: \"0\"", "");
    }
    expect_usage_error(ARGUMENTS("genrate", "a cat"), "\"genrate\", did you mean generate?", "--help");
    expect_usage_error(ARGUMENTS("device"), "did you mean devices?", "");
    expect_usage_error(ARGUMENTS("apple"), "no command \"apple\"", "zimage generate \"apple\"");
    expect_usage_error(ARGUMENTS(""), "no command \"\"", "");
    expect_usage_error(ARGUMENTS("--frobnicate"), "--frobnicate: unknown option", "");
}

/* ---- mistyped names and those of other programs ---- */

static void similar_names(void **state)
{
    static const struct {
        const char *typed, *meant;
    } cases[] = {{"setps", "steps"},
                 {"step", "steps"},
                 {"STEPS", "steps"},
                 {"stepps", "steps"},
                 {"widht", "width"},
                 {"sede", "seed"},
                 {"heigth", "height"},
                 {"out_dir", "out-dir"},
                 {"text_encoder", "text-encoder"},
                 {"num-inference-steps", "steps"},
                 {"num_inference_steps", "steps"},
                 {"guidance-scale", "guidance"},
                 {"guidance_scale", "guidance"},
                 {"cfg-scale", "guidance"},
                 {"negative-prompt", "negative"},
                 {"negative_prompt", "negative"},
                 {"num_images_per_prompt", "count"},
                 {"diffusion-model", "transformer"},
                 {"prompt-file", "batch"},
                 {"frobnicate", NULL},
                 {"zoom", NULL},
                 {"", NULL},
                 {"xyz", NULL},
                 {"abc", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *found = cli_similar(CLI_GENERATE, cases[i].typed, 0);
        if (!found != !cases[i].meant || (found && strcmp(found, cases[i].meant) != 0))
            fail_msg("%s: %s", cases[i].typed, found ? found : "nothing");
    }
    assert_string_equal(cli_similar(CLI_GENERATE, "num-inference-steps", 1), "steps");
    assert_string_equal(cli_similar(CLI_GENERATE, "cfg-truncation", 1), "cfg_truncation");
    assert_null(cli_similar(CLI_GENERATE, "prompt-file", 1)); /* a line holds no batch */
    assert_string_equal(cli_similar_command("genrate"), "generate");
    assert_string_equal(cli_similar_command("Device"), "devices");
    assert_null(cli_similar_command("paint"));
    assert_null(cli_similar_command(""));
    expect_usage_error(ARGUMENTS("bench", "--seed", "9"), "--seed: unknown option, it is one of zimage generate", "");
    expect_usage_error(ARGUMENTS("inspect", "--device=cpu"), "--device=cpu: unknown option, it is one of", "");
    run_program(ARGUMENTS("generate", "x", "--lora", "9"), &o);
    assert_string_equal(o.err, "zimage generate: --lora: unknown option; zimage generate --help lists all\n");
    expect_usage_error(ARGUMENTS("generate", "x", "--num-inference-steps", "9"), "--num-inference-steps",
                       "did you mean --steps?");
}

/* A name of another program stands in one row of a command, and is no option's own. */
static void names_of_other_programs_stand_once(void **state)
{
    for (int c = 0; c < CLI_COMMANDS; c++)
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)c, option));) {
            char names[CLI_TEXT_MAX], *rest = names;
            snprintf(names, sizeof names, "%s", option->elsewhere ? option->elsewhere : "");
            for (char *name; (name = strtok_r(rest, " ", &rest));) {
                assert_null(cli_find((cli_command_id)c, name));
                if (strcmp(cli_similar((cli_command_id)c, name, 0), option->name) != 0)
                    fail_msg("%s leads to --%s", name, cli_similar((cli_command_id)c, name, 0));
            }
        }
}

/* ---- lines of a batch ---- */

static void wrong_lines(void **state)
{
#define LINE(rest) "{\"prompt\": \"a\", \"output\": \"1.png\"" rest "}"
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));) {
        char text[256], word[WORD_MAX], expected[CLI_TEXT_MAX];
        static const char *const wrong[] = {"null", "true", "[1]", "{\"a\": [\"]\"]}", "\"7\"", "5",
                                            "7.5",  "1e3",  "-1"};
        if (!option->key || !strcmp(option->key, "prompt") || !strcmp(option->key, "output"))
            continue;
        cli_expected(option, expected);
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            int number = option->kind == CLI_INT || option->kind == CLI_UINT64;
            int is_flag = option->kind == CLI_FLAG;
            if (is_flag ? i == 1 : i >= 4 && !(number ? i != 5 : option->kind == CLI_FLOAT ? i == 4 || i == 8 : i >= 5))
                continue; /* not wrong for this kind */
            if (option->kind == CLI_FILES && wrong[i][0] == '[')
                continue;
            snprintf(text, sizeof text, LINE(", \"guidance\": 1, \"%s\": %s"), option->key, wrong[i]);
            if (!strcmp(option->key, "guidance"))
                snprintf(text, sizeof text, LINE(", \"guidance\": %s"), wrong[i]);
            snprintf(word, sizeof word, "%s: %s, expected ", option->key, wrong[i]);
            expect_line_refused(text, word, expected);
        }
    }
    expect_line_refused(LINE(", \"negative\": 5"), "negative: 5, expected a text", "");
    expect_line_refused(LINE(", \"guidence\": 5"), "\"guidence\": unknown key", "did you mean \"guidance\"?");
    expect_line_refused(LINE(", \"num_inference_steps\": 5"), "unknown key", "did you mean \"steps\"?");
    expect_line_refused(LINE(", \"size\": \"16x16\", \"width\": 16"), "width: 16, but the line gives it already",
                        "size");
    expect_line_refused(LINE(", \"height\": 16, \"size\": \"16x16\""), "size: \"16x16\", but", "already");
    expect_line_refused(LINE(", \"zoom\": 5"), "\"zoom\": unknown key", "cfg_truncation");
    expect_line_refused(LINE(", \"negative\": \"b\""), "negative: only with guidance above 0", "");
    expect_line_refused(LINE(", \"seed\": 18446744073709551616"), "seed: 18446744073709551616", "18446744073709551615");
    expect_line_refused(LINE(", \"seed\": -1"), "seed: -1", "from 0");
    expect_line_refused(LINE(", \"seed\": 1, \"seed\": 2"), "duplicate", "");
    expect_line_refused(LINE(", \"width\": 100"), "width: 100, expected a multiple of 16", "1024");
    expect_line_refused(LINE(", \"height\": 4096"), "height: 4096, expected a multiple of 16", "1024");
    expect_line_refused("{\"output\": \"1.png\"}", "prompt or prompt_embeds: missing", "a text");
    expect_line_refused(LINE(", \"prompt_embeds\": \"e.safetensors\""), "prompt and prompt_embeds", "one of them");
    expect_line_refused(LINE(", \"model\": \"m\""), "\"model\": unknown key", "--model stands on the command line");
    expect_line_refused(LINE(", \"out_dir\": \"m\""), "\"out_dir\": unknown key", "--out-dir");
    expect_line_refused(LINE(", \"save_latents\": \"x/y\""), "save_latents: \"x/y\"", "without folders");
    expect_line_refused("{\"prompt\": \"a\", \"output\": \"../1.png\"}", "output: \"../1.png\"", "without folders");
    expect_line_refused("{\"prompt\": \"a\", \"output\": \"1.gif\"}", "output: \"1.gif\"", ".png");
    expect_line_refused("{\"prompt\": \"a\", \"output\": \"good.png\"}", "output: \"good.png\"", "line 1 has the same");
    expect_line_refused("[1]", "expected a JSON object", "another value");
    expect_line_refused("{\"prompt\"", "expected a JSON object", "");
    expect_line_refused("{\"\\u001b[31m\": 1}", "\"\\x1b[31m\": unknown key", "");
    expect_line_refused("{\"prompt\": \"\\u0000\", \"output\": \"1.png\"}", "", "");
    expect_line_refused("{\"prompt\": \"\xff\", \"output\": \"1.png\"}", "decode byte 0xff", "");
    write_lines("\n\n");
    expect_usage_error(BATCH(NULL), "b.jsonl", "no line");
    write_lines(GOOD_LINE);
    expect_usage_error(BATCH("-W", "32"), "--width: no line of b.jsonl uses it", "");
    expect_usage_error(ARGUMENTS("generate", "--batch", ".", "--out-dir", ".", "-m", TINY), "--batch", "irectory");
    run_shell("rm -f '%s'/*", test_folder);
}

/* Keys in any order, with spaces and escapes, behind a byte order mark; the command line completes the lines. */
static void lines_are_read(void **state)
{
    write_lines(
        "\xef\xbb\xbf  {\"w\\u0069dth\":32,\"prompt\":\"a \\\"}{,\\\\\",\"output\":\"1.png\",\"seed\" : 0 }  \n\n"
        "{\"guidance\": 2.5, \"negative\": \"b\", \"prompt\": \"\", \"output\": \"2.png\", \"rng\": \"numpy\"}\n"
        "{\"prompt\": \"c\", \"output\": \"3.png\", \"size\": \"16x32\"}");
    run_program(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", ".", "-m", TINY, "-q", "--steps", "1", "-W",
                          "48", "-H", "16", "--cfg-truncation", "0.5"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_non_null(strstr(o.out, "./1.png  32x16  seed 0  "));
    assert_non_null(strstr(o.out, "./2.png  48x16  seed "));
    assert_non_null(strstr(o.out, "./3.png  16x32  seed "));
    run_shell("rm -f '%s'/*", test_folder);
}

/* The largest seed: on the command line, in a line, in --json and in what is printed; the same image each time. */
static void seeds_up_to_the_largest(void **state)
{
#define LARGEST "18446744073709551615"
    write_lines("{\"prompt\": \"a\", \"output\": \"b.png\", \"seed\": " LARGEST "}\n"
                "{\"prompt\": \"a\", \"output\": \"c.png\", \"seed\": 9223372036854775808}\n");
    run_program(BATCH("-W", "16", "-H", "16", "--json"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_non_null(strstr(o.out, "\"seed\":" LARGEST ","));
    assert_non_null(strstr(o.out, "\"seed\":9223372036854775808,"));
    json_t *object = json_loads(o.out, JSON_DECODE_INT_AS_REAL, NULL);
    assert_int_equal(json_array_size(json_object_get(object, "images")), 2);
    json_decref(object);
    run_program(ARGUMENTS("generate", "a", "-m", TINY, "-q", "--steps", "1", "-W", "16", "-H", "16", "--seed", LARGEST),
                &o);
    assert_non_null(strstr(o.out, "seed " LARGEST));
    run_shell("cmp '%s' '%s'", in_folder("b.png"), in_folder("a-" LARGEST ".png"));
    run_program(ARGUMENTS("generate", "a", "-m", TINY, "-q", "--steps", "1", "-W", "16", "-H", "16", "--seed", LARGEST,
                          "-o", "d.png", "--json"),
                &o);
    assert_non_null(strstr(o.out, "{\"path\":\"d.png\",\"seed\":" LARGEST ",\"seconds\":"));
    expect_usage_error(ARGUMENTS("generate", "a", "--seed", "18446744073709551616"), "--seed", LARGEST);
    run_shell("rm -f '%s'/*", test_folder);
}

/* ---- the cache folder ---- */

/* Expects this folder for the variables (NULL: unset). */
static void expect_cache_folder(const char *cache, const char *home, const cli_options *options, const char *expected)
{
    cache ? setenv("XDG_CACHE_HOME", cache, 1) : unsetenv("XDG_CACHE_HOME");
    home ? setenv("HOME", home, 1) : unsetenv("HOME");
    const char *folder = cli_cache_folder(options);
    if (!expected) {
        assert_null(folder);
        return;
    }
    assert_non_null(folder);
    assert_string_equal(folder, expected);
}

static void cache_folder_is_the_users(void **state)
{
    const cli_options plain = {0}, chosen = {.cache_dir = "here"}, none = {.no_cache = 1};
#if defined(__APPLE__)
    const char *in_home = "/home/a/Library/Caches/zimage";
#else
    const char *in_home = "/home/a/.cache/zimage";
#endif
    char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    cache = cache ? strdup(cache) : NULL;
    home = home ? strdup(home) : NULL;
    expect_cache_folder("/cache", "/home/a", &plain, "/cache/zimage");
    expect_cache_folder(NULL, "/home/a", &plain, in_home);
    expect_cache_folder("not/absolute", "/home/a", &plain, in_home);
    expect_cache_folder(NULL, "", &plain, NULL);
    expect_cache_folder("", NULL, &plain, NULL);
    expect_cache_folder("/cache", "/home/a", &chosen, "here");
    expect_cache_folder("/cache", "/home/a", &none, NULL);
    cache ? setenv("XDG_CACHE_HOME", cache, 1) : unsetenv("XDG_CACHE_HOME");
    home ? setenv("HOME", home, 1) : unsetenv("HOME");
    free(cache);
    free(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_is_in_help),
        cmocka_unit_test(every_option_is_in_the_manual),
        cmocka_unit_test(every_option_is_completed),
        cmocka_unit_test(rules_on_the_command_line),
        cmocka_unit_test(rules_in_lines),
        cmocka_unit_test(values_and_bounds),
        cmocka_unit_test(forms_of_options),
        cmocka_unit_test(sentences_name_what_was_typed),
        cmocka_unit_test(sentences_of_the_program),
        cmocka_unit_test(sentences_of_other_commands),
        cmocka_unit_test(prompts_that_begin_with_a_dash),
        cmocka_unit_test(long_names_behind_one_dash),
        cmocka_unit_test(dashes_of_other_kinds),
        cmocka_unit_test(an_option_is_no_value),
        cmocka_unit_test(sizes),
        cmocka_unit_test(commands_are_optional),
        cmocka_unit_test(similar_names),
        cmocka_unit_test(names_of_other_programs_stand_once),
        cmocka_unit_test(wrong_lines),
        cmocka_unit_test(lines_are_read),
        cmocka_unit_test(seeds_up_to_the_largest),
        cmocka_unit_test(cache_folder_is_the_users),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
