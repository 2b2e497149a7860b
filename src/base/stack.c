#include "base/stack.h"

/* The lowest address and the size of the calling thread's stack; 0: unknown. */
#if defined(__APPLE__)

static int get_stack(uintptr_t *lowest, size_t *size)
{
    uintptr_t end = (uintptr_t)pthread_get_stackaddr_np(pthread_self()); /* stacks grow down from there */
    *size = pthread_get_stacksize_np(pthread_self());
    *lowest = end - *size;
    return *size < end;
}

#else

static int get_stack(uintptr_t *lowest, size_t *size)
{
    pthread_attr_t attributes;
    void *address = NULL;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return 0;
    int code = pthread_attr_getstack(&attributes, &address, size);
    pthread_attr_destroy(&attributes);
    *lowest = (uintptr_t)address;
    return code == 0;
}

#endif

/* Bytes between this frame and the lowest address of the stack; SIZE_MAX: unknown. */
static size_t stack_left(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), lowest;
    size_t size;
    return get_stack(&lowest, &size) && here > lowest && here - lowest <= size ? here - lowest : SIZE_MAX;
}

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
