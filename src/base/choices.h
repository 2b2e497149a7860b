/* What was measured to be fastest on a device, in memory and in a file. */
#ifndef ZI_BASE_CHOICES_H
#define ZI_BASE_CHOICES_H

#include <stddef.h>

/* Sessions of one process with the same file, or all without one, share what they know: the choice decides the bytes of
 * a result, and the device is busy with another session's work while one measures. */
typedef struct zi_choices {
    struct zi_choice_list *list; /* NULL: out of memory; then nothing is known and kept */
} zi_choices;

/* folder may be NULL: then no file is read or written. The file's name is "BACKEND-HASH.plans". header: one line that
 * names the device and the libraries. */
void zi_choices_open(zi_choices *choices, const char *folder, const char *backend, const char *header);
void zi_choices_close(zi_choices *choices);
/* NULL: there is no file. */
const char *zi_choices_path(const zi_choices *choices);
/* From before zi_choices_recall until after zi_choices_remember, so that no other session measures the same meanwhile
 * and comes to another result. One thread may lock several times. */
void zi_choices_lock(const zi_choices *choices);
void zi_choices_unlock(const zi_choices *choices);
/* Whether a value of that size is known for the key; fills it. Check what it says: the file may hold anything. */
int zi_choices_recall(const zi_choices *choices, const char *kind, const void *key, size_t size, void *value,
                      size_t value_size);
void zi_choices_remember(const zi_choices *choices, const char *kind, const void *key, size_t size, const void *value,
                         size_t value_size);

#endif
