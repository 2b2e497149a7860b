#include "base/library.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of libraries below an installation's prefix: "lib", "lib64", "lib/x86_64-linux-gnu". */
#ifndef ZIMAGE_LIBRARY_FOLDER
#define ZIMAGE_LIBRARY_FOLDER "lib"
#endif

/* Below the folder of this code. */
static const char *const near_code[] = {".", "../lib", ("../" ZIMAGE_LIBRARY_FOLDER)};

static const char *const system_folders[] = {"/usr/local/" ZIMAGE_LIBRARY_FOLDER,
                                             "/usr/local/lib",
                                             "/usr/" ZIMAGE_LIBRARY_FOLDER,
                                             "/usr/lib64",
                                             "/usr/lib",
                                             "/opt/homebrew/lib"};

#define NEAR   (sizeof near_code / sizeof *near_code)
#define SYSTEM (sizeof system_folders / sizeof *system_folders)

#if defined(__linux__)

/*
 * proc(5): a line of maps is "begin-end flags offset device inode   path". dladdr would give the name by which the
 * program was started, which names another file after a search of PATH.
 */
static int code_path(char *path, size_t size)
{
    char line[PATH_MAX + 128];
    uintptr_t address = (uintptr_t)zi_code_folder;
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return 0;
    while (!found && fgets(line, sizeof line, maps)) {
        unsigned long begin = 0, end = 0;
        const char *slash = strchr(line, '/');
        found = slash && sscanf(line, "%lx-%lx", &begin, &end) == 2 && begin <= address && address < end;
        if (found)
            snprintf(path, size, "%.*s", (int)strcspn(slash, "\n"), slash);
    }
    fclose(maps);
    return found;
}

#else

static int code_path(char *path, size_t size)
{
    Dl_info info;
    char real[PATH_MAX];
    if (!dladdr((const void *)zi_code_folder, &info) || !info.dli_fname || *info.dli_fname != '/' ||
        !realpath(info.dli_fname, real))
        return 0;
    return snprintf(path, size, "%s", real) < (int)size;
}

#endif

int zi_code_folder(char *folder, size_t size)
{
    char path[PATH_MAX];
    if (!code_path(path, sizeof path))
        return 0;
    *strrchr(path, '/') = 0;
    return snprintf(folder, size, "%s", path) < (int)size;
}

/* The first place that holds the file; 0: none. */
static int find(const char *name, char *path, size_t size)
{
    char own[PATH_MAX];
    int known = zi_code_folder(own, sizeof own);
    for (size_t i = 0; i < NEAR && known; i++)
        if (snprintf(path, size, "%s/%s/%s", own, near_code[i], name) < (int)size && access(path, F_OK) == 0)
            return 1;
    for (size_t i = 0; i < SYSTEM; i++)
        if (snprintf(path, size, "%s/%s", system_folders[i], name) < (int)size && access(path, F_OK) == 0)
            return 1;
    return 0;
}

void *zi_library_open(const char *name, char *why, size_t size)
{
    char path[2 * PATH_MAX];
    if (!find(name, path, sizeof path)) {
        snprintf(why, size, "there is no such file");
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) {
        const char *text = dlerror();
        snprintf(why, size, "%s", text ? text : "no reason was given");
    }
    return library;
}
