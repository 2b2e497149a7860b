#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#if defined(SYS_openat2)
#include <linux/openat2.h>
#endif
#endif

#include "base/file.h"

#define CANT_WRITE "can't be written"

#if defined(O_PATH)
#define FOLDER_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)
#else
#define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif
#define FILE_FLAGS (O_CLOEXEC | O_NOCTTY)

/* ---- temporary names ----------------------------------------------------------------------------------------------
 *
 * The list lets a handler of a signal remove the temporary names of the process before it ends. As base/mapping.c's
 * list it belongs to the process, and is changed by atomic operations only. */

#define MOST_TEMPORARIES 128 /* at the same time, in one process */
#define NAME_BYTES       256 /* NAME_MAX and a zero */
#define KEPT_BYTES       200 /* of the file's name that the temporary name keeps, so that it stays below NAME_MAX */
#define ATTEMPTS         1000

enum { FREE, TAKEN, LIVE };

typedef struct zi_temporary {
    atomic_int state, folder;
    char name[NAME_BYTES]; /* not changed while it is live */
} zi_temporary;

static zi_temporary temporaries[MOST_TEMPORARIES];

static zi_temporary *take_temporary(void)
{
    for (int i = 0; i < MOST_TEMPORARIES; i++) {
        int expected = FREE;
        if (atomic_compare_exchange_strong(&temporaries[i].state, &expected, TAKEN))
            return &temporaries[i];
    }
    return NULL;
}

void zi_output_remove_temporaries(void)
{
    for (int i = 0; i < MOST_TEMPORARIES; i++)
        if (atomic_load(&temporaries[i].state) == LIVE)
            unlinkat(atomic_load(&temporaries[i].folder), temporaries[i].name, 0);
}

/* Makes something under a name in the folder: 0, or an errno value; EEXIST: another name is tried. */
typedef int make_fn(zi_output *output, const char *name, int *descriptor);

/* Makes something as "NAME.<pid>-<n>.tmp" with the first free n. Signals wait, so that none finds the name before it is
 * in the list. Returns an errno value. */
static int make_temporary(zi_output *output, make_fn *make, int *descriptor)
{
    sigset_t all, before;
    zi_temporary *temporary = take_temporary();
    int code = EEXIST;
    if (!temporary)
        return EMFILE;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int n = 0; n < ATTEMPTS && code == EEXIST; n++) {
        snprintf(temporary->name, NAME_BYTES, "%.*s.%ld-%d.tmp", KEPT_BYTES, output->name, (long)getpid(), n);
        code = make(output, temporary->name, descriptor);
    }
    atomic_store(&temporary->folder, output->folder);
    atomic_store(&temporary->state, code == 0 ? LIVE : FREE);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code == 0)
        output->temporary = temporary;
    return code;
}

static void forget_temporary(zi_output *output, int remove)
{
    if (!output->temporary)
        return;
    if (remove)
        unlinkat(output->folder, output->temporary->name, 0);
    atomic_store(&output->temporary->state, FREE);
    output->temporary = NULL;
}

static int create_file(zi_output *output, const char *name, int *descriptor)
{
    *descriptor = openat(output->folder, name, O_WRONLY | O_CREAT | O_EXCL | FILE_FLAGS, 0666);
    return *descriptor < 0 ? errno : 0;
}

/* ---- files without a name ---------------------------------------------------------------------------------------- */

#if defined(O_TMPFILE)

#define DESCRIPTOR_PATH "/proc/self/fd/%d" /* proc(5): a link to the file, also if it has no name */

/* Without /proc the file could not be given a name (open(2), O_TMPFILE). -1: the system or the file system can't. */
static int open_unnamed(const zi_output *output)
{
    char path[64];
    int descriptor = openat(output->folder, ".", O_RDWR | O_TMPFILE | FILE_FLAGS, 0666);
    if (descriptor < 0)
        return -1;
    snprintf(path, sizeof path, DESCRIPTOR_PATH, descriptor);
    if (access(path, F_OK) == 0)
        return descriptor;
    close(descriptor);
    return -1;
}

