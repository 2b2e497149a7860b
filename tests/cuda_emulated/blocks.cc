/*
 * Runs the threads of a kernel as fibers. A thread runs until it waits for others; then another one continues, in
 * random order, so that a missing barrier shows. Shared memory is NaN when a block starts. An asynchronous copy arrives
 * when the thread waits for it; until then its target is NaN.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

#include "cuda_bf16.h"
#include "emulated.h"
#include "emulated_ptx.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES ((size_t)512 << 10)
#else
#define STACK_BYTES ((size_t)128 << 10)
#endif
#define WARP 32

/* Jumps by the compiler's builtins: under a sanitizer the C library's would make system calls. */
typedef void *jump_place[5];
#define SAVE_PLACE(place) __builtin_setjmp(place)
#define UNWATCHED         __attribute__((noinline, no_sanitize("address")))

uint3 emulated_thread, emulated_block;
dim3 emulated_block_size, emulated_grid_size;

/* All __shared__ variables of this library or program. */
extern "C" {
extern char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
}

namespace
{

struct copy {
    void *to;
    const void *from;
    int valid, group;
};

/* What each switch reads comes first, in one line of the cache. */
struct alignas(64) fiber {
    jump_place place;
    unsigned thread; /* of the block; when it has ended, others run on the same fiber */
    uint3 index;
    bool entered;
    char *stack;
    void *fake_stack;
    std::vector<copy> copies;
    int groups;
};

struct warp {
    void (*compute)(void *const operands[WARP]);
    unsigned mask, arrived;
    void *operands[WARP];
    fiber *lanes[WARP];
};

struct scheduler_state {
    jump_place scheduler;
    void *scheduler_fake_stack;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    bool from_scheduler; /* the current fiber was entered from there */
    std::vector<fiber *> all, idle, ready;
    fiber *current;
    /* the block */
    const std::function<void()> *code;
    unsigned threads, started, finished, next, stride;
    uint32_t random; /* decides each switch */
    bool hurried;    /* the last fiber continues if it can: a warp gets far ahead of the others */
    std::vector<fiber *> at_barrier;
    std::vector<warp> warps;
    char *shared;
};

scheduler_state &run = *new scheduler_state(); /* never freed, like the fibers */

/* ---- fibers ------------------------------------------------------------------------------------------------------ */

/* Tells the sanitizer which stack comes next, and on the new stack which one it was. */
void leave_stack(void **fake_stack, const void *next, size_t bytes)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake_stack, next, bytes);
#endif
}

void enter_stack(void *fake_stack, const void **before, size_t *bytes)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, before, bytes);
#endif
}

uint3 index_of(unsigned thread)
{
    const dim3 &size = emulated_block_size;
    if (thread < size.x)
        return {thread, 0, 0};
    return {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
}

/* Runs threads that have not started, one after the other: threads that never wait need no switch. */
void run_threads(fiber *self)
{
    while (run.started < run.threads) {
        self->thread = run.next;
        run.next = (run.next + run.stride) % run.threads;
        run.started++;
        self->index = emulated_thread = index_of(self->thread);
        self->copies.clear();
        self->groups = 0;
        (*run.code)();
        run.finished++;
    }
    run.idle.push_back(self);
}

fiber *new_fiber(void)
{
    fiber *made = new fiber();
    made->stack = (char *)mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made->stack == MAP_FAILED)
        abort();
    run.all.push_back(made);
    return made;
}

/* Below n. */
unsigned quick_random(unsigned n)
{
    run.random = run.random * 1664525 + 1013904223;
    return (unsigned)((uint64_t)run.random * n >> 32);
}

/* Chooses a random fiber that can continue. NULL: none can. */
fiber *next_fiber(void)
{
    bool start = run.started < run.threads && (run.ready.empty() || quick_random(2));
    if (start && run.idle.empty())
        return new_fiber();
    std::vector<fiber *> &from = start ? run.idle : run.ready;
    if (from.empty())
        return NULL;
    if (!run.hurried || quick_random(64) == 0)
        std::swap(from[quick_random((unsigned)from.size())], from.back());
    fiber *chosen = from.back();
    from.pop_back();
    return chosen;
}

void fiber_main(void);

/* Starts on the fiber's own stack. Unwatched: it never returns, so the sanitizer's marks around its frame would stay
 * on the stack that it leaves. */
UNWATCHED void start(const fiber *f)
{
    ucontext_t context;
    if (getcontext(&context) != 0)
        abort();
    context.uc_stack.ss_sp = f->stack;
    context.uc_stack.ss_size = STACK_BYTES - run.all.size() % 64 * 320; /* spreads the stacks over cache lines */
    makecontext(&context, fiber_main, 0);
    setcontext(&context);
}

