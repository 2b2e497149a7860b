/*
 * Structs of the public header that a caller allocates. Their size may differ from the library's: the program may have been built
 * against an earlier or later version 0.2.x, whose structs have fewer or more fields at the end.
 */
#ifndef ZI_BASE_SIZED_H
#define ZI_BASE_SIZED_H

#include "base/error.h"

/* Bytes of a struct up to the last field that it had in version 0.2.0: no caller's struct is smaller. */
#define ZI_FIRST_SIZE(type, last_field) (offsetof(type, last_field) + sizeof(((type *)0)->last_field))

/*
 * *own <- *caller; fields that the caller's struct lacks are 0. caller NULL: all fields are 0. ZIMAGE_ERROR_ARGUMENT: struct_size is
 * too small; ZIMAGE_ERROR_UNSUPPORTED: the caller has set fields that this version does not know. `name` is the parameter's.
 */
zimage_status zi_take_struct(void *own, size_t own_size, size_t first_size, const void *caller, const char *name,
                             zimage_error *error);
/* *caller <- *own, as much as fits; fields that this version does not know become 0. struct_size stays the caller's. */
zimage_status zi_give_struct(void *caller, const void *own, size_t own_size, size_t first_size, const char *name,
                             zimage_error *error);

/* `last` is the last field of version 0.2.0. */
#define ZI_TAKE(own, caller, type, last, error)                                                                        \
    zi_take_struct(own, sizeof(type), ZI_FIRST_SIZE(type, last), caller, #type, error)
#define ZI_GIVE(caller, own, type, last, error)                                                                        \
    zi_give_struct(caller, own, sizeof(type), ZI_FIRST_SIZE(type, last), #type, error)

#endif
