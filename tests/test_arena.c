/* The arena: a stack of host memory. */
#include "base/arena.h"
#include "support.h"

static void arena_is_a_stack(void **state)
{
    zi_arena *arena = zi_arena_new();
    assert_non_null(arena);
    char *first = zi_arena_alloc(arena, 100);
    zi_arena_mark mark = zi_arena_get_mark(arena);
    char *second = zi_arena_alloc(arena, 1);
    assert_non_null(first);
    assert_non_null(second);
    assert_int_equal((uintptr_t)first % 64, 0);
    assert_int_equal((uintptr_t)second % 64, 0);
    memset(first, 1, 100);
    *second = 2;
    zi_arena_release(arena, mark);
    assert_ptr_equal(zi_arena_alloc(arena, 50), second);
    assert_int_equal(first[99], 1);
    assert_non_null(zi_arena_alloc(arena, 0));
    assert_null(zi_arena_alloc(arena, SIZE_MAX));
    zi_arena_free(arena);
    zi_arena_free(NULL);
}

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_HAS_GAPS 1 /* behind each block of a real arena */
#else
#define ARENA_HAS_GAPS 0
#endif

/* The same random use of a real arena and an imaginary one, whose small blocks are real. */
static void imaginary_arenas_are_as_large_as_real_ones(void **state)
{
    enum { MARKS = 40 };
    zi_arena *arenas[2] = {zi_arena_new(), zi_arena_new_imaginary()};
    zi_arena_mark marks[MARKS][2];
    uint32_t random = 1;
    int count = 0;
    assert_true(arenas[0] && arenas[1]);
    for (int i = 0; i < 2000; i++) {
        random = random * 1664525u + 1013904223u;
        size_t bytes = (size_t)1 << (random >> 8) % 28;
        int release = count == MARKS || (count > 0 && (random >> 20) % 3 == 0);
        if (release)
            count = (int)((random >> 4) % (unsigned)count);
        for (int k = 0; k < 2; k++) {
            if (release) {
                zi_arena_release(arenas[k], marks[count][k]);
                continue;
            }
            marks[count][k] = zi_arena_get_mark(arenas[k]);
            void *block = zi_arena_alloc(arenas[k], bytes);
            assert_non_null(block);
            if (bytes <= ZI_ARENA_REAL_BYTES)
                memset(block, k, bytes);
        }
        count += !release;
        assert_int_equal(zi_arena_peak(arenas[0]), zi_arena_peak(arenas[1]));
        assert_true(zi_arena_held_peak(arenas[1]) >= zi_arena_peak(arenas[1]));
        if (!ARENA_HAS_GAPS)
            assert_int_equal(zi_arena_held_peak(arenas[0]), zi_arena_held_peak(arenas[1]));
        for (int k = 0; k < 2 && i % 100 == 0; k++)
            zi_arena_reset_peak(arenas[k]);
    }
    zi_arena_free(arenas[0]);
    zi_arena_free(arenas[1]);
}

static void arena_grows_and_shrinks(void **state)
{
    const size_t large = (size_t)100 << 20;
    zi_arena *arena = zi_arena_new();
    zi_arena_mark empty = zi_arena_get_mark(arena);
    char *small = zi_arena_alloc(arena, 64);
    memset(small, 7, 64);
    for (int round = 0; round < 3; round++) {
        zi_arena_mark mark = zi_arena_get_mark(arena);
        char *block = zi_arena_alloc(arena, large);
        char *another = zi_arena_alloc(arena, large);
        assert_non_null(block);
        assert_non_null(another);
        block[0] = block[large - 1] = another[0] = another[large - 1] = 1;
        zi_arena_release(arena, mark);
    }
    assert_int_equal(zi_arena_peak(arena), 2 * large + 64);
    assert_int_equal(small[63], 7);
    zi_arena_release(arena, empty);
    assert_non_null(zi_arena_alloc(arena, 64));
    assert_int_equal(zi_arena_peak(arena), 2 * large + 64);
    zi_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_is_a_stack),
        cmocka_unit_test(imaginary_arenas_are_as_large_as_real_ones),
        cmocka_unit_test(arena_grows_and_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
