/*
 * CUDA's runtime on the emulated GPU. Streams are queues. Their work runs late: at random moments, or when a call waits
 * for it, so that a host that reads or overwrites too early is detected. Events order streams as on a GPU.
 */
#include <chrono>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/numbers.h"
#include "emulated.h"

using task = std::function<void()>;

struct CUgraph_st {
    std::vector<task> tasks;
    int device;
};

struct CUgraphExec_st {
    std::vector<task> tasks;
    int device;
};

namespace
{

#define DEFAULT_MEMORY_MIB  16384
#define SHARED_BYTES        (48 << 10)  /* of a block, unless an attribute allows the kernel more */
#define SHARED_BYTES_MAX    (227 << 10) /* compute capability 9.0 */
#define LOOKS_MAX           25000       /* of 0.2 ms each */
#define MULTIPROCESSORS     1
#define MOST_THREADS        1024
#define MOST_BLOCKS_X       2147483647u
#define MOST_BLOCKS_YZ      65535u
#define ALLOCATION_MULTIPLE 512

struct capture {
    cudaStreamCaptureMode mode;
    std::thread::id owner;
    bool invalid;
    std::vector<task> tasks;
};

struct stream_state {
    int device;
    bool runs; /* a task of it is under way */
    std::deque<task> queue;
    uint64_t issued, done;
    std::unique_ptr<capture> captured; /* NULL: not capturing */
};

/* A position in a stream. */
struct moment {
    std::shared_ptr<stream_state> stream; /* NULL: the beginning */
    uint64_t number;
};

typedef std::map<uintptr_t, size_t> ranges; /* address: bytes */

} // namespace

struct CUstream_st {
    std::shared_ptr<stream_state> state;
};

struct CUevent_st {
    moment recorded;
    std::shared_ptr<double> milliseconds; /* when it was reached */
    bool timed, captured;
    int device;
};

