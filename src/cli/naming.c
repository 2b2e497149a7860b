#include "naming.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define SLUG_MAX 40 /* characters of the prompt in a file name */

/* "a red apple" -> "a-red-apple", ASCII letters and digits only; empty for other scripts. */
static void slug_of(const char *prompt, char slug[SLUG_MAX + 1])
{
    size_t length = 0;
    for (const char *c = prompt ? prompt : ""; *c && length < SLUG_MAX; c++) {
        if (isascii((unsigned char)*c) && isalnum((unsigned char)*c))
            slug[length++] = (char)tolower((unsigned char)*c);
        else if (length && slug[length - 1] != '-' && isascii((unsigned char)*c))
            slug[length++] = '-';
    }
    while (length && slug[length - 1] == '-')
        length--;
    slug[length] = 0;
}

int cli_has_png_suffix(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && !strcasecmp(path + length - 4, ".png");
}

void cli_name_image(const cli_options *options, uint64_t seed, int64_t index, char path[PATH_MAX])
{
    const char *output = options->output;
    if (!output) {
        char slug[SLUG_MAX + 1];
        slug_of(options->prompt, slug);
        snprintf(path, PATH_MAX, "%s-%llu.png", *slug ? slug : "zimage", (unsigned long long)seed);
    } else if (options->count == 1) {
        snprintf(path, PATH_MAX, "%s", output);
    } else {
        int stem = (int)strlen(output) - (cli_has_png_suffix(output) ? 4 : 0);
        snprintf(path, PATH_MAX, "%.*s-%lld.png", stem, output, (long long)index);
    }
}

static int can_write_folder(const char *command, const char *label, const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    else
        strcpy(folder, ".");
    if (access(folder, W_OK | X_OK) == 0)
        return 1;
    cli_usage_error(command, "%s: can't write to the folder %s: %s", label, folder, strerror(errno));
    return 0;
}

/* Whether path is a file to be made or replaced, and not a device, which is written as it is. */
static int is_regular(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 || S_ISREG(st.st_mode);
}

int cli_can_write(const char *command, const char *label, const char *path)
{
    struct stat st;
    if (strlen(path) >= CLI_PATH_MAX)
        return !cli_usage_error(command, "%s: the path is too long", label);
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return !cli_usage_error(command, "%s: %s is a folder, expected a file name", label, path);
    return is_regular(path) ? can_write_folder(command, label, path) : 1;
}

int cli_can_write_image(const char *command, const char *label, const char *path)
{
    if (!cli_can_write(command, label, path))
        return 0;
    if (is_regular(path) && !cli_has_png_suffix(path))
        return !cli_usage_error(command, "%s: %s, expected a name ending in .png", label, path);
    return 1;
}

uint64_t cli_random_seed(void)
{
    uint32_t seed;
    if (getentropy(&seed, sizeof seed) != 0)
        seed = (uint32_t)time(NULL);
    return seed;
}
