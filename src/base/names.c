#include "base/names.h"

#include <stdio.h>
#include <string.h>

#define MAX_LISTED   8
#define ENDING_BYTES 32 /* room for " and N more" */

void zi_names_add(zi_names *names, const char *format, ...)
{
    char name[200];
    int complete = names->listed == names->count;
    names->count++;
    if (!complete || names->listed == MAX_LISTED)
        return;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    size_t room = sizeof names->text - ENDING_BYTES - names->length;
    if (length < 0 || strlen(name) + strlen(", ") >= room)
        return;
    names->length += (size_t)snprintf(names->text + names->length, room, "%s%s", names->listed > 0 ? ", " : "", name);
    names->listed++;
}

const char *zi_names_text(zi_names *names)
{
    if (names->listed < names->count)
        snprintf(names->text + names->length, sizeof names->text - names->length, " and %zu more",
                 names->count - names->listed);
    return names->text;
}