static int link_file(zi_output *output, const char *name, int *descriptor)
{
    char path[64];
    snprintf(path, sizeof path, DESCRIPTOR_PATH, *descriptor);
    return linkat(AT_FDCWD, path, output->folder, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
}

#else

static int open_unnamed(const zi_output *output)
{
    return -1;
}

static int link_file(zi_output *output, const char *name, int *descriptor)
{
    return ENOSYS;
}

#endif

#define COPY_BYTES 65536

static int copy_content(int from, int to)
{
    static const size_t size = COPY_BYTES;
    char *buffer = malloc(size);
    int code = buffer ? 0 : ENOMEM;
    off_t place = 0;
    while (code == 0) {
        ssize_t got = pread(from, buffer, size, place);
        if (got == 0)
            break;
        ssize_t put = got > 0 ? pwrite(to, buffer, (size_t)got, place) : -1;
        if (put > 0)
            place += put;
        else if (errno != EINTR)
            code = errno;
    }
    free(buffer);
    return code == 0 && fsync(to) != 0 && errno != EINVAL ? errno : code;
}

/* For file systems that make files without a name, and can't give them one. */
static int copy_file(zi_output *output, int descriptor)
{
    int copy = -1, code = make_temporary(output, create_file, &copy);
    if (code == 0)
        code = copy_content(descriptor, copy);
    if (copy >= 0 && close(copy) != 0 && code == 0)
        code = errno;
    return code;
}

/* Gives the file without a name its name. An existing file is replaced by a rename, so that a name exists at any time.
 * Returns an errno value. */
static int name_file(zi_output *output, int descriptor)
{
    int code = link_file(output, output->name, &descriptor);
    if (code == 0 || (code == EEXIST && output->is_new))
        return code;
    if (code == EEXIST)
        code = make_temporary(output, link_file, &descriptor);
    if (code != 0)
        code = copy_file(output, descriptor);
    return code;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void forget(zi_output *output)
{
    if (output->name && output->folder >= 0)
        close(output->folder);
    free(output->path);
    free(output->name);
    *output = (zi_output){.folder = -1};
}

static zimage_status take_descriptor(zi_output *output, int descriptor, zimage_error *error)
{
    int code = errno;
    output->file = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (output->file)
        return ZIMAGE_OK;
    if (descriptor >= 0) {
        code = errno;
        close(descriptor);
        forget_temporary(output, 1);
    }
    return zi_fail_file(error, code, output->path, CANT_WRITE);
}

/* For an output whose path, folder and name are set. */
static zimage_status open_in_folder(zi_output *output, zimage_error *error)
{
    int descriptor = open_unnamed(output);
    if (descriptor < 0) {
        int code = make_temporary(output, create_file, &descriptor);
        errno = code;
    }
    return take_descriptor(output, descriptor, error);
}

/*
 * The descriptor that the path names, as /dev/stdout does (-> /proc/self/fd/1); -1: none. It may be a regular file, to
 * which the shell redirected the output. A rename would replace that file, but the descriptor would keep the old one.
 * Opening the path again would begin at the file's start, also after `>>`.
 */
static int named_descriptor(const char *path)
{
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    if (strcmp(path, "/dev/stdout") == 0)
        return STDOUT_FILENO;
    if (strcmp(path, "/dev/stderr") == 0)
        return STDERR_FILENO;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        const char *number = path + strlen(folders[i]);
        if (strncmp(path, folders[i], strlen(folders[i])) == 0 && strspn(number, "0123456789") == strlen(number) &&
            *number && strlen(number) < 7)
            return atoi(number);
    }
    return -1;
}

/* Splits the path of a file and opens its folder. */
static zimage_status open_folder(zi_output *output, const char *path, zimage_error *error)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    output->name = strdup(slash ? slash + 1 : path);
    if (!folder || !output->name) {
        free(folder);
        return zi_fail_memory(error, "a path", strlen(path) + 1);
    }
    output->folder = open(folder, FOLDER_FLAGS);
    int code = errno;
    free(folder);
    if (output->folder < 0)
        return zi_fail_file(error, code, output->path, CANT_WRITE);
    return ZIMAGE_OK;
}