/* Goes to a fiber, NULL: to the scheduler. Apart from the functions that save their place, as the builtins demand. */
UNWATCHED void go_to(fiber *next, void **fake_stack)
{
    if (next == NULL) {
        leave_stack(fake_stack, run.scheduler_stack, run.scheduler_stack_bytes);
        __builtin_longjmp(run.scheduler, 1);
    }
    run.current = next;
    emulated_thread = next->index;
    leave_stack(fake_stack, next->stack, STACK_BYTES);
    if (next->entered)
        __builtin_longjmp(next->place, 1);
    next->entered = true;
    start(next);
}

/* On a fiber's stack, after go_to. */
void arrive(void *fake_stack)
{
    const void *before = nullptr; /* without AddressSanitizer nothing is written to them */
    size_t bytes = 0;
    enter_stack(fake_stack, &before, &bytes);
    if (run.from_scheduler) {
        run.scheduler_stack = before;
        run.scheduler_stack_bytes = bytes;
        run.from_scheduler = false;
    }
}

/* Other fibers run until one of them chooses this one again. */
UNWATCHED void wait_for_turn(void)
{
    fiber *self = run.current, *next = next_fiber();
    if (next == self)
        return;
    if (SAVE_PLACE(self->place) == 0)
        go_to(next, &self->fake_stack);
    arrive(self->fake_stack);
}

void fiber_main(void)
{
    fiber *self = run.current;
    arrive(NULL);
    for (;;) {
        run_threads(self);
        wait_for_turn();
    }
}

/* Runs fibers until none can continue. */
UNWATCHED void schedule(void)
{
    fiber *first = next_fiber();
    run.from_scheduler = true;
    if (SAVE_PLACE(run.scheduler) == 0)
        go_to(first, &run.scheduler_fake_stack);
    enter_stack(run.scheduler_fake_stack, NULL, NULL);
}

/* ---- a block ----------------------------------------------------------------------------------------------------- */

/* A number coprime to n: its multiples visit every number below n. */
unsigned random_stride(unsigned n)
{
    for (;;) {
        unsigned stride = 1 + emulated::random_below(n), a = n, b = stride;
        while (b != 0) {
            unsigned rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return stride;
    }
}

/* Abandons the fibers of threads that wait forever. */
void report_stuck(void)
{
    unsigned in_warps = 0;
    for (const warp &w : run.warps)
        in_warps += (unsigned)__builtin_popcount(w.arrived);
    emulated::break_gpu(cudaErrorLaunchFailure,
                        "block %u, %u, %u: of %u threads %u wait at a barrier, %u for their warp, %u have ended",
                        emulated_block.x, emulated_block.y, emulated_block.z, run.threads,
                        (unsigned)run.at_barrier.size(), in_warps, run.finished);
    run.at_barrier.clear();
}

/* Runs the block; whether all its threads ended. */
bool run_block(size_t shared_bytes)
{
    if (shared_bytes > 0)
        memset(run.shared, 0xff, shared_bytes);
    if (__start_emulated_shared != NULL)
        memset(__start_emulated_shared, 0xff, (size_t)(__stop_emulated_shared - __start_emulated_shared));
    run.started = run.finished = 0;
    run.next = emulated::random_below(run.threads);
    run.random = emulated::random_below(~0u);
    run.hurried = emulated::random_below(2);
    run.stride = random_stride(run.threads);
    run.warps.assign((run.threads + WARP - 1) / WARP, warp());
    schedule();
    if (run.finished < run.threads)
        report_stuck();
    return run.finished == run.threads;
}

} // namespace

void emulated::run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread)
{
    emulated_grid_size = grid;
    emulated_block_size = block;
    run.code = &thread;
    run.threads = block.x * block.y * block.z;
    run.shared = NULL;
    if (shared_bytes > 0 && posix_memalign((void **)&run.shared, 128, shared_bytes) != 0)
        abort();
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, first = emulated::random_below((unsigned)blocks);
    uint64_t stride = random_stride((unsigned)blocks);
    bool whole = true;
    for (uint64_t i = 0; i < blocks && whole; i++) {
        uint64_t place = (first + i * stride) % blocks;
        emulated_block = {(unsigned)(place % grid.x), (unsigned)(place / grid.x % grid.y),
                          (unsigned)(place / grid.x / grid.y)};
        whole = run_block(shared_bytes);
    }
    free(run.shared);
}

void *emulated_dynamic_shared(void)
{
    return run.shared;
}

/* ---- what threads wait for --------------------------------------------------------------------------------------- */

void __syncthreads(void)
{
    run.at_barrier.push_back(run.current);
    if (run.at_barrier.size() == run.threads) {
        run.ready.insert(run.ready.end(), run.at_barrier.begin(), run.at_barrier.end());
        run.at_barrier.clear();
    }
    wait_for_turn();
}

/* The lanes of the mask that have threads. */
static unsigned expected_lanes(unsigned thread, unsigned mask)
{
    unsigned behind = run.threads - thread / WARP * WARP;
    return behind < WARP ? mask & ((1u << behind) - 1) : mask;
}

