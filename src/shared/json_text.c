#include "json_text.h"

#include <stdlib.h>

#include "zimage.h"

json_t *json_of_text(const char *text)
{
    json_t *value = json_string(text); /* NULL: it is not UTF-8 */
    size_t size = value ? 0 : zimage_printable(text, NULL, 0) + 1;
    char *printable = size ? malloc(size) : NULL;
    if (printable) {
        zimage_printable(text, printable, size);
        value = json_string(printable);
        free(printable);
    }
    return value;
}
