/* What was measured to be fastest on a device, in memory and in a file. */
#ifndef ZI_BASE_CHOICES_H
#define ZI_BASE_CHOICES_H

#include <stddef.h>

typedef struct zi_choices {
    char *path; /* NULL: no file */
    char header[256];
    int written; /* the file has that header */
    char **lines;
    int count, capacity;
} zi_choices;

/* folder may be NULL: then no file is read or written. The file's name is "BACKEND-HASH.plans". header: one line that
 * names the device and the libraries. */
void zi_choices_open(zi_choices *choices, const char *folder, const char *backend, const char *header);
void zi_choices_close(zi_choices *choices);
/* Whether a value of that size is known for the key; fills it. Check what it says: the file may hold anything. */
int zi_choices_recall(const zi_choices *choices, const char *kind, const void *key, size_t size, void *value,
                      size_t value_size);
void zi_choices_remember(zi_choices *choices, const char *kind, const void *key, size_t size, const void *value,
                         size_t value_size);

#endif
