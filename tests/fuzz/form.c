/*
 * A multipart form from a stranger, with the boundary "bb". The first byte chooses the dialect, the second one the size
 * of the pieces in which it arrives. Whatever the pieces are, the form is the same.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "request.h"
#include "serve/body.h"

#define LIMIT ((size_t)1 << 20)

static struct MHD_Daemon *server;
static struct MHD_Connection *connection; /* whose header says that the body is a form; it never gets an answer */

static enum MHD_Result on_request(void *user, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **context)
{
    (void)user, (void)url, (void)method, (void)version, (void)data, (void)size, (void)context;
    connection = c;
    return MHD_YES;
}

/* libmicrohttpd reads a form's boundary from a connection. */
static void prepare(void)
{
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=bb\r\n"
                               "Content-Length: 1000\r\n\r\n";
    const struct sockaddr address = {.sa_family = AF_UNIX};
    int pair[2];
    server = MHD_start_daemon(MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, on_request, NULL, MHD_OPTION_END);
    if (!server || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 ||
        MHD_add_connection(server, pair[1], &address, sizeof address) != MHD_YES ||
        write(pair[0], head, sizeof head - 1) != (ssize_t)(sizeof head - 1))
        zi_fuzz_fail("there is no connection");
    for (int i = 0; i < 10 && !connection; i++)
        MHD_run(server);
    if (!connection)
        zi_fuzz_fail("the connection has no request");
}

/* Reads the form in pieces; 0: the fault. */
static int read_form(const uint8_t *data, size_t size, size_t piece, body **b, const form **read, fault *f)
{
    *b = body_new(BODY_FORM, LIMIT, connection);
    if (!*b)
        zi_fuzz_fail("no boundary, or out of memory");
    for (size_t at = 0, count; at < size; at += count) {
        count = piece && piece < size - at ? piece : size - at;
        if (!body_feed(*b, (const char *)data + at, count, f))
            return 0;
    }
    return body_finish(*b, read, f);
}

static void check_same(const body *a, const form *x, const body *b, const form *y)
{
    if (!json_equal(x->object, y->object) || x->file_count != y->file_count || body_hash(a) != body_hash(b))
        zi_fuzz_fail("in pieces it is another form");
    for (size_t i = 0; i < x->file_count; i++)
        if (strcmp(x->files[i].name, y->files[i].name) != 0 || x->files[i].size != y->files[i].size ||
            (x->files[i].size && memcmp(x->files[i].data, y->files[i].data, x->files[i].size) != 0))
            zi_fuzz_fail("in pieces it has another file");
}

static int run(const uint8_t *data, size_t size)
{
    body *whole, *parts;
    const form *read = NULL, *again = NULL;
    fault f = {0}, g = {0};
    if (size < 2)
        return ZI_FUZZ_DISCARD;
    int ok = read_form(data + 2, size - 2, 0, &whole, &read, &f);
    int ok_parts = read_form(data + 2, size - 2, 1 + data[1] % 97, &parts, &again, &g);
    if (ok != ok_parts)
        zi_fuzz_fail("whole: %s; in pieces: %s", ok ? "a form" : f.message, ok_parts ? "a form" : g.message);
    if (!ok && (f.code == FAULT_NONE || !f.message[0]))
        zi_fuzz_fail("refused without a sentence");
    if (ok) {
        check_same(whole, read, parts, again);
        check_request(read, (serve_dialect)(data[0] % DIALECTS));
    }
    body_free(whole);
    body_free(parts);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_form = {.name = "form", .prepare = prepare, .run = run};
