#include "places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "naming.h"

#define NUMBERS_MAX 100000 /* files of one default name */
#define CLAIM_LOOKS 50     /* at an empty file, within a second */
#define FILE_MODE   0666   /* less the umask */
#define FOLDER_MODE 0777

/* ---- trying ---- */

static void folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) + (slash == path) : 1;
    snprintf(folder, PATH_MAX, "%.*s", length, slash ? path : ".");
}

/* Creates a file that did not exist. Returns 0 or an errno value. */
static int create_new(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, FILE_MODE);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

/* The same for a file of any name in a folder; it is removed again. */
static int try_folder(const char *folder)
{
    static const char name[] = "/.zimage-XXXXXX";
    char path[PATH_MAX + sizeof name];
    snprintf(path, sizeof path, "%s%s", folder, name);
    int fd = mkstemp(path);
    if (fd < 0)
        return errno;
    close(fd);
    return unlink(path) == 0 ? 0 : errno;
}

/* In a folder such as /tmp only the owner of a file may replace it. */
static int may_replace(const char *folder, const struct stat *file)
{
    struct stat st;
    uid_t user = geteuid();
    return user == 0 || stat(folder, &st) != 0 || !(st.st_mode & S_ISVTX) || st.st_uid == user || file->st_uid == user;
}

/* A name of an open descriptor, such as /dev/stdout, may look like a regular file, but is written in place. */
static int names_descriptor(const char *path)
{
    static const char *const begins[] = {"/dev/std", "/dev/fd/", "/proc/"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (!strncmp(path, begins[i], strlen(begins[i])))
            return 1;
    return 0;
}

/* Whether path is a file to be made or replaced, and not a device, which is written as it is. */
static int is_replaced(const char *path, const struct stat *st, int exists)
{
    return !exists || (S_ISREG(st->st_mode) && !names_descriptor(path));
}

/* A new file of that name; of any name, if there is one already. Returns 0 or an errno value. */
static int try_new(const char *path, const char *folder)
{
    int code = create_new(path);
    if (code == 0)
        return unlink(path) == 0 ? 0 : errno;
    return code == EEXIST ? try_folder(folder) : code;
}

static int try_file(const char *path, const char *folder)
{
    struct stat st;
    char real[PATH_MAX], target[PATH_MAX];
    if (stat(path, &st) != 0)
        return try_new(path, folder);
    if (access(path, W_OK) != 0)
        return errno;
    if (!is_replaced(path, &st, 1))
        return 0;
    folder_of(realpath(path, real) ? real : path, target); /* the file that a link leads to is replaced */
    return may_replace(target, &st) ? try_folder(target) : EPERM;
}

/* Prints a sentence if code is an errno value. Returns whether it is 0. */
static int report(const char *command, const char *label, const char *path, const char *folder, int code)
{
    if (code == 0)
        return 1;
    if (access(folder, W_OK | X_OK) != 0)
        return !cli_usage_error(command, "%s: can't write to the folder %s: %s", label, folder, strerror(code));
    return !cli_usage_error(command, "%s: can't write %s: %s", label, path, strerror(code));
}

int cli_can_create(const char *command, const char *label, const char *path)
{
    char folder[PATH_MAX];
    folder_of(path, folder);
    return report(command, label, path, folder, try_new(path, folder));
}

int cli_can_write_in(const char *command, const char *label, const char *folder)
{
    return report(command, label, folder, folder, try_folder(folder));
}

int cli_can_write(const char *command, const char *label, const char *path)
{
    struct stat st;
    char folder[PATH_MAX];
    if (strlen(path) >= CLI_PATH_MAX)
        return !cli_usage_error(command, "%s: the path is too long", label);
    if (stat(path, &st) == 0 && (S_ISDIR(st.st_mode) || S_ISSOCK(st.st_mode)))
        return !cli_usage_error(command, "%s: %s is a %s, expected a file name", label, path,
                                S_ISDIR(st.st_mode) ? "folder" : "socket");
    folder_of(path, folder);
    return report(command, label, path, folder, try_file(path, folder));
}

int cli_can_write_image(const char *command, const char *label, const char *path)
{
    struct stat st;
    int exists = stat(path, &st) == 0;
    if (is_replaced(path, &st, exists) && !cli_image_suffix(path))
        return !cli_usage_error(command, "%s: %s, expected a name ending in " CLI_IMAGE_SUFFIXES, label, path);
    return cli_can_write(command, label, path);
}

int cli_is_link(const char *command, const char *label, const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISLNK(st.st_mode))
        return 0;
    cli_usage_error(command, "%s: %s is a symbolic link, expected a file in the folder of --out-dir", label, path);
    return 1;
}

/* ---- folders ---- */

/* The next end of a folder's name in a path behind `at`, without the slashes that follow. */
static size_t next_end(const char *path, size_t at)
{
    at += strspn(path + at, "/");
    return at + strcspn(path + at, "/");
}

int cli_folder_make(const char *command, const char *label, const char *path, size_t *existing)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    *existing = length;
    if (length >= CLI_PATH_MAX)
        return !cli_usage_error(command, "%s: the path is too long", label);
    for (size_t end = next_end(path, 0); end > 0; end = path[end] ? next_end(path, end) : 0) {
        snprintf(part, sizeof part, "%.*s", (int)end, path);
        if (mkdir(part, FOLDER_MODE) == 0) {
            *existing = *existing < end ? *existing : end - 1;
        } else if (errno != EEXIST && access(part, F_OK) != 0) {
            cli_usage_error(command, "%s: can't make the folder %s: %s", label, part, strerror(errno));
            cli_folder_unmake(path, *existing);
            return 0;
        }
    }
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return 1;
    cli_folder_unmake(path, *existing);
    return !cli_usage_error(command, "%s: %s is no folder", label, path);
}

void cli_folder_unmake(const char *path, size_t existing)
{
    char part[PATH_MAX];
    for (size_t end = strlen(path); end > existing; end--)
        if (path[end] == 0 || path[end] == '/') {
            snprintf(part, sizeof part, "%.*s", (int)end, path);
            rmdir(part);
        }
}

int cli_can_make_folder(const char *command, const char *label, const char *path)
{
    size_t existing;
    if (!cli_folder_make(command, label, path, &existing))
        return 0;
    cli_folder_unmake(path, existing);
    return 1;
}

int cli_parents_make(const char *folder, const char *path)
{
    char part[PATH_MAX];
    for (const char *end = strchr(path + strlen(folder) + 1, '/'); end; end = strchr(end + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
        if (mkdir(part, FOLDER_MODE) != 0 && errno != EEXIST)
            return errno;
    }
    return 0;
}

/* ---- default names ---- */

int cli_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int cli_is_complete(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
}

/* File systems without hard links: there base/output.c claims a name by an empty file before it renames. */
int cli_is_taken(const char *path, int *removed)
{
    const struct timespec moment = {.tv_nsec = 1000000000 / CLAIM_LOOKS};
    *removed = 0;
    for (int i = 0; i < CLAIM_LOOKS; i++) {
        if (cli_is_complete(path))
            return 1;
        if (!cli_is_file(path))
            return 0;
        nanosleep(&moment, NULL);
    }
    *removed = unlink(path) == 0;
    return 0;
}

int cli_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

char *cli_free_name(const char *path, int *number, const json_t *taken)
{
    char name[PATH_MAX];
    while (++*number <= NUMBERS_MAX) {
        cli_number_name(path, *number, name);
        if (!json_object_get(taken, name) && !cli_exists(name))
            return strdup(name);
    }
    errno = EEXIST;
    return NULL;
}
