/* The stacks of threads. */
#ifndef ZI_BASE_STACK_H
#define ZI_BASE_STACK_H

#include <pthread.h>

#include "base/error.h"

/* Bytes of stack that a thread needs to call the library, and that the library gives to its own threads. */
#define ZI_STACK_NEEDED ((size_t)256 << 10)
#define ZI_STACK_WORKER ((size_t)1 << 20)

/*
 * Whether the calling thread has ZI_STACK_NEEDED bytes of stack left: an error instead of a segmentation fault for
 * threads with tiny stacks. Every public function that does much calls it first. Systems that do not say how large a
 * stack is: always ZIMAGE_OK.
 */
zimage_status zi_stack_check(zimage_error *error);

/* pthread_create with a stack of ZI_STACK_WORKER bytes, whatever `ulimit -s` says. Returns an errno value. */
int zi_thread_start(pthread_t *thread, void *(*work)(void *arg), void *arg);

#endif