namespace
{

/* One GPU, or several of one kind in one process. */
struct gpu {
    int devices;
    ranges device, pinned, registered;
    std::map<uintptr_t, int> owners; /* of device memory */
    size_t memory;                   /* of each */
    std::vector<size_t> used;
    std::vector<std::shared_ptr<stream_state>> streams;    /* the first ones are the default streams of the devices */
    std::unordered_map<const void *, size_t> shared_bytes; /* dynamic shared memory that attributes allow */
    cudaError_t broken;
    uint64_t random;
};

size_t number_of(const char *variable, size_t otherwise)
{
    const char *text = getenv(variable);
    return text != NULL && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* Never freed. */
gpu &the_gpu(void)
{
    static gpu *made = [] {
        gpu *c = new gpu();
        c->memory = number_of("ZIMAGE_EMULATED_MIB", DEFAULT_MEMORY_MIB) * ZI_MIB;
        c->random = (number_of("ZIMAGE_EMULATED_SEED", 1) + 1) * 0x9E3779B97F4A7C15u;
        c->devices = (int)number_of("ZIMAGE_EMULATED_GPUS", 1);
        c->used.resize((size_t)c->devices);
        for (int i = 0; i < c->devices; i++)
            c->streams.push_back(std::make_shared<stream_state>(stream_state{i, false, {}, 0, 0, NULL}));
        return c;
    }();
    return *made;
}

/* initial-exec: LeakSanitizer of GCC 12 can fail ("Tracer caught signal 11") where a library that is opened at run time
 * has thread-local variables that are allocated at their first use. */
[[gnu::tls_model("initial-exec")]] thread_local cudaError_t last_error;
[[gnu::tls_model("initial-exec")]] thread_local int current_device;

bool postponed; /* what the task under way says: it must be run again later */

/* Keeps the code for cudaGetLastError; returns it. */
cudaError_t done(cudaError_t code)
{
    if (code == cudaSuccess)
        code = the_gpu().broken;
    if (code != cudaSuccess)
        last_error = code;
    return code;
}

#define LOCKED std::lock_guard<std::recursive_mutex> held(emulated::lock())

/* ---- queues ------------------------------------------------------------------------------------------------------ */

/* Runs the next task of a stream. False: it has none, or the task waits for work of another stream, which nobody may
 * have queued yet. */
bool run_one(stream_state &s)
{
    if (s.runs || s.queue.empty())
        return false;
    task next = std::move(s.queue.front());
    s.runs = true;
    postponed = false;
    if (the_gpu().broken == cudaSuccess)
        next();
    s.runs = false;
    if (postponed) {
        postponed = false;
        s.queue.front() = std::move(next);
        return false;
    }
    s.queue.pop_front();
    s.done++;
    return true;
}

bool has_happened(const moment &m)
{
    return m.stream == NULL || m.stream->done >= m.number;
}

/* As far as it goes now; whether it has happened then. */
bool run_towards(const moment &m)
{
    while (!has_happened(m) && run_one(*m.stream))
        ;
    return has_happened(m);
}

/* One task of any other stream; false: there is none that can run. */
bool run_another(const stream_state &s)
{
    for (size_t i = 0; i < the_gpu().streams.size(); i++)
        if (the_gpu().streams[i].get() != &s && run_one(*the_gpu().streams[i]))
            return true;
    return false;
}

/* For a moment other threads may queue work: half a collective may be in, and its other half about to come. */
void let_others_queue(void)
{
    emulated::lock().unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    emulated::lock().lock();
}

/* The host waits. Where nothing has moved for so many looks, nobody will queue what is missing. */
void run_until(const moment m)
{
    for (int looks = 0; !run_towards(m);)
        if (run_another(*m.stream)) {
            looks = 0;
        } else if (looks++ < LOOKS_MAX) {
            let_others_queue();
        } else {
            emulated::break_gpu(cudaErrorLaunchFailure, "streams wait for each other for ever");
            m.stream->done = m.stream->issued;
            m.stream->queue.clear();
        }
}

void run_stream(const std::shared_ptr<stream_state> &s)
{
    run_until(moment{s, s->issued});
}

void run_everything(void)
{
    for (size_t i = 0; i < the_gpu().streams.size(); i++)
        run_stream(the_gpu().streams[i]);
}

/* Sometimes runs some of the work of a random stream. */
void run_some(void)
{
    if (emulated::random_below(4) != 0)
        return;
    std::vector<std::shared_ptr<stream_state>> &streams = the_gpu().streams;
    std::shared_ptr<stream_state> s = streams[emulated::random_below((unsigned)streams.size())];
    for (unsigned i = emulated::random_below(4); i > 0 && run_one(*s); i--)
        ;
}

/* NULL is the default stream of the current device. */
std::shared_ptr<stream_state> shared_state_of(cudaStream_t stream)
{
    return stream != NULL ? stream->state : the_gpu().streams[(size_t)current_device];
}

stream_state &state_of(cudaStream_t stream)
{
    return *shared_state_of(stream);
}

void invalidate(capture &c)
{
    c.invalid = true;
    c.tasks.clear();
}

/* For calls that a capture under way forbids, if its mode covers this thread. */
cudaError_t refuse_while_capturing(void)
{
    for (const std::shared_ptr<stream_state> &s : the_gpu().streams) {
        capture *c = s->captured.get();
        if (c == NULL || c->mode == cudaStreamCaptureModeRelaxed ||
            (c->mode == cudaStreamCaptureModeThreadLocal && c->owner != std::this_thread::get_id()))
            continue;
        invalidate(*c);
        return cudaErrorStreamCaptureUnsupported;
    }
    return cudaSuccess;
}

/* For calls that wait for that stream. */
cudaError_t refuse_captured_stream(stream_state &s)
{
    if (s.captured == NULL)
        return cudaSuccess;
    cudaError_t code = s.captured->invalid ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnsupported;
    invalidate(*s.captured);
    return code;
}

cudaError_t queue_task(stream_state &s, task work)
{
    if (s.captured != NULL && s.captured->invalid)
        return cudaErrorStreamCaptureInvalidated;
    if (s.captured != NULL) {
        s.captured->tasks.push_back(std::move(work));
        return cudaSuccess;
    }
    s.queue.push_back(std::move(work));
    s.issued++;
    if (&s == the_gpu().streams[(size_t)s.device].get())
        run_everything();
    run_some();
    return cudaSuccess;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

bool is_in(const ranges &all, const void *data, size_t bytes)
{
    ranges::const_iterator behind = all.upper_bound((uintptr_t)data);
    if (behind == all.begin())
        return false;
    ranges::const_iterator range = std::prev(behind);
    return (uintptr_t)data - range->first <= range->second && bytes <= range->second - ((uintptr_t)data - range->first);
}

bool is_pinned(const void *data, size_t bytes)
{
    return is_in(the_gpu().pinned, data, bytes) || is_in(the_gpu().registered, data, bytes);
}

size_t rounded(size_t bytes)
{
    return (bytes + ALLOCATION_MULTIPLE - 1) / ALLOCATION_MULTIPLE * ALLOCATION_MULTIPLE;
}

cudaError_t allocate(ranges &all, void **data, size_t bytes)
{
    if (posix_memalign(data, ALLOCATION_MULTIPLE, bytes) != 0)
        return cudaErrorMemoryAllocation;
    memset(*data, 0xff, bytes);
    all[(uintptr_t)*data] = bytes;
    return cudaSuccess;
}

/* Forgets an allocation; returns its bytes, 0: there is none. */
size_t forget(ranges &all, void *data)
{
    ranges::iterator range = all.find((uintptr_t)data);
    if (range == all.end())
        return 0;
    size_t bytes = range->second;
    all.erase(range);
    return bytes;
}

/* Whether it is host memory, or memory of that device. */
bool may_reach(int device, const void *data)
{
    int owner = emulated::device_of(data);
    return owner < 0 || owner == device;
}

cudaError_t check_copy(const void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if (emulated::is_device(src, bytes) != from_device || emulated::is_device(dst, bytes) != to_device)
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

cudaMemcpyKind kind_of(const void *dst, const void *src)
{
    bool from_device = emulated::is_device(src, 1), to_device = emulated::is_device(dst, 1);
    return from_device ? (to_device ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost)
                       : (to_device ? cudaMemcpyHostToDevice : cudaMemcpyHostToHost);
}

/* Host memory that is not pinned is read at once, and written before the call returns. */
cudaError_t copy_pageable(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, stream_state &s)
{
    if (s.captured != NULL)
        return refuse_captured_stream(s);
    if (kind == cudaMemcpyHostToDevice) {
        std::shared_ptr<std::string> kept = std::make_shared<std::string>((const char *)src, bytes);
        return queue_task(s, [=] { memcpy(dst, kept->data(), bytes); });
    }
    for (const std::shared_ptr<stream_state> &each : the_gpu().streams)
        if (each.get() == &s)
            run_stream(each);
    memcpy(dst, src, bytes);
    return cudaSuccess;
}

cudaError_t copy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, stream_state &s)
{
    if (bytes == 0)
        return cudaSuccess;
    if (kind == cudaMemcpyDefault)
        kind = kind_of(dst, src);
    cudaError_t code = check_copy(dst, src, bytes, kind);
    if (code != cudaSuccess)
        return code;
    if (!may_reach(s.device, dst) || !may_reach(s.device, src)) /* CUDA may copy between GPUs; src/cuda never does */
        emulated::break_gpu(cudaErrorIllegalAddress, "a copy reaches memory of another GPU");
    const void *host = kind == cudaMemcpyHostToDevice ? src : kind == cudaMemcpyDeviceToHost ? dst : NULL;
    if (host != NULL && !is_pinned(host, bytes))
        return copy_pageable(dst, src, bytes, kind, s);
    return queue_task(s, [=] { memmove(dst, src, bytes); });
}

} // namespace

/* ---- for the other files here ------------------------------------------------------------------------------------ */

std::recursive_mutex &emulated::lock(void)
{
    static std::recursive_mutex *made = new std::recursive_mutex();
    return *made;
}

unsigned emulated::random_below(unsigned n)
{
    return (unsigned)((uint64_t)zi_random_bits(&the_gpu().random) * n >> 32);
}

void emulated::break_gpu(cudaError_t code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "emulated GPU: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    the_gpu().broken = code;
}

bool emulated::is_device(const void *data, size_t bytes)
{
    return is_in(the_gpu().device, data, bytes);
}

int emulated::device_of(const void *data)
{
    ranges::const_iterator behind = the_gpu().device.upper_bound((uintptr_t)data);
    if (!is_device(data, 1))
        return -1;
    return the_gpu().owners[std::prev(behind)->first];
}

int emulated::device_of_stream(cudaStream_t stream)
{
    return state_of(stream).device;
}

bool emulated::is_captured(cudaStream_t stream)
{
    return state_of(stream).captured != NULL;
}

void emulated::postpone(void)
{
    postponed = true;
}

cudaError_t emulated::enqueue_anywhere(cudaStream_t stream, task work)
{
    return queue_task(state_of(stream), std::move(work));
}

cudaError_t emulated::enqueue(cudaStream_t stream, task work)
{
    if (state_of(stream).device != current_device)
        return cudaErrorInvalidResourceHandle;
    return enqueue_anywhere(stream, std::move(work));
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static cudaError_t check_launch(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes)
{
    std::unordered_map<const void *, size_t>::const_iterator allowed = the_gpu().shared_bytes.find(kernel);
    size_t most = allowed != the_gpu().shared_bytes.end() ? allowed->second : SHARED_BYTES;
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0 || threads > MOST_THREADS || block.z > 64)
        return cudaErrorInvalidConfiguration;
    if (grid.x > MOST_BLOCKS_X || grid.y > MOST_BLOCKS_YZ || grid.z > MOST_BLOCKS_YZ)
        return cudaErrorInvalidConfiguration;
    return shared_bytes > most ? cudaErrorInvalidValue : cudaSuccess;
}

void emulated_enqueue(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, task thread)
{
    LOCKED;
    cudaError_t code = check_launch(kernel, grid, block, shared_bytes);
    if (code == cudaSuccess)
        code = emulated::enqueue(stream, [=] { emulated::run_grid(grid, block, shared_bytes, thread); });
    done(code);
}

void emulated_check_pointer(const void *pointer)
{
    LOCKED;
    bool known = pointer == NULL || emulated::is_device(pointer, 1) || is_pinned(pointer, 1);
    if (!known || !may_reach(current_device, pointer))
        emulated::break_gpu(cudaErrorIllegalAddress, "a kernel's argument %p is no memory of the GPU", pointer);
}

cudaError_t emulated_set_attribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    LOCKED;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > SHARED_BYTES_MAX)
        return done(cudaErrorInvalidValue);
    the_gpu().shared_bytes[kernel] = (size_t)value;
    return done(cudaSuccess);
}

