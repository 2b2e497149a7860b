/* oneDNN's matrix product as a baseline, where its library is installed: opened at run time, never needed. */
#ifndef ZI_MEASURE_ONEDNN_H
#define ZI_MEASURE_ONEDNN_H

#include <stdint.h>

typedef struct zi_onednn zi_onednn;

/* NULL: libdnnl, version 3 or 2, is not installed, or is not as expected. */
zi_onednn *zi_onednn_open(int threads);
void zi_onednn_close(zi_onednn *dnn);
/* "2.6.3" */
const char *zi_onednn_version(const zi_onednn *dnn);

/*
 * Floating-point operations a second of y [rows, out] = x [rows, in] w [out, in]^T, the best of a few runs: float32, or
 * bfloat16 where version 3 has a fast product for it and that is faster. Rows beyond 2048 are left away. 0: it failed.
 */
double zi_onednn_rate(zi_onednn *dnn, int64_t rows, int64_t out, int64_t in);

#endif
