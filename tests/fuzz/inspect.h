/* Looks at everything that an inspection describes. */
#ifndef ZI_TESTS_FUZZ_INSPECT_H
#define ZI_TESTS_FUZZ_INSPECT_H

#include <string.h>

#include "fuzz.h"
#include "zimage.h" /* with ZIMAGE_EXPERIMENTAL */

/* A message is one line that a terminal may show. */
static inline void zi_fuzz_check_error(const zimage_error *error, zimage_status status)
{
    zi_fuzz_note(error->message);
    if (error->status != status || !error->message[0])
        zi_fuzz_fail("status %d, but the error has status %d, \"%s\"", status, error->status, error->message);
    if (strlen(error->message) >= sizeof error->message)
        zi_fuzz_fail("a message without end");
}

static inline void zi_fuzz_inspect(const char *path)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_inspection *inspection = NULL;
    zimage_status status = zimage_inspect(path, &inspection, &error);
    if (status != ZIMAGE_OK) {
        zi_fuzz_check_error(&error, status);
        return;
    }
    size_t length = strlen(zimage_inspection_class(inspection));
    for (size_t c = 0; c < zimage_inspection_components(inspection); c++) {
        zimage_component_info component = {.struct_size = sizeof component};
        if (zimage_inspection_get_component(inspection, c, &component, &error) != ZIMAGE_OK)
            zi_fuzz_fail("%s", error.message);
        length += strlen(component.name) + strlen(component.class_name);
        length += component.config_json ? strlen(component.config_json) : 0;
        for (size_t t = 0; t < component.tensors; t++) {
            zimage_tensor_info tensor = {.struct_size = sizeof tensor};
            if (zimage_inspection_get_tensor(inspection, c, t, &tensor, &error) != ZIMAGE_OK)
                zi_fuzz_fail("%s", error.message);
            length += strlen(tensor.name) + strlen(tensor.dtype) + strlen(tensor.file);
        }
    }
    if (length == SIZE_MAX)
        zi_fuzz_fail("texts without end");
    zimage_inspection_free(inspection);
}

#endif
