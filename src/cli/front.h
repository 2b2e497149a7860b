/* zimage serve --queue: the ledger as the server sees it (shared/service.h). */
#ifndef ZI_CLI_FRONT_H
#define ZI_CLI_FRONT_H

#include "options.h"
#include "shared/service.h"
#include "zimage.h"

typedef struct cli_front cli_front;

/* Connects to the ledger of the options. *front is released with cli_front_close. */
zimage_status cli_front_open(const cli_options *options, cli_front **front, zimage_error *error);
void cli_front_close(cli_front *front);
const service_ledger *cli_front_ledger(const cli_front *front);

#endif
