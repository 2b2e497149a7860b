#include "base/stack.h"

#if defined(__linux__)

/* Bytes between this frame and the lowest address of the stack; SIZE_MAX: unknown. */
static size_t stack_left(void)
{
    pthread_attr_t attributes;
    void *lowest = NULL;
    size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return SIZE_MAX;
    int code = pthread_attr_getstack(&attributes, &lowest, &size);
    pthread_attr_destroy(&attributes);
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), low = (uintptr_t)lowest;
    return code == 0 && here > low && here - low <= size ? here - low : SIZE_MAX;
}

#else

static size_t stack_left(void)
{
    return SIZE_MAX;
}

#endif

zimage_status zi_stack_check(zimage_error *error)
{
    size_t left = stack_left();
    if (left >= ZI_STACK_NEEDED)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_MEMORY,
                   "stack: the calling thread has %zu KiB left, expected at least %zu KiB (ulimit -s, or "
                   "pthread_attr_setstacksize)",
                   left >> 10, ZI_STACK_NEEDED >> 10);
}

int zi_thread_start(pthread_t *thread, void *(*work)(void *arg), void *arg)
{
    pthread_attr_t attributes;
    int code = pthread_attr_init(&attributes);
    if (code != 0)
        return code;
    code = pthread_attr_setstacksize(&attributes, ZI_STACK_WORKER);
    if (code == 0)
        code = pthread_create(thread, &attributes, work, arg);
    pthread_attr_destroy(&attributes);
    return code;
}
