/*
 * The options of the program. One table (option_table.c) describes them all; parsing (parse.c), checks of combinations
 * (rules.c), lines of a batch (batch.c), help (help.c), the manual page (man.c) and completion (completion.c) read it.
 *
 * A new option is one row of the table and one field of cli_options.
 */
#ifndef ZI_CLI_OPTIONS_H
#define ZI_CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/row_set.h"

typedef enum cli_command_id {
    CLI_GENERATE, /* in the order of the help: what a newcomer looks for is at the top */
    CLI_WORDS,
    CLI_EXPLAIN,
    CLI_RERUN,
    CLI_PULL,
    CLI_MODELS,
    CLI_SERVE,
    CLI_QUEUE,
    CLI_WORK,
    CLI_DEVICES,
    CLI_SELFTEST,
    CLI_BENCH,
    CLI_INSPECT,
    CLI_TOKENIZE,
    CLI_COMPLETION,
    CLI_HELP,
    CLI_COMMANDS,
} cli_command_id;

#define CLI_USAGES   2
#define CLI_CHOICES  3
#define CLI_EXAMPLES 5

typedef struct cli_command {
    const char *name, *summary;
    const char *usage[CLI_USAGES];   /* what follows "zimage NAME" */
    const char *about;               /* one paragraph */
    const char *one_of[CLI_CHOICES]; /* options of which exactly one has to be given; NULL: none */
    const char *missing;             /* the message when none of one_of is given */
    const char *operand_hint;        /* says where an unexpected operand belongs; may be NULL */
    const char *examples[CLI_EXAMPLES];
    int environment; /* 1: each option may also be a variable of the environment (cli_variable) */
} cli_command;

extern const cli_command cli_commands[CLI_COMMANDS];

#define CLI_FILES_MAX 16

/* The files of an option that may be given several times. */
typedef struct cli_files {
    const char *paths[CLI_FILES_MAX];
    int count;
} cli_files;

/* The values of all options of all commands. What is not given has the table's default, or 0. */
typedef struct cli_options {
    row_set given;     /* rows of the table, by the user */
    row_set variables; /* those of them that the environment gave */
    row_set own;       /* those of them that a line of a batch gave, and not the command line */
    const char *prompt, *negative, *prompt_embeds, *latents, *save_latents, *output, *batch, *out_dir, *shard;
    const char *model, *transformer, *text_encoder, *vae, *tokenizer, *scheduler, *synthetic, *format, *cache_dir;
    const char *file, *text, *cpu_mask, *device, *mask;
    const char *models_dir, *default_model, *aliases, *web_dir, *gallery;
    const char *host, *unix_path, *tls_cert, *tls_key, *public_url, *key, *key_file, *allowed_hosts, *allowed_origins;
    const char *repository, *revision, *source, *verified, *removed;
    const char *queue, *lines, *queue_batch, *caller, *results, *pack;
    cli_files images, models, patterns;
    int64_t width, height; /* --size fills both */
    int64_t steps, count, quality, tokens, layers, threads;
    int64_t sdapi_max_steps, port, keep_models, max_queue, max_images, max_steps, max_pixels, max_connections,
        per_address;
    int64_t connections, retries;
    int64_t id, priority, max_attempts, claim;
    uint64_t limit, segment, seed, mem, vram, store_bytes, max_body, max_image, max_uploads;
    uint8_t background[3]; /* RGB */
    double guidance, cfg_truncation, cfg_normalization, strength;
    double header_seconds, body_seconds, connection_seconds, max_wait, rate, burst, failed_keys, job_seconds,
        idle_seconds, drain, store_seconds, lease, keep_results;
    int rng, dequantize, compute, template_kind, shell, command, stage, show;
    int metrics_public, no_slots, no_web, no_model_switch, log_format;
    int plan, reference, no_cache, no_metadata, composite, resume, json, quiet, verbose, man, help, insecure,
        insecure_http, suggest, no_overlap, action, until_empty;
} cli_options;