/* The path that a rename replaces: the target of an existing symbolic link, not the link. NULL: out of memory. */
static char *final_path(const char *path, int exists)
{
    struct stat status;
    char *resolved = NULL;
    errno = 0;
    if (exists && lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        resolved = realpath(path, NULL);
    if (!resolved && errno == ENOMEM)
        return NULL;
    return resolved ? resolved : strdup(path);
}

static zimage_status open_output(zi_output *output, const char *path, zimage_error *error)
{
    struct stat status;
    if (*path == 0)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "the path of the output file is empty");
    int exists = stat(path, &status) == 0, descriptor = named_descriptor(path);
    if (output->is_new && lstat(path, &status) == 0)
        return zi_fail_file(error, EEXIST, path, CANT_WRITE);
    if (exists && S_ISDIR(status.st_mode))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: " CANT_WRITE ": this is a folder", path);
    output->path = final_path(path, exists && descriptor < 0);
    if (!output->path)
        return zi_fail_memory(error, "a path", strlen(path) + 1);
    if (descriptor >= 0)
        return take_descriptor(output, fcntl(descriptor, F_DUPFD_CLOEXEC, 0), error);
    if (exists && !S_ISREG(status.st_mode))
        return take_descriptor(output, open(path, O_WRONLY | FILE_FLAGS), error);
    /* A rename would replace a read-only file, too; but a file that can't be written must stay. */
    if (exists && access(path, W_OK) != 0)
        return zi_fail_file(error, errno, path, CANT_WRITE);
    ZI_TRY(open_folder(output, output->path, error));
    return open_in_folder(output, error);
}

/* ---- opening beneath a folder ------------------------------------------------------------------------------------ */

/* Whether each part of "a/b/c" is a name of its own: not empty, not "." and not "..". */
static int has_plain_parts(const char *name)
{
    for (const char *part = name;; part += strcspn(part, "/") + 1) {
        size_t length = strcspn(part, "/");
        if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
            return 0;
        if (part[length] == 0)
            return 1;
    }
}

/* Opens the folder "a/b" part by part, without following a symbolic link. Returns a descriptor, or -1 and errno. */
static int open_parts(int root, const char *path)
{
    char part[NAME_BYTES];
    int folder = dup(root);
    while (folder >= 0 && *path) {
        size_t length = strcspn(path, "/");
        if (length >= sizeof part) {
            close(folder);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(part, path, length);
        part[length] = 0;
        int next = openat(folder, part, FOLDER_FLAGS | O_NOFOLLOW), code = errno;
        close(folder);
        errno = code;
        folder = next;
        path += length + (path[length] == '/');
    }
    return folder;
}

/* Opens a folder below root. On Linux links may lead to other folders below root (openat2, Linux 5.6). */
static int open_beneath(int root, const char *path)
{
#if defined(SYS_openat2)
    const struct open_how how = {.flags = FOLDER_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int folder = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    if (folder >= 0 || (errno != ENOSYS && errno != EPERM)) /* seccomp filters answer EPERM */
        return folder;
#endif
    return open_parts(root, path);
}

/* Splits output->name into the folder, which is opened, and the rest. */
static zimage_status descend(zi_output *output, zimage_error *error)
{
    char *slash = strrchr(output->name, '/');
    if (!slash)
        return ZIMAGE_OK;
    *slash = 0;
    int folder = open_beneath(output->folder, output->name), code = errno;
    memmove(output->name, slash + 1, strlen(slash + 1) + 1);
    if (folder >= 0) {
        close(output->folder);
        output->folder = folder;
        return ZIMAGE_OK;
    }
    if (code == EXDEV || code == ELOOP || code == ENOTDIR)
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: " CANT_WRITE ": a part of its path is no folder in the folder of "
                       "outputs, or a symbolic link that leads out of it",
                       output->path);
    return zi_fail_file(error, code, output->path, CANT_WRITE);
}

static zimage_status open_name(zi_output *output, zimage_error *error)
{
    struct stat status;
    int exists = fstatat(output->folder, output->name, &status, AT_SYMLINK_NOFOLLOW) == 0;
    if (exists && output->is_new)
        return zi_fail_file(error, EEXIST, output->path, CANT_WRITE);
    if (exists && S_ISLNK(status.st_mode))
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: " CANT_WRITE ": this is a symbolic link, which may lead out of the "
                       "folder of outputs",
                       output->path);
    if (exists && S_ISDIR(status.st_mode))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: " CANT_WRITE ": this is a folder", output->path);
    if (exists && faccessat(output->folder, output->name, W_OK, 0) != 0)
        return zi_fail_file(error, errno, output->path, CANT_WRITE);
    if (!exists || S_ISREG(status.st_mode))
        return open_in_folder(output, error);
    return take_descriptor(output, openat(output->folder, output->name, O_WRONLY | O_NOFOLLOW | FILE_FLAGS), error);
}

