/*
 * Structs of the public header that the caller allocates. The program may have been built against an earlier or a later
 * version 0.2.x, whose structs have fewer or more fields at their end. So the size of a struct, which is its first
 * field struct_size, may differ from the size that the library knows.
 */
#ifndef ZI_BASE_SIZED_H
#define ZI_BASE_SIZED_H

#include "base/error.h"

/* The bytes of a struct up to the last field that it had in version 0.2.0. No struct of a caller is smaller. */
#define ZI_FIRST_SIZE(type, last_field) (offsetof(type, last_field) + sizeof(((type *)0)->last_field))

/*
 * Copies *caller to *own; fields that the caller's struct lacks become 0, and all fields if caller is NULL. `name` is
 * the name of the struct in messages. ZIMAGE_ERROR_ARGUMENT: struct_size is smaller than first_size.
 * ZIMAGE_ERROR_UNSUPPORTED: the caller has set a field that this version does not know.
 */
zimage_status zi_take_struct(void *own, size_t own_size, size_t first_size, const void *caller, const char *name,
                             zimage_error *error);
/* Copies *own to *caller, as much as fits; fields that this version does not know become 0. struct_size stays. */
zimage_status zi_give_struct(void *caller, const void *own, size_t own_size, size_t first_size, const char *name,
                             zimage_error *error);

/* The same for a type; `last` is the last field that it had in version 0.2.0. */
#define ZI_TAKE(own, caller, type, last, error)                                                                        \
    zi_take_struct(own, sizeof(type), ZI_FIRST_SIZE(type, last), caller, #type, error)
#define ZI_GIVE(caller, own, type, last, error)                                                                        \
    zi_give_struct(caller, own, sizeof(type), ZI_FIRST_SIZE(type, last), #type, error)

#endif