void emulated_warp(unsigned mask, void *operand, void (*compute)(void *const operands[32]))
{
    fiber *self = run.current;
    warp &w = run.warps[self->thread / WARP];
    unsigned lane = self->thread % WARP, expected = expected_lanes(self->thread, mask);
    if (w.arrived == 0) {
        w.compute = compute;
        w.mask = mask;
        if (expected != ~0u)
            memset(w.operands, 0, sizeof(w.operands));
    }
    if (w.compute != compute || w.mask != mask || !(mask >> lane & 1)) {
        emulated::break_gpu(cudaErrorLaunchFailure, "lanes of a warp meet in different operations");
        wait_for_turn(); /* forever */
    }
    w.arrived |= 1u << lane;
    w.operands[lane] = operand;
    w.lanes[lane] = self;
    if (w.arrived != expected)
        return wait_for_turn();
    compute(w.operands);
    for (unsigned others = expected & ~(1u << lane); others != 0; others &= others - 1)
        run.ready.push_back(w.lanes[__builtin_ctz(others)]);
    w.arrived = 0;
}

/* ---- instructions of tiles --------------------------------------------------------------------------------------- */

namespace
{

struct multiply_operand {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
};

float low(uint32_t pair)
{
    return __bfloat162float(__nv_bfloat16{(uint16_t)pair});
}

float high(uint32_t pair)
{
    return __bfloat162float(__nv_bfloat16{(uint16_t)(pair >> 16)});
}

/* With g = lane / 4 and t = lane % 4 a lane holds of A rows g and g + 8 at k = 2t, 2t + 1, 2t + 8, 2t + 9; of B column
 * g at the same k; of C rows g and g + 8 at columns 2t, 2t + 1. */
void multiply(void *const operands[WARP])
{
    float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < WARP; lane++) {
        const multiply_operand *o = (const multiply_operand *)operands[lane];
        int g = lane / 4, t = lane % 4;
        for (int j = 0; j < 4; j++) {
            a[g + j % 2 * 8][2 * t + j / 2 * 8] = low(o->a[j]);
            a[g + j % 2 * 8][2 * t + j / 2 * 8 + 1] = high(o->a[j]);
        }
        for (int j = 0; j < 2; j++) {
            b[2 * t + 8 * j][g] = low(o->b[j]);
            b[2 * t + 8 * j + 1][g] = high(o->b[j]);
        }
        for (int j = 0; j < 4; j++)
            c[g + j / 2 * 8][2 * t + j % 2] = o->c[j];
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                c[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < WARP; lane++)
        for (int j = 0; j < 4; j++)
            ((multiply_operand *)operands[lane])->c[j] = c[lane / 4 + j / 2 * 8][lane % 4 * 2 + j % 2];
}

struct load_operand {
    uint32_t *r;
    const void *row;
    int transposed;
};

/* A lane gets of each (transposed) matrix row lane / 4, columns 2 (lane % 4) and the next. */
void load_matrices(void *const operands[WARP])
{
    uint16_t m[4][8][8];
    for (int lane = 0; lane < WARP; lane++)
        memcpy(m[lane / 8][lane % 8], ((const load_operand *)operands[lane])->row, sizeof(m[0][0]));
    for (int lane = 0; lane < WARP; lane++) {
        const load_operand *o = (const load_operand *)operands[lane];
        int row = lane / 4, column = lane % 4 * 2;
        for (int j = 0; j < 4; j++) {
            uint16_t first = o->transposed ? m[j][column][row] : m[j][row][column];
            uint16_t second = o->transposed ? m[j][column + 1][row] : m[j][row][column + 1];
            o->r[j] = first | (uint32_t)second << 16;
        }
    }
}

/* Addresses must be multiples of 16. */
void check_aligned(const void *p, const char *what)
{
    if ((uintptr_t)p % 16 != 0)
        emulated::break_gpu(cudaErrorLaunchFailure, "%s at %p, which is no multiple of 16", what, p);
}

} // namespace

void emulated_multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    multiply_operand operand = {c, a, {b0, b1}};
    emulated_warp(~0u, &operand, multiply);
}

void emulated_load_matrices(uint32_t r[4], const void *row, int transposed)
{
    load_operand operand = {r, row, transposed};
    check_aligned(row, "ldmatrix reads");
    emulated_warp(~0u, &operand, load_matrices);
}

void emulated_copy_16(void *to, const void *from, int valid)
{
    check_aligned(to, "cp.async writes");
    check_aligned(from, "cp.async reads");
    memset(to, 0xff, 16);
    run.current->copies.push_back({to, from, valid, run.current->groups});
}

void emulated_commit_copies(void)
{
    run.current->groups++;
}

void emulated_wait_copies(int left)
{
    std::vector<copy> &copies = run.current->copies, later;
    for (const copy &c : copies)
        if (c.group >= run.current->groups - left)
            later.push_back(c);
        else if (c.valid)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    copies = later;
}
