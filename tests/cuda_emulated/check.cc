/* Tests the emulated GPU itself: it detects faults of kernels and of the host, and streams and graphs keep their
 * order. */
#include <stdio.h>
#include <stdlib.h>

#include "cuda/device_code.cuh"
#include "cuda/ptx.cuh"

#define THREADS 64
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static cudaStream_t stream, other;
static float *device, *pinned; /* THREADS elements each */

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

/* Reverses x. */
static __global__ void mirror(float *x, int with_barrier)
{
    __shared__ float all[THREADS];
    all[threadIdx.x] = x[threadIdx.x];
    if (with_barrier)
        __syncthreads();
    x[threadIdx.x] = all[THREADS - 1 - threadIdx.x];
}

static __global__ void copy_late(float *x, const float *from, int with_wait)
{
    ZI_DYNAMIC_SHARED(float, all);
    ptx_copy_16(all + 4 * threadIdx.x, from + 4 * threadIdx.x, 1);
    ptx_commit_copies();
    if (with_wait)
        ptx_wait_copies<0>();
    for (int i = 0; i < 4; i++)
        x[4 * threadIdx.x + i] = all[4 * threadIdx.x + i];
}

static __global__ void add(float *x, float value)
{
    x[threadIdx.x] += value;
}

/* 1 where warp_sum differs from its shuffles in CUDA C++. */
static __global__ void compare_sums(float *x)
{
    float value = x[threadIdx.x] * 0.1f, expected = value, sum = warp_sum(value);
    for (int step = 16; step > 0; step /= 2)
        expected += __shfl_xor_sync(~0u, expected, step);
    x[threadIdx.x] = sum != expected;
}

static __global__ void diverge(unsigned waiting)
{
    if (threadIdx.x < waiting)
        __syncthreads();
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static void fill(void)
{
    for (int i = 0; i < THREADS; i++)
        pinned[i] = (float)i;
    CHECK(cudaMemcpyAsync(device, pinned, THREADS * sizeof(float), cudaMemcpyHostToDevice, stream) == cudaSuccess);
}

static void fetch(void)
{
    CHECK(cudaMemcpyAsync(pinned, device, THREADS * sizeof(float), cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
}

/* How many elements of pinned are not first + step i. */
static int wrong(float first, float step)
{
    int count = 0;
    for (int i = 0; i < THREADS; i++)
        count += pinned[i] != first + step * (float)i;
    return count;
}

static void missing_barriers_show(void)
{
    for (int with = 0; with < 2; with++) {
        fill();
        ZI_LAUNCH(mirror, 1, THREADS, 0, stream, device, with);
        fetch();
        CHECK((wrong(THREADS - 1, -1) == 0) == with);
    }
}

static void missing_waits_show(void)
{
    float *from = device + THREADS;
    for (int with = 0; with < 2; with++) {
        fill();
        CHECK(cudaMemcpyAsync(from, device, THREADS * sizeof(float), cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
        ZI_LAUNCH(copy_late, 1, THREADS / 4, THREADS * sizeof(float), stream, device, from, with);
        fetch();
        CHECK((wrong(0, 1) == 0) == with);
    }
}

/* Also in a warp of some lanes only. */
static void reductions_are_those_of_shuffles(void)
{
    for (int threads = THREADS; threads > 0; threads -= 9) {
        fill();
        CHECK(cudaMemsetAsync(device + threads, 0, (size_t)(THREADS - threads) * sizeof(float), stream) == cudaSuccess);
        ZI_LAUNCH(compare_sums, 1, (unsigned)threads, 0, stream, device);
        fetch();
        CHECK(wrong(0, 0) == 0);
    }
}

/* A copy reads pinned memory when it runs, other memory at once. */
static void hosts_that_hurry_show(void)
{
    int late = 0;
    for (int i = 0; i < 20; i++) {
        fill();
        for (int k = 0; k < THREADS; k++)
            pinned[k] = -1;
        fetch();
        late += wrong(0, 1) > 0;
        const float own[1] = {(float)i};
        CHECK(cudaMemcpyAsync(device, own, sizeof(own), cudaMemcpyHostToDevice, stream) == cudaSuccess);
        fetch();
        CHECK(pinned[0] == (float)i);
    }
    CHECK(late > 0);
}

static void events_order_streams(void)
{
    cudaEvent_t event;
    int early = 0;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    for (int i = 0; i < 40; i++) {
        fill();
        CHECK(cudaEventRecord(event, stream) == cudaSuccess);
        if (i % 2)
            CHECK(cudaStreamWaitEvent(other, event, 0) == cudaSuccess);
        ZI_LAUNCH(add, 1, THREADS, 0, other, device, 1.0f);
        CHECK(cudaStreamSynchronize(other) == cudaSuccess);
        fetch();
        CHECK(i % 2 == 0 || wrong(1, 1) == 0);
        early += wrong(1, 1) > 0;
    }
    CHECK(early > 0);
    CHECK(cudaEventDestroy(event) == cudaSuccess);
}

static void graphs_run_when_they_are_launched(void)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    fill();
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    ZI_LAUNCH(add, 1, THREADS, 0, stream, device, 1.0f);
    CHECK(cudaGetLastError() == cudaSuccess);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess);
    fetch();
    CHECK(wrong(0, 1) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
    fetch();
    CHECK(wrong(3, 1) == 0);
    CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
}

static void captures_refuse_what_waits(void)
{
    cudaGraph_t graph;
    void *data;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
    ZI_LAUNCH(add, 1, THREADS, 0, stream, device, 1.0f);
    CHECK(cudaGetLastError() == cudaErrorStreamCaptureInvalidated);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated && graph == NULL);
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(cudaMalloc(&data, 1) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
    (void)cudaGetLastError();
}

static void launches_are_checked(void)
{
    ZI_LAUNCH(add, dim3(1, 65536), THREADS, 0, stream, device, 1.0f);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    ZI_LAUNCH(add, 0, THREADS, 0, stream, device, 1.0f);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    ZI_LAUNCH(add, 1, THREADS, 60 << 10, stream, device, 1.0f);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
    CHECK(cudaGetLastError() == cudaSuccess);
}

/* Comes last: afterwards every call fails. */
static void divergent_barriers_are_reported(void)
{
    ZI_LAUNCH(diverge, 1, THREADS, 0, stream, 5u);
    CHECK(cudaStreamSynchronize(stream) == cudaErrorLaunchFailure);
    CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
}

int main(void)
{
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cudaMalloc((void **)&device, 2 * THREADS * sizeof(float)) == cudaSuccess && isnan(device[0]));
    CHECK(cudaMallocHost((void **)&pinned, THREADS * sizeof(float)) == cudaSuccess);
    missing_barriers_show();
    missing_waits_show();
    reductions_are_those_of_shuffles();
    hosts_that_hurry_show();
    events_order_streams();
    graphs_run_when_they_are_launched();
    captures_refuse_what_waits();
    launches_are_checked();
    divergent_barriers_are_reported();
    printf("the emulated GPU keeps its promises\n");
    return 0;
}
