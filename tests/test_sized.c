/* Structs of programs that were built against another version of zimage.h. */
#include "base/sized.h"
#include "files.h"

/* Structs of the header in three versions of a program: the library's, one with a field less and one with more. */
typedef struct sized_now {
    uint32_t struct_size;
    int32_t first;
    uint64_t last;
    uint64_t appended; /* in 0.2.1, say */
} sized_now;

typedef struct sized_before {
    uint32_t struct_size;
    int32_t first;
    uint64_t last;
} sized_before;

typedef struct sized_later {
    sized_now now;
    uint8_t unknown[3];
    uint8_t behind[9]; /* not the struct's */
} sized_later;

#define LATER_SIZE (sizeof(sized_now) + 3)

static void structs_of_other_versions_are_taken(void **state)
{
    sized_now own;
    zimage_error error = ZIMAGE_ERROR_INIT;
    struct {
        sized_before before;
        uint64_t behind;
    } caller = {{sizeof caller.before, 1, 2}, UINT64_MAX};
    assert_int_equal(ZI_TAKE(&own, &caller, sized_now, last, &error), ZIMAGE_OK);
    assert_true(own.first == 1 && own.last == 2 && own.appended == 0);
    assert_int_equal(ZI_TAKE(&own, NULL, sized_now, last, &error), ZIMAGE_OK);
    assert_true(own.first == 0 && own.last == 0 && own.appended == 0);
    for (uint32_t size = 0; size < sizeof caller.before; size++) {
        caller.before.struct_size = size;
        zimage_status status = ZI_TAKE(&own, &caller, sized_now, last, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "sized_now.struct_size", "expected sizeof(sized_now)",
                     NULL);
    }
    sized_later later = {.now = {LATER_SIZE, 1, 2, 3}, .behind = {1, 1, 1, 1, 1, 1, 1, 1, 1}};
    assert_int_equal(ZI_TAKE(&own, &later, sized_now, last, &error), ZIMAGE_OK);
    assert_true(own.appended == 3);
    for (int i = 0; i < 3; i++) {
        memset(later.unknown, 0, sizeof later.unknown);
        later.unknown[i] = 1;
        zimage_status status = ZI_TAKE(&own, &later, sized_now, last, &error);
        assert_error(&error, status, ZIMAGE_ERROR_UNSUPPORTED, "sized_now: a field after byte 24 is set",
                     "does not know", zimage_version());
    }
}

static void structs_of_other_versions_are_given(void **state)
{
    const sized_now own = {0, 1, 2, 3};
    zimage_error error = ZIMAGE_ERROR_INIT;
    struct {
        sized_before before;
        uint64_t behind;
    } caller = {{sizeof caller.before, 0, 0}, UINT64_MAX};
    assert_int_equal(ZI_GIVE(&caller, &own, sized_now, last, &error), ZIMAGE_OK);
    assert_true(caller.before.struct_size == sizeof caller.before && caller.before.first == 1);
    assert_true(caller.before.last == 2 && caller.behind == UINT64_MAX);
    caller.before = (sized_before){sizeof caller.before - 1, 0, 0};
    zimage_status status = ZI_GIVE(&caller, &own, sized_now, last, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "sized_now.struct_size", "at least 16", NULL);
    assert_int_equal(caller.before.first, 0);
    assert_int_equal(ZI_GIVE(NULL, &own, sized_now, last, &error), ZIMAGE_ERROR_ARGUMENT);
    sized_later later = {.now = {.struct_size = LATER_SIZE}};
    memset(later.unknown, 0xA5, sizeof later.unknown + sizeof later.behind);
    assert_int_equal(ZI_GIVE(&later, &own, sized_now, last, &error), ZIMAGE_OK);
    assert_true(later.now.struct_size == LATER_SIZE && later.now.appended == 3);
    for (size_t i = 0; i < sizeof later.behind; i++)
        assert_int_equal(later.behind[i], 0xA5);
    assert_true(later.unknown[0] == 0 && later.unknown[1] == 0 && later.unknown[2] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structs_of_other_versions_are_taken),
        cmocka_unit_test(structs_of_other_versions_are_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
