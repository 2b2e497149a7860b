/* What the commands share. Every command uses zimage.h only. */
#ifndef ZI_CLI_CLI_H
#define ZI_CLI_CLI_H

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "zimage.h"

#define CLI_FAILURE 1 /* exit code: the work failed */
#define CLI_USAGE   2 /* exit code: the command line is wrong */

int cmd_bench(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_selftest(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);

/* The bundled model's folder: $ZIMAGE_MODEL, beside the installed program, or in the source tree it was built from. */
const char *cli_default_model(void);

/* The path of the program's own file; 0: the system does not say, or it is longer than size. */
int cli_program_path(char *path, size_t size);
/* The most physical memory that this process has occupied at once, in bytes; 0: unknown. */
uint64_t cli_peak_resident_bytes(void);

/* Prints "zimage COMMAND: sentence" and returns CLI_USAGE or CLI_FAILURE. */
int cli_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_failure(const char *command, const zimage_error *error);

/* A whole number in [low, high] from an option's text; 0 and a printed sentence when it is none. */
int cli_parse_int(const char *command, const char *option, const char *text, int64_t low, int64_t high, int64_t *value);
int cli_parse_uint64(const char *command, const char *option, const char *text, uint64_t *value);
int cli_parse_float(const char *command, const char *option, const char *text, double low, double high, double *value);

/* "auto", "f32", "bf16", "int8", "fp8"; 0 and a printed sentence when it is none. */
int cli_parse_compute(const char *command, const char *text, zimage_compute *compute);

/* Bytes from "6G", "512M", "1.5g", "4096K" or a plain number; 0 and a printed sentence when it is none or zero. */
int cli_parse_size(const char *command, const char *option, const char *text, uint64_t *bytes);
/* 0 and a printed sentence when --vram is given where no card can be meant. device may be NULL. */
int cli_check_vram(const char *command, uint64_t bytes, const char *device, int reference);
/* The plan of a card's memory; NULL without one. */
json_t *cli_device_json(const zimage_device_plan *plan);
/* Whole MiB, rounded up: as --mem takes them. */
unsigned long long cli_mib(uint64_t bytes);

/* zimage_open_params.log: prints "zimage: warning: ..." to stderr; user not NULL: nothing but warnings. */
void cli_log(zimage_log_level level, const char *message, void *user);

#endif
