#include "cuda/nccl.h"

#define BYTES     1     /* ncclUint8 */
#define VERSION   20900 /* the first that CUDA graphs may hold */
#define OF(major) ((major) / 10000)

static zimage_status fail(const zi_nccl *nccl, int result, const char *what, zimage_error *error)
{
    return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "NCCL: %s failed: %s", what, nccl->f.get_error_string(result));
}

zimage_status zi_nccl_open(zi_nccl *nccl, const int *devices, int count, zimage_error *error)
{
    char why[256];
    int version = 0;
    *nccl = (zi_nccl){.count = 0};
    if (!zi_nccl_load(&nccl->f, why, sizeof(why)))
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "device: several GPUs need NVIDIA's NCCL, which can't be loaded (%s); expected libnccl.so.2 in "
                       "the system's folder of libraries or in LD_LIBRARY_PATH",
                       why);
    if (nccl->f.get_version(&version) != 0 || version < VERSION)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "device: several GPUs need NCCL 2.9 or newer, but libnccl.so.2 is %d.%d", OF(version),
                       version % 10000 / 100);
    int result = nccl->f.comm_init_all(nccl->comms, count, devices);
    if (result != 0)
        return fail(nccl, result, "connecting the GPUs", error);
    nccl->count = count;
    return ZIMAGE_OK;
}

void zi_nccl_close(zi_nccl *nccl)
{
    for (int i = 0; i < nccl->count; i++)
        (void)nccl->f.comm_destroy(nccl->comms[i]);
    nccl->count = 0;
}

static void note(zi_nccl *nccl, int result)
{
    if (nccl->failed == 0)
        nccl->failed = result;
}

void zi_nccl_begin(zi_nccl *nccl)
{
    nccl->failed = nccl->f.group_start();
}

zimage_status zi_nccl_end(zi_nccl *nccl, zimage_error *error)
{
    note(nccl, nccl->f.group_end());
    return nccl->failed == 0 ? ZIMAGE_OK : fail(nccl, nccl->failed, "an exchange", error);
}

void zi_nccl_send(zi_nccl *nccl, int from, int to, const void *data, size_t bytes, cudaStream_t stream)
{
    note(nccl, nccl->f.send(data, bytes, BYTES, to, nccl->comms[from], stream));
}

void zi_nccl_receive(zi_nccl *nccl, int to, int from, void *data, size_t bytes, cudaStream_t stream)
{
    note(nccl, nccl->f.recv(data, bytes, BYTES, from, nccl->comms[to], stream));
}