/* How an option's text is read, and the type of its field. */
typedef enum cli_kind {
    CLI_FLAG,   /* int: takes no text */
    CLI_INT,    /* int64_t in [low, high] */
    CLI_UINT64, /* uint64_t */
    CLI_FLOAT,  /* double in [low, high] */
    CLI_SIZE,   /* uint64_t: bytes such as 512M */
    CLI_PIXELS, /* two int64_t, the fields width and height: 1024x768 */
    CLI_ENUM,   /* int: index of a word that value_name returns */
    CLI_TEXT,   /* const char *, as are the next two */
    CLI_FILE,
    CLI_FOLDER,
    CLI_FILES,  /* cli_files: may be given several times; a line of a batch may hold an array */
    CLI_COLOUR, /* uint8_t[3] */
} cli_kind;

/* When the other option of a rule counts. */
typedef enum cli_condition {
    CLI_GIVEN,    /* it is given */
    CLI_ABOVE,    /* its number is larger than `above`, or not known yet: it is not given, and the model decides */
    CLI_IS,       /* its text is `text`, or begins with it and a colon */
    CLI_IS_LOSSY, /* its text is the name of a JPEG or WebP file */
} cli_condition;

typedef enum cli_rule_kind { CLI_NO_RULE, CLI_NEEDS, CLI_EXCLUDES } cli_rule_kind;

/* Without the other option (CLI_NEEDS), or beside it (CLI_EXCLUDES), this one would have no effect: it is refused. */
typedef struct cli_rule {
    cli_rule_kind kind;
    const char *other; /* name of an option; the rule holds for commands that have it */
    cli_condition condition;
    double above;
    const char *text;
    const char *why; /* end of the message */
} cli_rule;

#define CLI_RULES 12

/* Headings of the help, in this order. */
typedef enum cli_group {
    CLI_GROUP_IMAGE,
    CLI_GROUP_SERVER,
    CLI_GROUP_FILES,
    CLI_GROUP_MACHINE,
    CLI_GROUP_PRINTING,
    CLI_GROUPS
} cli_group;

extern const char *const cli_group_names[CLI_GROUPS];

typedef struct cli_option {
    const char *name;     /* "guidance": --guidance on the command line */
    const char *argument; /* word for the value in help: "N"; NULL for a flag */
    const char *help;     /* sentences; the first part of the first is the description in completions */
    unsigned commands;    /* bit i: command i takes it */
    cli_group group;
    cli_kind kind;
    int operand;                          /* 1: the value may stand alone, without --name */
    size_t offset;                        /* of its field in cli_options */
    double low, high;                     /* bounds of CLI_INT and CLI_FLOAT */
    int above_low;                        /* 1: the lower bound itself is no value */
    const char *(*value_name)(int value); /* of CLI_ENUM: words of 0, 1, ...; NULL behind the last */
    const char *words;                    /* of CLI_TEXT: usual values for completion, separated by spaces */
    const char *fallback;                 /* text of the default; NULL: none */
    const char *bare;  /* text of the option without a value, which then has to be attached: --show=kitty; NULL: none */
    const char *key;   /* in a line of a batch; NULL: a line can't hold it */
    const char *field; /* the library's name of the value; NULL: the option's, with underscores */
    const char *elsewhere; /* its names in other programs, separated by spaces: "did you mean" finds it */
    cli_rule rules[CLI_RULES];
    int key_needed; /* 1: a line of a batch has to hold exactly one of these keys */
    int written;    /* 1: the file or folder is written, so its name has to be printable */
    char letter;    /* 'W': -W; 0: none */
} cli_option;

extern const cli_option cli_table[];
extern const size_t cli_table_size;

/* ---- the table (parse.c) ---- */

/* The next option of a command behind `option`; NULL begins, and is returned behind the last. */
const cli_option *cli_next(cli_command_id command, const cli_option *option);
/* NULL: the command has no such option. */
const cli_option *cli_find(cli_command_id command, const char *name);
/* Whether an option is in a set of rows of the table. */
int cli_has(const row_set *set, const cli_option *option);
row_set cli_set_of(const cli_option *option);
/* All options of the command that this one gives: --size gives --width and --height as well. */
row_set cli_all_of(const cli_option *option);
/* Whether the user gave a value for a field: CLI_IS_GIVEN(options, seed). */
int cli_given(const cli_options *options, size_t offset);
#define CLI_IS_GIVEN(options, field) cli_given(options, offsetof(cli_options, field))