/* ---- devices, versions, errors ----------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = the_gpu().devices;
    return done(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    LOCKED;
    if (device < 0 || device >= the_gpu().devices)
        return done(cudaErrorInvalidDevice);
    *properties = {};
    /* ZIMAGE_EMULATED_OTHER: that GPU is of another model. */
    snprintf(properties->name, sizeof(properties->name),
             number_of("ZIMAGE_EMULATED_OTHER", SIZE_MAX) == (size_t)device ? "emulated otherwise" : "emulated");
    properties->totalGlobalMem = the_gpu().memory;
    properties->sharedMemPerBlock = SHARED_BYTES;
    properties->sharedMemPerBlockOptin = SHARED_BYTES_MAX;
    properties->multiProcessorCount = MULTIPROCESSORS;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = MOST_THREADS;
    properties->major = 9;
    return done(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    if (device < 0 || device >= the_gpu().devices || attribute != cudaDevAttrMultiProcessorCount)
        return done(cudaErrorInvalidValue);
    *value = MULTIPROCESSORS;
    return done(cudaSuccess);
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= the_gpu().devices)
        return done(cudaErrorInvalidDevice);
    current_device = device;
    return done(cudaSuccess);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return done(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void)
{
    LOCKED;
    cudaError_t code = refuse_while_capturing();
    if (code == cudaSuccess)
        run_everything();
    return done(code);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t code = last_error;
    last_error = the_gpu().broken; /* a sticky error */
    return code;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

static const struct {
    cudaError_t code;
    const char *name, *text;
} texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
};

