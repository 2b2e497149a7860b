/* The web page. Its files are in the program, compressed; a client that does not take gzip gets them expanded. */
#include "page.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "handlers.h"

#define GZIP_WINDOW (15 + 16) /* of zlib: 32 KiB, with the header of gzip */

/* The page runs what it is made of and nothing else, talks to its own server only, and nobody may frame it. blob: and
 * data: are pictures that it holds. */
static const char policy_of_page[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

static const char *type_of(const char *name)
{
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".svg", "image/svg+xml"},
    };
    const char *end = strrchr(name, '.');
    for (size_t i = 0; end && i < sizeof types / sizeof *types; i++)
        if (!strcmp(end, types[i][0]))
            return types[i][1];
    return "application/octet-stream";
}

/* Whether "gzip" is in Accept-Encoding, and not with a quality of 0. */
static int accepts_gzip(const char *accepted)
{
    const char *gzip = accepted ? strstr(accepted, "gzip") : NULL;
    if (!gzip)
        return 0;
    gzip += strlen("gzip");
    gzip += strspn(gzip, " ;");
    return strncmp(gzip, "q=", 2) != 0 || strtod(gzip + 2, NULL) > 0;
}

static struct MHD_Response *expanded(const page_file *file)
{
    unsigned char *whole = malloc(file->whole + 1);
    z_stream z = {.next_in = (z_const Bytef *)file->data,
                  .avail_in = (uInt)file->size,
                  .next_out = whole,
                  .avail_out = (uInt)file->whole};
    int ok = whole && inflateInit2(&z, GZIP_WINDOW) == Z_OK;
    if (ok) {
        ok = inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_out == 0;
        inflateEnd(&z);
    }
    struct MHD_Response *response =
        ok ? MHD_create_response_from_buffer(file->whole, whole, MHD_RESPMEM_MUST_FREE) : NULL;
    if (!response)
        free(whole);
    return response;
}

static struct MHD_Response *response_of(const exchange *x, const page_file *file, int *status)
{
    const char *known = exchange_header(x, "If-None-Match");
    struct MHD_Response *response;
    *status = known && strstr(known, file->tag) ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK;
    if (*status == MHD_HTTP_NOT_MODIFIED)
        return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!accepts_gzip(exchange_header(x, "Accept-Encoding")))
        return expanded(file);
    response = MHD_create_response_from_buffer(file->size, (void *)(uintptr_t)file->data, MHD_RESPMEM_PERSISTENT);
    if (response)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip");
    return response;
}

static enum MHD_Result answer_missing(exchange *x)
{
    fault_set(&x->fault, FAULT_UNSUPPORTED_ENDPOINT, NULL, "the page has no such file");
    return answer_fault(x);
}

static enum MHD_Result send_file(exchange *x, const char *name, int status, struct MHD_Response *response)
{
    const char *const headers[][2] = {
        {MHD_HTTP_HEADER_CONTENT_TYPE, type_of(name)},
        {MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache"}, /* kept, but asked for again: a new program has a new page */
        {MHD_HTTP_HEADER_VARY, "Accept-Encoding"},
        {"Content-Security-Policy", policy_of_page},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        MHD_add_response_header(response, headers[i][0], headers[i][1]);
    return exchange_send(x, status, response);
}

/* A file of a folder that its maker works on. The name is one of a file, not of a place. */
static enum MHD_Result answer_own_file(exchange *x, const char *name)
{
    int folder = open(x->server->params->page_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int is_name = *name != '.' && !strchr(name, '/');
    int fd = folder >= 0 && is_name ? openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    struct stat status;
    if (folder >= 0)
        close(folder);
    if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        if (fd >= 0)
            close(fd);
        return answer_missing(x);
    }
    struct MHD_Response *response = MHD_create_response_from_fd((size_t)status.st_size, fd);
    if (!response)
        close(fd);
    return response ? send_file(x, name, MHD_HTTP_OK, response) : MHD_NO;
}

static enum MHD_Result answer_file(exchange *x, const char *name)
{
    const page_file *file = NULL;
    if (x->server->params->page_folder)
        return answer_own_file(x, name);
    for (size_t i = 0; i < page_file_count && !file && !x->server->params->has_no_page; i++)
        file = strcmp(page_files[i].name, name) ? NULL : &page_files[i];
    if (!file)
        return answer_missing(x);
    int status;
    struct MHD_Response *response = response_of(x, file, &status);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_ETAG, file->tag);
    return send_file(x, name, status, response);
}

enum MHD_Result handle_page(exchange *x)
{
    return answer_file(x, "index.html");
}

enum MHD_Result handle_page_file(exchange *x)
{
    return answer_file(x, x->match.parameters[0]);
}
