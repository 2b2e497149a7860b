/* Words of enums: of 0, 1, ...; NULL behind the last. */
#ifndef ZI_CLI_NAMES_H
#define ZI_CLI_NAMES_H

const char *cli_rng_name(int value);
const char *cli_compute_name(int value);
const char *cli_dequantize_name(int value);
const char *cli_template_name(int value);
const char *cli_shell_name(int value);
const char *cli_show_name(int value); /* of terminal_protocol, but the last */
const char *cli_command_name(int value);
enum { CLI_QUEUE_INIT, CLI_QUEUE_ADD, CLI_QUEUE_STATUS, CLI_QUEUE_RETRY, CLI_QUEUE_CANCEL, CLI_QUEUE_EXPORT };
const char *cli_queue_action_name(int value);
const char *cli_bench_stage_name(int value);
enum { CLI_LOG_TEXT, CLI_LOG_JSON };
const char *cli_log_format_name(int value); /* "all", then the stages that are timed */

#endif
