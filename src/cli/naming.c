#include "naming.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <utf8proc.h>

#include "shared/fold.h"
#include "zimage.h"

/* The part of a file name that is made of the prompt. Some file systems take names of 143 bytes only; the seed, a
 * number and the suffix of a temporary file have to fit behind it. */
#define SLUG_CHARACTERS 40
#define SLUG_BYTES      80
#define CHARACTER_BYTES 4 /* of UTF-8, at most */

#define DEFAULT_STEM "zimage" /* of a prompt without letters and digits */
#define PNG_SUFFIX   ".png"

/* Letters, marks and digits of all scripts in lower case, other characters as one dash. A name begins with a letter or
 * a digit. Bytes that are not UTF-8 separate words, too. */
static void slug_of(const char *prompt, char slug[SLUG_BYTES + 1])
{
    const utf8proc_uint8_t *c = (const utf8proc_uint8_t *)prompt;
    size_t length = 0, words_end = 0;
    for (int characters = 0; c && *c && characters < SLUG_CHARACTERS && length + CHARACTER_BYTES <= SLUG_BYTES;) {
        utf8proc_int32_t character;
        utf8proc_ssize_t bytes = utf8proc_iterate(c, -1, &character);
        fold_kind kind = bytes > 0 ? fold_kind_of(character) : FOLD_SEPARATOR;
        c += bytes > 0 ? bytes : 1;
        if (kind == FOLD_LETTER || (kind == FOLD_MARK && length > 0 && length == words_end)) {
            length += (size_t)utf8proc_encode_char(utf8proc_tolower(character), (utf8proc_uint8_t *)slug + length);
            words_end = length;
            characters++;
        } else if (kind == FOLD_SEPARATOR && length > 0 && length == words_end) {
            slug[length++] = '-';
            characters++;
        }
    }
    slug[words_end] = 0;
}

const char *cli_image_suffix(const char *path)
{
    return zimage_format_of_path(path, NULL) ? strrchr(path, '.') : NULL;
}

/* "a.jpg" with a number: "a-2.jpg". */
static void put_number(const char *path, long long number, char numbered[PATH_MAX])
{
    const char *suffix = cli_image_suffix(path);
    int stem = (int)(suffix ? suffix - path : (ptrdiff_t)strlen(path));
    snprintf(numbered, PATH_MAX, "%.*s-%lld%s", stem, path, number, suffix ? suffix : PNG_SUFFIX);
}

void cli_name_image(const cli_options *options, uint64_t seed, int64_t index, char path[PATH_MAX])
{
    const char *output = options->output;
    if (!output) {
        char slug[SLUG_BYTES + 1];
        slug_of(options->prompt, slug);
        snprintf(path, PATH_MAX, "%s-%llu" PNG_SUFFIX, *slug ? slug : DEFAULT_STEM, (unsigned long long)seed);
    } else if (options->count == 1) {
        snprintf(path, PATH_MAX, "%s", output);
    } else {
        put_number(output, index, path);
    }
}

void cli_number_name(const char *path, int number, char numbered[PATH_MAX])
{
    if (number == 1)
        snprintf(numbered, PATH_MAX, "%s", path);
    else
        put_number(path, number, numbered);
}

void cli_name_folder(const char *path, char name[PATH_MAX])
{
    char real[PATH_MAX];
    const char *text = realpath(path, real) ? real : path;
    const char *last = strrchr(text, '/');
    const char snapshots[] = "/snapshots";
    size_t above = last ? (size_t)(last - text) : 0, length = strlen(snapshots);
    if (above > length && !strncmp(last - length, snapshots, length)) {
        last -= length;
        while (last > text && last[-1] != '/')
            last--;
        last -= last > text;
    }
    snprintf(name, PATH_MAX, "%s", last && last[1] ? last + 1 : text);
}

uint64_t cli_random_seed(void)
{
    uint32_t seed;
    if (getentropy(&seed, sizeof seed) != 0)
        seed = (uint32_t)time(NULL);
    return seed;
}
