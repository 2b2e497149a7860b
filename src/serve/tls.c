#include "tls.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAIN_MAX 16 /* certificates of a file */

typedef struct certificate {
    struct certificate *older;
    gnutls_pcert_st chain[CHAIN_MAX];
    unsigned count;
    gnutls_privkey_t key;
} certificate;

/*
 * The newest certificate. libmicrohttpd passes no pointer of the server's to tls_choose, so this is a variable of the
 * program. Older certificates stay until the end, because a handshake may still use them.
 */
static _Atomic(certificate *) newest;

static const char pem_certificates[] = "certificates in PEM";
static const char pem_key[] = "a private key in PEM, without a password";

static int fail(const char *option, const char *path, int code, const char *expected, zimage_error *error)
{
    const char *reason = code == GNUTLS_E_FILE_ERROR && errno ? strerror(errno) : gnutls_strerror(code);
    int length = (int)strlen(reason) - (reason[strlen(reason) - 1] == '.'); /* GnuTLS's sentences end with a dot */
    snprintf(error->message, sizeof error->message, "%s: %s: %.*s; expected %s", option, path, length, reason,
             expected);
    error->status = ZIMAGE_ERROR_FILE;
    return 0;
}

static void release(certificate *c)
{
    for (unsigned i = 0; i < c->count; i++)
        gnutls_pcert_deinit(&c->chain[i]);
    if (c->key)
        gnutls_privkey_deinit(c->key);
    free(c);
}

/* Whether the key is the certificate's. */
static int check_pair(const gnutls_datum_t *certificates, const gnutls_datum_t *key)
{
    gnutls_certificate_credentials_t trial;
    int code = gnutls_certificate_allocate_credentials(&trial);
    if (code < 0)
        return code;
    code = gnutls_certificate_set_x509_key_mem2(trial, certificates, key, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_certificate_free_credentials(trial);
    return code;
}

static int take_pair(const serve_params *p, const gnutls_datum_t *certificates, const gnutls_datum_t *key,
                     certificate *c, zimage_error *error)
{
    unsigned count = CHAIN_MAX;
    int code = gnutls_pcert_list_import_x509_raw(c->chain, &count, certificates, GNUTLS_X509_FMT_PEM, 0);
    if (code < 0)
        return fail("tls_cert", p->tls_cert, code, pem_certificates, error);
    c->count = count;
    code = gnutls_privkey_init(&c->key);
    if (code >= 0)
        code = gnutls_privkey_import_x509_raw(c->key, key, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (code < 0)
        return fail("tls_key", p->tls_key, code, pem_key, error);
    code = check_pair(certificates, key);
    return code >= 0 || fail("tls_key", p->tls_key, code, "the key of the certificate in --tls-cert", error);
}

int tls_read(const serve_params *params, zimage_error *error)
{
    gnutls_datum_t certificates = {NULL, 0}, key = {NULL, 0};
    certificate *c = calloc(1, sizeof *c);
    int code = c ? gnutls_load_file(params->tls_cert, &certificates) : GNUTLS_E_MEMORY_ERROR;
    int ok = code >= 0 || fail("tls_cert", params->tls_cert, code, pem_certificates, error);
    if (ok)
        ok = (code = gnutls_load_file(params->tls_key, &key)) >= 0 ||
             fail("tls_key", params->tls_key, code, pem_key, error);
    ok = ok && take_pair(params, &certificates, &key, c, error);
    gnutls_free(certificates.data);
    if (key.data)
        gnutls_memset(key.data, 0, key.size);
    gnutls_free(key.data);
    if (ok) {
        c->older = atomic_load(&newest);
        atomic_store(&newest, c);
    } else if (c) {
        release(c);
    }
    return ok;
}

void tls_forget(void)
{
    certificate *c = atomic_exchange(&newest, NULL);
    for (certificate *older; c; c = older) {
        older = c->older;
        release(c);
    }
}

int tls_choose(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **chain,
               unsigned *count, gnutls_ocsp_data_st **ocsp, unsigned *ocsp_count, gnutls_privkey_t *key,
               unsigned *flags)
{
    certificate *c = atomic_load(&newest);
    (void)session, (void)info;
    *ocsp = NULL;
    *ocsp_count = 0;
    *flags = 0;
    if (!c)
        return -1;
    *chain = c->chain;
    *count = c->count;
    *key = c->key;
    return 0;
}
