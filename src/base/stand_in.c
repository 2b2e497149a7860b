#include "base/stand_in.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

zimage_status zi_refuse_dangling_link(const char *path, zimage_error *error)
{
    struct stat facts;
    char target[PATH_MAX];
    if (stat(path, &facts) == 0 || lstat(path, &facts) != 0 || !S_ISLNK(facts.st_mode))
        return ZIMAGE_OK;
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = 0;
    return zi_fail(
        error, ZIMAGE_ERROR_FILE,
        "%s: the link leads to %s, which does not exist (a copy of a download cache needs the files that its "
        "links lead to: cp -RL)",
        path, target);
}

/* The first bytes of files of other formats; a safetensors file begins with the length of its header. */
static const struct {
    const char *text, *what;
    size_t length;
} beginnings[] = {
    {"version https://git-lfs.github.com/spec/", "a pointer file of git-lfs: run \"git lfs pull\" in the folder", 40},
    {"<!DOCTYPE", "a web page: download the file again", 9},
    {"<html", "a web page: download the file again", 5},
    {"PK\3\4", "a zip archive, as PyTorch saves: convert the weights to safetensors", 4},
    {"GGUF", "a GGUF file: only safetensors files are read", 4},
    {"\x89HDF", "an HDF5 file: only safetensors files are read", 4},
};

zimage_status zi_refuse_stand_in(const char *path, zimage_error *error)
{
    char head[64] = "";
    size_t length = 0;
    ZI_TRY(zi_refuse_dangling_link(path, error));
    if (!zi_file_exists(path))
        return ZIMAGE_OK;
    FILE *file = fopen(path, "rb");
    if (file) {
        length = fread(head, 1, sizeof head, file);
        fclose(file);
    }
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (length >= beginnings[i].length && strncasecmp(head, beginnings[i].text, beginnings[i].length) == 0)
            return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: the file is %s", path, beginnings[i].what);
    return ZIMAGE_OK;
}
