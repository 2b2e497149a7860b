/* Where models come from and where they are kept: what the environment says, as Hugging Face's own client reads it. */
#ifndef ZI_HUB_SETTINGS_H
#define ZI_HUB_SETTINGS_H

#include <limits.h>

#include "hub/names.h"
#include "hub/result.h"

#define HUB_URL_MAX   8192 /* bytes of an address; signed ones have 2 KiB */
#define HUB_TOKEN_MAX 1024

typedef enum hub_protocol { HUB_HUGGING_FACE, HUB_MODELSCOPE } hub_protocol;

typedef struct hub_settings {
    hub_protocol protocol;
    char endpoint[HUB_URL_MAX]; /* without a slash at its end */
    char token[HUB_TOKEN_MAX];  /* "": none */
    const char *ca_file;        /* certificates to trust; NULL: the system's */
    int offline;                /* 1: no request may be made */
    int insecure_http;          /* 1: http also to other machines */
    double answer_seconds;      /* how long an answer may take to begin, */
    double silence_seconds;     /* and how long a download may bring nothing */
} hub_settings;

/* source: NULL or "hf", "modelscope", or the address of another hub with Hugging Face's protocol. */
hub_result hub_settings_read(const char *source, hub_settings *settings, zimage_error *error);

/* The folders that hold the models, one for each protocol; 0: the variables name none, and *why says which. */
int hub_cache_folder(hub_protocol protocol, char folder[PATH_MAX]);

/* The branch that is meant where none is named. */
const char *hub_default_revision(hub_protocol protocol);

#endif
