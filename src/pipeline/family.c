#include "pipeline/family.h"

#include <string.h>

const zi_family *const zi_families[] = {&zi_family_zimage, &zi_family_klein, NULL};

static int is_in(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (!strcmp(*names, name))
            return 1;
    return 0;
}

const zi_family *zi_family_of_pipeline(const char *class_name)
{
    for (const zi_family *const *family = zi_families; *family; family++)
        if (is_in((*family)->pipeline_classes, class_name))
            return *family;
    return NULL;
}

const zi_family *zi_family_of_transformer(const char *class_name)
{
    for (const zi_family *const *family = zi_families; *family; family++)
        if (is_in((*family)->transformer_classes, class_name))
            return *family;
    return NULL;
}
