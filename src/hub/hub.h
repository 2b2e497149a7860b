/*
 * Models of a hub: downloading them into the cache that Python's tools share, and what is in that cache. For the
 * program only. docs/design.md ("Downloads") says how it works.
 */
#ifndef ZI_HUB_HUB_H
#define ZI_HUB_HUB_H

#include <limits.h>
#include <stdint.h>

#include "hub/names.h"
#include "hub/result.h"

/* ---- downloading ---- */

typedef enum hub_report_kind {
    HUB_REPORT_PLAN,     /* what will be done, before the first byte */
    HUB_REPORT_PROGRESS, /* at most ten times a second */
    HUB_REPORT_FILE,     /* a file is complete */
    HUB_REPORT_NOTICE,   /* a sentence: why it waits, or begins a file again */
} hub_report_kind;

typedef struct hub_report {
    hub_report_kind kind;
    uint64_t bytes, total;     /* of all files: what is in the cache, and what there will be */
    size_t files, files_total; /* the same, in files */
    const char *path;          /* a file: the one that is complete, or the first under way; may be NULL */
    uint64_t path_bytes, path_total;
    const char *etag;     /* HUB_REPORT_FILE: its hash */
    const char *sentence; /* HUB_REPORT_NOTICE */
    /* HUB_REPORT_PLAN */
    const char *commit, *source, *gated, *licence, *folder;
    uint64_t free_bytes;
} hub_report;

typedef void (*hub_report_fn)(const hub_report *report, void *user);

typedef struct hub_pull_params {
    const char *id, *revision, *source; /* revision and source may be NULL: the default */
    const char *const *patterns;        /* of files; without any: what zimage reads */
    int pattern_count;
    uint64_t limit;         /* bytes a second; 0: none */
    uint64_t segment_bytes; /* of large files */
    int connections, retries;
    int insecure_http; /* 1: http also to other machines than this one */
    int plan;          /* 1: only the report HUB_REPORT_PLAN */
    int (*stopping)(void);
    hub_report_fn report;
    void *user;
} hub_pull_params;

/* path: the folder of the model in the cache; "" with plan. */
hub_result hub_pull(const hub_pull_params *params, char path[PATH_MAX], zimage_error *error);

/* ---- what is in the caches ---- */

typedef enum hub_state {
    HUB_WHOLE,   /* all files of its download are there */
    HUB_PARTIAL, /* some are missing */
    HUB_FOREIGN, /* another program downloaded it: not known */
} hub_state;

typedef struct hub_model {
    char id[HUB_ID_MAX], revision[HUB_REVISION_MAX], commit[HUB_COMMIT_MAX];
    char folder[PATH_MAX], path[PATH_MAX]; /* of the model in the cache, and of this snapshot */
    const char *source;                    /* "hf" or "modelscope" */
    uint64_t bytes;
    hub_state state;
} hub_model;

/* Finds "ORGANISATION/NAME[@REVISION]". HUB_NOT_FOUND: it is not there, and the sentence says how to get it.
 * HUB_USAGE: the text is no such name. */
hub_result hub_find(const char *text, hub_model *model, zimage_error *error);

/* All snapshots of models of images. *models is released with free. */
hub_result hub_list(hub_model **models, size_t *count, zimage_error *error);

typedef struct hub_verify_report {
    const char *path;
    uint64_t bytes, total; /* of this file */
    int is_done, is_right; /* is_right: once is_done */
} hub_verify_report;
typedef int (*hub_verify_fn)(const hub_verify_report *report, void *user); /* anything but 0 stops */

/* Reads all files of a snapshot again and compares their hashes. HUB_CHECKSUM names the first file that is wrong;
 * *checked counts the files. */
hub_result hub_verify(const hub_model *model, hub_verify_fn report, void *user, size_t *checked, zimage_error *error);

/* Removes a model: all its revisions. HUB_FAILED: another program is downloading it. */
hub_result hub_remove(const hub_model *model, zimage_error *error);

#endif
