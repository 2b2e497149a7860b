#include "words.h"

#include <string.h>

const char *words_next(const char *text, char separator, size_t *length)
{
    const char separators[] = {' ', separator, 0};
    const char *word = text ? text + strspn(text, separators) : "";
    *length = strcspn(word, separators);
    return *length > 0 ? word : NULL;
}

int words_have(const char *list, char separator, const char *word, int (*compare)(const char *, const char *, size_t))
{
    size_t wanted = strlen(word), length;
    for (const char *w = list; (w = words_next(w, separator, &length)); w += length)
        if (length == wanted && !compare(w, word, length))
            return 1;
    return 0;
}
