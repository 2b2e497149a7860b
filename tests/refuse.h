/* Makes system calls fail in this process, as on systems and file systems that lack them (seccomp(2)). */
#ifndef ZI_TESTS_REFUSE_H
#define ZI_TESTS_REFUSE_H

#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Calls of `number` whose third argument has one of the bits of `flags` (0: all calls) fail with the errno value. 0:
 * the system does not allow filters. */
static inline int refuse_calls(int number, unsigned flags, int code)
{
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, flags, 0, flags ? 1 : 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof instructions / sizeof *instructions, instructions};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Files without a name (open(2), O_TMPFILE) can't be made. */
static inline int refuse_unnamed_files(void)
{
    return refuse_calls(SYS_openat, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP);
}

/* Files can't get a second name. */
static inline int refuse_links(void)
{
    return refuse_calls(SYS_linkat, 0, EPERM);
}

static inline int refuse_openat2(void)
{
    return refuse_calls(SYS_openat2, 0, ENOSYS);
}

#else

/* macOS has neither files without a name nor openat2. */
static inline int refuse_unnamed_files(void)
{
    return 1;
}

static inline int refuse_links(void)
{
    return 0;
}

static inline int refuse_openat2(void)
{
    return 1;
}

#endif

#endif
