#include "words.h"

#include <string.h>

int words_have(const char *list, char separator, const char *word, int (*compare)(const char *, const char *, size_t))
{
    const char separators[] = {' ', separator, 0};
    size_t length = strlen(word);
    for (const char *c = list; c && *c; c += strspn(c, separators)) {
        size_t end = strcspn(c, separators);
        if (end > 0 && end == length && !compare(c, word, length))
            return 1;
        c += end;
    }
    return 0;
}