static zimage_status open_output_beneath(zi_output *output, const char *folder, const char *name, zimage_error *error)
{
    if (!has_plain_parts(name))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: " CANT_WRITE ": expected a name of a file in the folder %s", name,
                       folder);
    output->path = zi_path_join(folder, name);
    output->name = strdup(name);
    if (!output->path || !output->name)
        return zi_fail_memory(error, "a path", strlen(folder) + strlen(name) + 2);
    output->folder = open(folder, FOLDER_FLAGS);
    if (output->folder < 0)
        return zi_fail_file(error, errno, output->path, CANT_WRITE);
    ZI_TRY(descend(output, error));
    return open_name(output, error);
}

zimage_status zi_output_open_at(zi_output *output, const zi_place *place, zimage_error *error)
{
    *output = (zi_output){.folder = -1, .is_new = place->is_new};
    zimage_status status = place->folder ? open_output_beneath(output, place->folder, place->path, error)
                                         : open_output(output, place->path, error);
    if (status != ZIMAGE_OK)
        forget(output);
    return status;
}

zimage_status zi_output_open(zi_output *output, const char *path, zimage_error *error)
{
    return zi_output_open_at(output, &(zi_place){.path = path}, error);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

int zi_output_write(zi_output *output, const void *data, size_t size)
{
    errno = 0;
    if (size == 0 || fwrite(data, 1, size, output->file) == size)
        return 1;
    if (output->code == 0)
        output->code = errno;
    return 0;
}

#define UNKNOWN_ERROR (-1)

/*
 * Flushes, syncs and closes; returns an errno value. Some failures appear only here (full disk, quota, network). If an
 * earlier write to `file` failed, stdio keeps only a flag and no errno value: that is UNKNOWN_ERROR, unless flushing
 * fails, too.
 */
static int finish_writing(zi_output *output)
{
    int code = output->code, replaced = output->name != NULL && output->folder >= 0;
    if (code == 0 && ferror(output->file))
        code = UNKNOWN_ERROR;
    if (fflush(output->file) != 0 && code <= 0)
        code = errno;
    if (code == 0 && replaced && fsync(fileno(output->file)) != 0 && errno != EINVAL)
        code = errno;
    return code;
}

/* Closes the file, keeps its descriptor in *unnamed where it has no name yet; returns an errno value. */
static int close_file(zi_output *output, int *unnamed)
{
    int code = 0;
    if (output->folder >= 0 && !output->temporary) {
        *unnamed = fcntl(fileno(output->file), F_DUPFD_CLOEXEC, 0);
        code = *unnamed < 0 ? errno : 0;
    }
    if (fclose(output->file) != 0 && code == 0)
        code = errno;
    output->file = NULL;
    return code;
}

/*
 * Gives the file of the temporary name its own. Returns an errno value; *kept: it has both. A new file gets a second
 * name, because renaming replaces. Some file systems have no second names. There an empty file takes the name first.
 */
static int rename_temporary(zi_output *output, int *kept)
{
    const char *temporary = output->temporary->name;
    int taken = -1, folder = output->folder;
    if (output->is_new) {
        *kept = linkat(folder, temporary, folder, output->name, 0) == 0;
        if (*kept || errno == EEXIST)
            return *kept ? 0 : errno;
        int code = create_file(output, output->name, &taken);
        if (code != 0)
            return code;
        close(taken);
    }
    return renameat(folder, temporary, folder, output->name) == 0 ? 0 : errno;
}

/* Returns an errno value. */
static int commit(zi_output *output)
{
    int unnamed = -1, code = finish_writing(output), closed = close_file(output, &unnamed);
    if (code == 0)
        code = closed;
    if (code == 0 && unnamed >= 0)
        code = name_file(output, unnamed);
    if (unnamed >= 0)
        close(unnamed);
    int kept = 0; /* the temporary name */
    if (code == 0 && output->temporary)
        code = rename_temporary(output, &kept);
    forget_temporary(output, code != 0 || kept);
    return code;
}

zimage_status zi_output_commit(zi_output *output, zimage_error *error)
{
    zimage_status status = ZIMAGE_OK;
    int code = commit(output);
    if (code == UNKNOWN_ERROR)
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s: " CANT_WRITE " completely; is the disk full?", output->path);
    else if (code != 0)
        status = zi_fail_file(error, code, output->path, CANT_WRITE);
    forget(output);
    return status;
}

void zi_output_abandon(zi_output *output)
{
    if (output->file)
        fclose(output->file);
    forget_temporary(output, 1);
    forget(output);
}
