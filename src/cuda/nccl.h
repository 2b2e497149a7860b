/*
 * Messages between GPUs of this process, by NCCL. The library is looked for when several GPUs are asked for, so that
 * one GPU needs no NCCL. Names and meanings: the API reference of NCCL 2.
 */
#ifndef ZI_CUDA_NCCL_H
#define ZI_CUDA_NCCL_H

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "cuda/division.h"

typedef struct ncclComm *zi_nccl_comm;

/* Results are 0 or an error of NCCL's. */
typedef struct zi_nccl_functions {
    int (*get_version)(int *version);
    const char *(*get_error_string)(int result);
    int (*comm_init_all)(zi_nccl_comm *comms, int count, const int *devices);
    int (*comm_destroy)(zi_nccl_comm comm);
    int (*group_start)(void);
    int (*group_end)(void);
    int (*send)(const void *data, size_t count, int type, int peer, zi_nccl_comm comm, cudaStream_t stream);
    int (*recv)(void *data, size_t count, int type, int peer, zi_nccl_comm comm, cudaStream_t stream);
} zi_nccl_functions;

#ifdef __cplusplus
extern "C" {
#endif
/* nccl_library.c: finds NCCL; on the emulated GPU another file. 0: there is none; why: in a few words. */
int zi_nccl_load(zi_nccl_functions *functions, char *why, size_t size);
#ifdef __cplusplus
}
#endif

typedef struct zi_nccl {
    zi_nccl_functions f;
    int count, failed; /* failed: the first result that was not 0 since the group began */
    zi_nccl_comm comms[ZI_CARDS_MAX];
} zi_nccl;

/* Card k is GPU devices[k]. */
zimage_status zi_nccl_open(zi_nccl *nccl, const int *devices, int count, zimage_error *error);
void zi_nccl_close(zi_nccl *nccl);
/* All messages between these two calls go at the same time. Each is sent and received once. */
void zi_nccl_begin(zi_nccl *nccl);
zimage_status zi_nccl_end(zi_nccl *nccl, zimage_error *error);
void zi_nccl_send(zi_nccl *nccl, int from, int to, const void *data, size_t bytes, cudaStream_t stream);
void zi_nccl_receive(zi_nccl *nccl, int to, int from, void *data, size_t bytes, cudaStream_t stream);

#endif
