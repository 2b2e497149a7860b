/* The socket that the server listens on. */
#ifndef ZI_SERVE_LISTEN_H
#define ZI_SERVE_LISTEN_H

#include "serve.h"

/* Listens on the host and port of the parameters, and sets the port that it is in truth. -1: an error. */
/* The socket, or -1. A Unix socket that no server listens on any more is replaced. */
int listen_on(const serve_params *params, int *port, zimage_error *error);
/* As many connections as are wanted and files may be open, a limit that is raised as far as it goes. */
unsigned listen_connections_max(int wanted);

#endif
