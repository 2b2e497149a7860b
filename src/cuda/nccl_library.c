/* Finds NCCL as the loader finds the other libraries of CUDA. */
#include <dlfcn.h>
#include <stdio.h>

#include "cuda/nccl.h"

#define FILE_NAME "libnccl.so.2"

int zi_nccl_load(zi_nccl_functions *f, char *why, size_t size)
{
    const struct {
        const char *name;
        void **function;
    } symbols[] = {
        {"ncclGetVersion", (void **)&f->get_version},
        {"ncclGetErrorString", (void **)&f->get_error_string},
        {"ncclCommInitAll", (void **)&f->comm_init_all},
        {"ncclCommDestroy", (void **)&f->comm_destroy},
        {"ncclGroupStart", (void **)&f->group_start},
        {"ncclGroupEnd", (void **)&f->group_end},
        {"ncclSend", (void **)&f->send},
        {"ncclRecv", (void **)&f->recv},
    };
    void *library = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == NULL) {
        snprintf(why, size, "%s", dlerror());
        return 0;
    }
    for (size_t i = 0; i < sizeof(symbols) / sizeof(*symbols); i++) {
        *symbols[i].function = dlsym(library, symbols[i].name);
        if (*symbols[i].function == NULL) {
            snprintf(why, size, FILE_NAME " has no %s", symbols[i].name);
            break;
        }
    }
    dlclose(library); /* RTLD_NODELETE: its code stays */
    return f->recv != NULL && f->send != NULL && f->group_end != NULL && f->comm_destroy != NULL;
}
