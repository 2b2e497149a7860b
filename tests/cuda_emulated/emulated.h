/* What the emulated card's own files share. Everything happens with `lock` held. */
#ifndef ZI_EMULATED_H
#define ZI_EMULATED_H

#include <functional>
#include <mutex>

#include "cuda_runtime.h"

namespace emulated
{

std::recursive_mutex &lock(void);

/* Below n; the same sequence in every run (ZIMAGE_EMULATED_SEED changes it). */
unsigned random_below(unsigned n);

/* Says on stderr what a kernel did wrong; from then on every call fails by `code`. */
void break_card(cudaError_t code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether these bytes lie in one allocation of device memory. */
bool is_device(const void *data, size_t bytes);

/* Queues work: it runs at some time until the stream is waited for, or never, if the stream is being captured. */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> task);

/* Runs every block of a kernel. */
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread);

} // namespace emulated

#endif
