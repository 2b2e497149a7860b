/*
 * Names that a hub or a user chose: of models, revisions, files and blobs. Each becomes part of a path, so each is
 * checked before it is used (a digest that was not checked became a path in Ollama: CVE-2024-37032).
 */
#ifndef ZI_HUB_NAMES_H
#define ZI_HUB_NAMES_H

#include <stddef.h>
#include <stdint.h>

#define HUB_ID_MAX       194 /* bytes with the final zero: "ORGANISATION/NAME" */
#define HUB_REVISION_MAX 256
#define HUB_FILE_MAX     513
#define HUB_ETAG_MAX     65 /* 64 hexadecimal digits */
#define HUB_COMMIT_MAX   41

/* "ORGANISATION/NAME", each of 1 to 96 letters, digits, '.', '_' and '-', without "--" and "..". */
int hub_is_id(const char *text);
/* A branch, a tag or a commit: parts of letters, digits, '.', '_' and '-', with '/' between them. */
int hub_is_revision(const char *text);
/* 40 hexadecimal digits in small letters. */
int hub_is_commit(const char *text);
/* The name of a blob: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits in small letters. */
int hub_is_etag(const char *text);
/* The path of a file in a model: printable UTF-8, relative, without "." and "..". */
int hub_is_file(const char *path);

/*
 * Whether a file is one that a model consists of: weights as safetensors, configurations, tokenizers, README and
 * LICENSE. Never a program, and never weights that may hold one (pickled ones).
 */
int hub_is_allowed(const char *path);
/* Whether an allowed file belongs to the layout that zimage reads: its folder is that of a component, or it is no
 * weights file and lies beside those folders. */
int hub_is_in_layout(const char *path);
/* Whether the file is the weights or the configuration of a component. */
int hub_is_component(const char *path);

#define HUB_SIZE_TEXT 32
/* "12.31 GB", "3.3 MB", "7 B": a size on a disk, in powers of 1000. */
void hub_write_size(uint64_t bytes, char text[HUB_SIZE_TEXT]);

/* "ORGANISATION/NAME[@REVISION]" in its parts; revision "" without one. 0: it is none. */
int hub_split_id(const char *text, char id[HUB_ID_MAX], char revision[HUB_REVISION_MAX]);

#endif