/* ---- values (values.c) ---- */

#define CLI_TEXT_MAX 512 /* size of buffers for the sentences below */

/* Appends to the text in a buffer of `size` bytes; what does not fit is cut. */
void cli_append(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Reads an option's text into its field and marks it as given; 0: the text is no such value. */
int cli_set(cli_options *options, const cli_option *option, const char *text);
/* Sets a flag to the value in a line of a batch, where it may also be 0, and marks it as given. */
void cli_set_flag(cli_options *options, const cli_option *option, int value);
/* "a whole number from 1 to 1000": what cli_set takes. */
void cli_expected(const cli_option *option, char text[CLI_TEXT_MAX]);
/* "auto, f32, bf16 or int8": the words of an enum. */
void cli_value_names(const cli_option *option, const char *last, char text[CLI_TEXT_MAX]);
/* The number in the field of a numeric option. */
double cli_number(const cli_options *options, const cli_option *option);
/* The text in the field of an option of kind CLI_TEXT, CLI_FILE or CLI_FOLDER. */
const char *cli_text(const cli_options *options, const cli_option *option);

/* ---- the command line (parse.c) ---- */

#define CLI_VARIABLE_MAX 64
/* The variable of the environment that stands for an option: ZIMAGE_MAX_QUEUE for --max-queue. */
void cli_variable(const cli_option *option, char name[CLI_VARIABLE_MAX]);

/* Sets the defaults of a command's options, apart from those that `but` takes as well. */
void cli_set_defaults(cli_command_id command, cli_command_id but, cli_options *options);
/* Fills options; 0, or CLI_USAGE with a printed sentence. With --help nothing behind it is read or checked. What the
 * command line does not give may come from the environment, if the command has variables. */
int cli_parse(cli_command_id command, int argc, char **argv, cli_options *options);
/* The name that is meant by a mistyped one, or by the one of another program; NULL: none. With keys: of the keys of a
 * batch's line. A dash and an underscore are the same here. */
const char *cli_similar(cli_command_id command, const char *name, int keys);
/* The command whose name is most like a mistyped one, or NULL. */
const char *cli_similar_command(const char *name);

/* ---- combinations (rules.c) ---- */

/* The first rule of an option that the options break; NULL: none. */
const cli_rule *cli_broken_rule(cli_command_id command, const cli_option *option, const cli_options *options);
/* "only with --guidance above 0: it changes nothing otherwise". keys: names as in a line of a batch. */
void cli_rule_sentence(const cli_rule *rule, int keys, char text[CLI_TEXT_MAX]);
/* 0, or CLI_USAGE with a printed sentence: a combination in which an option would have no effect. */
int cli_check(cli_command_id command, const cli_options *options);

/* ---- the library's sentences (fields.c) ---- */

#define CLI_SENTENCE_MAX 2048 /* more than a zimage_error holds */

/* Replaces the library's names of values by what the user typed: "height: 17, expected ..." becomes "--height: ...",
 * "--size: ..." or, in a line of a batch, "height: ...". A sentence about something else stays as it is. */
void cli_translate(cli_command_id command, const cli_options *options, const char *sentence,
                   char text[CLI_SENTENCE_MAX]);

/* ---- help.c, man.c, completion.c ---- */

/* A line of a batch file, as the help and the manual page show it. */
#define CLI_BATCH_EXAMPLE "{\"prompt\": \"a red apple\", \"output\": \"apple.png\", \"seed\": 7}"

/* How options become variables of the environment. */
#define CLI_VARIABLES                                                                                                  \
    "Each option may also be a variable: ZIMAGE_ and its name in capitals, with _ for -, such as ZIMAGE_QUEUE for "    \
    "--queue. The variable of an option without a value is 1 or 0. What the command line says counts before a "        \
    "variable."

void cli_print_help(cli_command_id command);
void cli_print_overview(FILE *file);
void cli_print_man(void);
void cli_print_completion(const char *shell);
/* The whole description of an option: help, values, default, what it needs. */
void cli_describe(cli_command_id command, const cli_option *option, char *text, size_t size);

#endif