const char *cudaGetErrorString(cudaError_t code)
{
    for (const auto &each : texts)
        if (each.code == code)
            return each.text;
    return "an error";
}

const char *cudaGetErrorName(cudaError_t code)
{
    for (const auto &each : texts)
        if (each.code == code)
            return each.name;
    return "cudaError";
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

cudaError_t cudaMalloc(void **data, size_t bytes)
{
    LOCKED;
    gpu &c = the_gpu();
    cudaError_t code = refuse_while_capturing();
    *data = NULL;
    if (code != cudaSuccess || bytes == 0)
        return done(code);
    size_t &used = c.used[(size_t)current_device];
    if (bytes > c.memory || rounded(bytes) > c.memory - used)
        return done(cudaErrorMemoryAllocation);
    code = allocate(c.device, data, bytes);
    if (code == cudaSuccess) {
        used += rounded(bytes);
        c.owners[(uintptr_t)*data] = current_device;
    }
    return done(code);
}

/* Waits for all streams. */
cudaError_t cudaFree(void *data)
{
    LOCKED;
    cudaError_t code = refuse_while_capturing();
    if (code != cudaSuccess || data == NULL)
        return done(code);
    run_everything();
    size_t bytes = forget(the_gpu().device, data);
    if (bytes == 0)
        return done(cudaErrorInvalidValue);
    the_gpu().used[(size_t)the_gpu().owners[(uintptr_t)data]] -= rounded(bytes);
    free(data);
    return done(cudaSuccess);
}

cudaError_t cudaMallocHost(void **data, size_t bytes)
{
    LOCKED;
    cudaError_t code = refuse_while_capturing();
    *data = NULL;
    return done(code != cudaSuccess || bytes == 0 ? code : allocate(the_gpu().pinned, data, bytes));
}

cudaError_t cudaHostAlloc(void **data, size_t bytes, unsigned flags)
{
    (void)flags;
    return cudaMallocHost(data, bytes);
}

cudaError_t cudaFreeHost(void *data)
{
    LOCKED;
    cudaError_t code = refuse_while_capturing();
    if (code != cudaSuccess || data == NULL)
        return done(code);
    run_everything();
    if (forget(the_gpu().pinned, data) == 0)
        return done(cudaErrorInvalidValue);
    free(data);
    return done(cudaSuccess);
}

cudaError_t cudaHostRegister(void *data, size_t bytes, unsigned flags)
{
    LOCKED;
    (void)flags;
    cudaError_t code = refuse_while_capturing();
    if (code == cudaSuccess && (data == NULL || bytes == 0))
        code = cudaErrorInvalidValue;
    if (code == cudaSuccess && is_pinned(data, 1))
        code = cudaErrorHostMemoryAlreadyRegistered;
    if (code == cudaSuccess)
        the_gpu().registered[(uintptr_t)data] = bytes;
    return done(code);
}

cudaError_t cudaHostUnregister(void *data)
{
    LOCKED;
    cudaError_t code = refuse_while_capturing();
    if (code == cudaSuccess) {
        run_everything();
        code = forget(the_gpu().registered, data) == 0 ? cudaErrorHostMemoryNotRegistered : cudaSuccess;
    }
    return done(code);
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    LOCKED;
    *all = the_gpu().memory;
    *left = the_gpu().memory - the_gpu().used[(size_t)current_device];
    return done(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    LOCKED;
    return done(copy(dst, src, bytes, kind, state_of(stream)));
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    LOCKED;
    cudaError_t code = refuse_while_capturing();
    if (code == cudaSuccess)
        code = copy(dst, src, bytes, kind, state_of(NULL));
    return done(code);
}

cudaError_t cudaMemsetAsync(void *data, int value, size_t bytes, cudaStream_t stream)
{
    LOCKED;
    if (bytes > 0 && !emulated::is_device(data, bytes))
        return done(cudaErrorInvalidValue);
    return done(queue_task(state_of(stream), [=] { memset(data, value, bytes); }));
}

cudaError_t cudaMemset(void *data, int value, size_t bytes)
{
    LOCKED;
    cudaError_t code = refuse_while_capturing();
    return code != cudaSuccess ? done(code) : cudaMemsetAsync(data, value, bytes, NULL);
}

/* ---- streams and events ------------------------------------------------------------------------------------------ */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    LOCKED;
    *stream = NULL;
    if (flags > cudaStreamNonBlocking)
        return done(cudaErrorInvalidValue);
    *stream = new CUstream_st{std::make_shared<stream_state>(stream_state{current_device, false, {}, 0, 0, NULL})};
    the_gpu().streams.push_back((*stream)->state);
    return done(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

/* Finishes its queued work first. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    LOCKED;
    if (stream == NULL)
        return done(cudaErrorInvalidResourceHandle);
    run_stream(stream->state);
    std::vector<std::shared_ptr<stream_state>> &streams = the_gpu().streams;
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream->state)
            streams.erase(streams.begin() + (ptrdiff_t)i--);
    delete stream;
    return done(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    LOCKED;
    stream_state &s = state_of(stream);
    cudaError_t code = refuse_captured_stream(s);
    if (code == cudaSuccess)
        run_stream(shared_state_of(stream));
    return done(code);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    LOCKED;
    stream_state &s = state_of(stream);
    cudaError_t code = refuse_captured_stream(s);
    if (code != cudaSuccess)
        return done(code);
    if (s.queue.empty())
        return done(cudaSuccess);
    if (!run_one(s)) /* so that a loop of queries ends */
        run_another(s);
    return cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    LOCKED;
    stream_state &s = state_of(stream);
    if (event == NULL || flags != cudaEventWaitDefault)
        return done(event == NULL ? cudaErrorInvalidResourceHandle : cudaErrorInvalidValue);
    if (event->captured) /* captures that fork are not emulated */
        return done(event->recorded.stream.get() == &s && s.captured != NULL ? cudaSuccess
                                                                             : cudaErrorStreamCaptureUnsupported);
    if (s.captured != NULL) {
        invalidate(*s.captured);
        return done(cudaErrorStreamCaptureIsolation);
    }
    moment awaited = event->recorded;
    return done(queue_task(s, [awaited] { postponed = !run_towards(awaited); }));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    LOCKED;
    *event = new CUevent_st{{NULL, 0}, NULL, !(flags & cudaEventDisableTiming), false, current_device};
    return done(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    LOCKED;
    delete event;
    return done(event != NULL ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    LOCKED;
    if (event == NULL)
        return done(cudaErrorInvalidResourceHandle);
    std::shared_ptr<stream_state> s = shared_state_of(stream);
    if (s->device != event->device)
        return done(cudaErrorInvalidResourceHandle);
    std::shared_ptr<double> time = std::make_shared<double>(0);
    event->captured = s->captured != NULL;
    cudaError_t code = queue_task(*s, [time] { *time = now(); });
    event->recorded = {s, s->issued};
    event->milliseconds = time;
    return done(code);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    LOCKED;
    if (event == NULL || event->captured)
        return done(event == NULL ? cudaErrorInvalidResourceHandle : cudaErrorCapturedEvent);
    cudaError_t code = refuse_while_capturing();
    if (code != cudaSuccess || has_happened(event->recorded))
        return done(code);
    if (!run_one(*event->recorded.stream)) /* so that a loop of queries ends */
        run_another(*event->recorded.stream);
    return cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    LOCKED;
    if (event == NULL || event->captured)
        return done(event == NULL ? cudaErrorInvalidResourceHandle : cudaErrorCapturedEvent);
    cudaError_t code = refuse_while_capturing();
    if (code == cudaSuccess)
        run_until(event->recorded);
    return done(code);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    LOCKED;
    if (start == NULL || end == NULL || !start->timed || !end->timed || !start->milliseconds || !end->milliseconds)
        return done(cudaErrorInvalidResourceHandle);
    if (!has_happened(start->recorded) || !has_happened(end->recorded))
        return done(cudaErrorNotReady);
    *milliseconds = (float)(*end->milliseconds - *start->milliseconds);
    return done(cudaSuccess);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    LOCKED;
    if (stream == NULL)
        return done(cudaErrorStreamCaptureUnsupported);
    if (stream->state->captured != NULL)
        return done(cudaErrorInvalidValue);
    stream->state->captured.reset(new capture{mode, std::this_thread::get_id(), false, {}});
    return done(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    LOCKED;
    *graph = NULL;
    if (stream == NULL || stream->state->captured == NULL)
        return done(cudaErrorInvalidValue);
    capture &c = *stream->state->captured;
    if (c.mode != cudaStreamCaptureModeRelaxed && c.owner != std::this_thread::get_id())
        return done(cudaErrorStreamCaptureWrongThread);
    bool invalid = c.invalid;
    if (!invalid)
        *graph = new CUgraph_st{std::move(c.tasks), stream->state->device};
    stream->state->captured.reset();
    return done(invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    LOCKED;
    const capture *c = state_of(stream).captured.get();
    *status = c == NULL    ? cudaStreamCaptureStatusNone
              : c->invalid ? cudaStreamCaptureStatusInvalidated
                           : cudaStreamCaptureStatusActive;
    return done(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    LOCKED;
    *exec = NULL;
    if (graph == NULL || flags != 0)
        return done(cudaErrorInvalidValue);
    *exec = new CUgraphExec_st{graph->tasks, graph->device};
    return done(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    LOCKED;
    cudaError_t code = exec == NULL || state_of(stream).device != exec->device ? cudaErrorInvalidValue : cudaSuccess;
    for (size_t i = 0; code == cudaSuccess && i < exec->tasks.size(); i++)
        code = queue_task(state_of(stream), exec->tasks[i]);
    return done(code);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    LOCKED;
    delete graph;
    return done(graph != NULL ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    LOCKED;
    delete exec;
    return done(exec != NULL ? cudaSuccess : cudaErrorInvalidValue);
}
