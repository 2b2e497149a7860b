/* The certificate that the server shows, which may be read again while it runs. */
#ifndef ZI_SERVE_TLS_H
#define ZI_SERVE_TLS_H

#include <gnutls/abstract.h>

#include "serve.h"

/* TLS 1.2 and 1.3. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* Reads the files of the certificate and of its key. Connections that begin afterwards get it. A file that can't be
 * used is an error, and what was read before stays. 0: failed. */
int tls_read(const serve_params *params, zimage_error *error);
/* Forgets all. The daemon has stopped. */
void tls_forget(void);
/* For libmicrohttpd: the certificate of a connection that begins. */
int tls_choose(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **chain,
               unsigned *count, gnutls_ocsp_data_st **ocsp, unsigned *ocsp_count, gnutls_privkey_t *key,
               unsigned *flags);

#endif
