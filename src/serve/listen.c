#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FILES_ASIDE 64 /* of the limit of open files: for models, devices and the log */
#define BACKLOG     128
#define SOCKET_MODE 0660 /* of a Unix socket: its user and its group may connect */

static int fail(int fd, const serve_params *params, const char *what, zimage_error *error)
{
    if (params->unix_path)
        snprintf(error->message, sizeof error->message, "unix: %s: %s: %s", params->unix_path, what, strerror(errno));
    else
        snprintf(error->message, sizeof error->message, "host: %s, port %d: %s: %s", params->host, params->port, what,
                 strerror(errno));
    error->status = ZIMAGE_ERROR_FILE;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Its size; 0: the host is no address. */
static socklen_t address_of(const serve_params *params, struct sockaddr_storage *address)
{
    struct sockaddr_in *four = (void *)address;
    struct sockaddr_in6 *six = (void *)address;
    *address = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, params->host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)params->port);
        return sizeof *four;
    }
    if (inet_pton(AF_INET6, params->host, &six->sin6_addr) != 1)
        return 0;
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)params->port);
    return sizeof *six;
}

static int port_of(const struct sockaddr_storage *address)
{
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)address)->sin6_port
                                                : ((const struct sockaddr_in *)(const void *)address)->sin_port);
}

/* Removes the socket of a server that has ended without doing so. 0: something else is there. */
static int remove_stale(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) != 0)
        return errno == ENOENT;
    int fd = S_ISSOCK(status.st_mode) ? socket(AF_UNIX, SOCK_STREAM, 0) : -1;
    int is_stale = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 &&
                   errno == ECONNREFUSED && unlink(address->sun_path) == 0;
    if (fd >= 0)
        close(fd);
    errno = EADDRINUSE;
    return is_stale;
}

/* Nobody can connect before listen(), when the socket has its mode. */
static int listen_on_path(const serve_params *params, zimage_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (snprintf(address.sun_path, sizeof address.sun_path, "%s", params->unix_path) >= (int)sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return fail(-1, params, "can't be listened on", error);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return fail(fd, params, "no socket", error);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (!remove_stale(&address) || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        chmod(params->unix_path, SOCKET_MODE) != 0 || listen(fd, BACKLOG) != 0)
        return fail(fd, params, "can't be listened on", error);
    return fd;
}

int listen_on(const serve_params *params, int *port, zimage_error *error)
{
    *port = 0;
    if (params->unix_path)
        return listen_on_path(params, error);
    struct sockaddr_storage address;
    socklen_t size = address_of(params, &address);
    int on = 1;
    if (size == 0) {
        snprintf(error->message, sizeof error->message, "host: \"%s\", expected an address such as 127.0.0.1 or ::1",
                 params->host);
        error->status = ZIMAGE_ERROR_ARGUMENT;
        return -1;
    }
    int fd = socket(address.ss_family, SOCK_STREAM, 0);
    if (fd < 0)
        return fail(fd, params, "no socket", error);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, BACKLOG) != 0)
        return fail(fd, params, "can't be listened on", error);
    size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return fail(fd, params, "its port is not known", error);
    *port = port_of(&address);
    return fd;
}

unsigned listen_connections_max(int connections)
{
    const rlim_t wanted = (rlim_t)connections + FILES_ASIDE;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return (unsigned)connections;
    if (limit.rlim_cur < wanted && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= wanted)
        return (unsigned)connections;
    return limit.rlim_cur > 2 * FILES_ASIDE ? (unsigned)limit.rlim_cur - FILES_ASIDE : FILES_ASIDE;
}
