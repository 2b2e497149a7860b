/* What the files of the emulated GPU share. Callers hold `lock`. */
#ifndef ZI_EMULATED_H
#define ZI_EMULATED_H

#include <functional>
#include <mutex>

#include "cuda_runtime.h"

namespace emulated
{

std::recursive_mutex &lock(void);

/* A random number below n; the same sequence in every run, unless ZIMAGE_EMULATED_SEED changes it. */
unsigned random_below(unsigned n);

/* Reports on stderr what a kernel did wrong; from then on every call fails with `code`. */
void break_gpu(cudaError_t code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether these bytes lie in one allocation of device memory. */
bool is_device(const void *data, size_t bytes);

/* The device whose memory it is; -1: none. Of a stream: the one that it was made on. */
int device_of(const void *data);
int device_of_stream(cudaStream_t stream);
bool is_captured(cudaStream_t stream);

/* Queues work. It runs at a random time before a wait for the stream ends; if the stream is being captured, it runs
 * when the graph is launched. The stream must be one of the current device, except for the second. */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> task);
cudaError_t enqueue_anywhere(cudaStream_t stream, std::function<void()> task);

/* The task that calls this is run again later: it waits for work of another stream. */
void postpone(void);

/* Runs every block of a kernel. */
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread);

} // namespace emulated

#endif
