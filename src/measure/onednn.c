#include "measure/onednn.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/library.h"

#define MOST_ROWS 2048
#define REPEATS   3

/* From dnnl_types.h of versions 2 and 3; handles are pointers to structs of the library. */
enum { DNNL_CPU = 1, DNNL_BF16 = 2, DNNL_F32 = 3, DNNL_QUERY_IMPLEMENTATION = 8 };
enum { ARG_SRC = 1, ARG_DST = 17, ARG_WEIGHTS = 33 };

typedef struct dnnl_argument {
    int argument;
    void *memory;
} dnnl_argument;

typedef struct dnnl_version {
    int major, minor, patch;
} dnnl_version;

/* Version 3's functions; version 2 built primitives in another way, so there only sgemm is used. */
typedef struct dnnl_functions {
    int (*engine_create)(void **engine, int kind, size_t index);
    int (*engine_destroy)(void *engine);
    int (*stream_create)(void **stream, void *engine, unsigned flags);
    int (*stream_wait)(void *stream);
    int (*stream_destroy)(void *stream);
    int (*layout_create)(void **layout, int dims, const int64_t *sizes, int type, const int64_t *strides);
    int (*layout_destroy)(void *layout);
    int (*memory_create)(void **memory, const void *layout, void *engine, void *data);
    int (*memory_destroy)(void *memory);
    int (*matmul_create)(void **plan, void *engine, const void *x, const void *w, const void *bias, const void *y,
                         const void *attributes);
    int (*plan_query)(const void *plan, int what, int index, void *result);
    int (*plan_destroy)(void *plan);
    int (*primitive_create)(void **primitive, const void *plan);
    int (*primitive_execute)(const void *primitive, void *stream, int count, const dnnl_argument *arguments);
    int (*primitive_destroy)(void *primitive);
} dnnl_functions;

static const char *const names[] = {
    "dnnl_engine_create",        "dnnl_engine_destroy",
    "dnnl_stream_create",        "dnnl_stream_wait",
    "dnnl_stream_destroy",       "dnnl_memory_desc_create_with_strides",
    "dnnl_memory_desc_destroy",  "dnnl_memory_create",
    "dnnl_memory_destroy",       "dnnl_matmul_primitive_desc_create",
    "dnnl_primitive_desc_query", "dnnl_primitive_desc_destroy",
    "dnnl_primitive_create",     "dnnl_primitive_execute",
    "dnnl_primitive_destroy",
};

#define FUNCTIONS (sizeof(names) / sizeof(names[0]))
_Static_assert(sizeof(dnnl_functions) == FUNCTIONS * sizeof(void *), "a name for each function");

typedef int sgemm_function(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                           const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

struct zi_onednn {
    void *library;
    char version[32];
    sgemm_function *sgemm;
    dnnl_functions f; /* all NULL before version 3 */
    void *engine, *stream;
};

/* ---- the library ------------------------------------------------------------------------------------------------- */

/* POSIX: a function's address fits a void *, though ISO C has no cast for it. */
static int find(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

static int find_version3(zi_onednn *dnn)
{
    unsigned char *functions = (unsigned char *)&dnn->f;
    for (size_t i = 0; i < FUNCTIONS; i++)
        if (!find(dnn->library, names[i], functions + i * sizeof(void *)))
            return 0;
    return dnn->f.engine_create(&dnn->engine, DNNL_CPU, 0) == 0 &&
           dnn->f.stream_create(&dnn->stream, dnn->engine, 1) == 0;
}

static int find_functions(zi_onednn *dnn, int threads)
{
    const dnnl_version *(*version)(void);
    void (*set_threads)(int threads);
    if (!find(dnn->library, "dnnl_version", &version))
        return 0;
    snprintf(dnn->version, sizeof dnn->version, "%d.%d.%d", version()->major, version()->minor, version()->patch);
    if (find(dnn->library, "omp_set_num_threads", &set_threads)) /* of the OpenMP library that it was linked with */
        set_threads(threads);
    if (version()->major >= 3)
        return find_version3(dnn);
    return find(dnn->library, "dnnl_sgemm", &dnn->sgemm);
}

zi_onednn *zi_onednn_open(int threads)
{
#if defined(__APPLE__)
    static const char *const files[] = {"libdnnl.3.dylib", "libdnnl.2.dylib"};
#else
    static const char *const files[] = {"libdnnl.so.3", "libdnnl.so.2"};
#endif
    char why[400];
    void *library = NULL;
    for (size_t i = 0; i < 2 && !library; i++) /* stays loaded: its threads may outlive the work */
        library = zi_library_open(files[i], why, sizeof why);
    if (!library)
        return NULL;
    zi_onednn *dnn = calloc(1, sizeof *dnn);
    if (!dnn) {
        dlclose(library);
        return NULL;
    }
    dnn->library = library;
    if (find_functions(dnn, threads))
        return dnn;
    zi_onednn_close(dnn);
    return NULL;
}

void zi_onednn_close(zi_onednn *dnn)
{
    if (!dnn)
        return;
    if (dnn->stream)
        dnn->f.stream_destroy(dnn->stream);
    if (dnn->engine)
        dnn->f.engine_destroy(dnn->engine);
    dlclose(dnn->library);
    free(dnn);
}

const char *zi_onednn_version(const zi_onednn *dnn)
{
    return dnn->version;
}

/* ---- a product --------------------------------------------------------------------------------------------------- */

typedef struct product {
    int64_t rows, out, in;
    void *x, *w, *y;
    /* version 3 */
    void *layouts[3], *memories[3], *plan, *primitive;
} product;

/* Layouts, plan and primitive; 0: there is no product for the type, or only a plain loop that would take minutes. */
static int build(zi_onednn *dnn, product *p, int type)
{
    const dnnl_functions *f = &dnn->f;
    const int64_t sizes[3][2] = {{p->rows, p->in}, {p->in, p->out}, {p->rows, p->out}};
    const int64_t strides[3][2] = {{p->in, 1}, {1, p->in}, {p->out, 1}};
    void *const data[3] = {p->x, p->w, p->y};
    const char *implementation = NULL;
    for (int i = 0; i < 3; i++)
        if (f->layout_create(&p->layouts[i], 2, sizes[i], i == 2 ? DNNL_F32 : type, strides[i]) ||
            f->memory_create(&p->memories[i], p->layouts[i], dnn->engine, data[i]))
            return 0;
    if (f->matmul_create(&p->plan, dnn->engine, p->layouts[0], p->layouts[1], NULL, p->layouts[2], NULL) ||
        f->plan_query(p->plan, DNNL_QUERY_IMPLEMENTATION, 0, (void *)&implementation) || !implementation ||
        !strncmp(implementation, "ref", 3))
        return 0;
    return f->primitive_create(&p->primitive, p->plan) == 0;
}

static void take_down(zi_onednn *dnn, product *p)
{
    if (p->primitive)
        dnn->f.primitive_destroy(p->primitive);
    if (p->plan)
        dnn->f.plan_destroy(p->plan);
    for (int i = 0; i < 3; i++) {
        if (p->memories[i])
            dnn->f.memory_destroy(p->memories[i]);
        if (p->layouts[i])
            dnn->f.layout_destroy(p->layouts[i]);
        p->memories[i] = p->layouts[i] = NULL;
    }
    p->primitive = p->plan = NULL;
}

static int run(zi_onednn *dnn, const product *p)
{
    if (dnn->sgemm)
        return dnn->sgemm('N', 'T', p->rows, p->out, p->in, 1, p->x, p->in, p->w, p->in, 0, p->y, p->out) == 0;
    const dnnl_argument arguments[3] = {
        {ARG_SRC, p->memories[0]}, {ARG_WEIGHTS, p->memories[1]}, {ARG_DST, p->memories[2]}};
    return dnn->f.primitive_execute(p->primitive, dnn->stream, 3, arguments) == 0 &&
           dnn->f.stream_wait(dnn->stream) == 0;
}

static double best_rate(zi_onednn *dnn, const product *p)
{
    double best = 1e30;
    for (int i = 0; i <= REPEATS; i++) { /* the first compiles and warms */
        double start = zi_now();
        if (!run(dnn, p))
            return 0;
        double seconds = zi_now() - start;
        if (i > 0 && seconds < best)
            best = seconds;
    }
    return 2 * (double)p->rows * (double)p->out * (double)p->in / best;
}

static double rate_of_type(zi_onednn *dnn, product *p, int type)
{
    double rate = 0;
    if (build(dnn, p, type))
        rate = best_rate(dnn, p);
    take_down(dnn, p);
    return rate;
}

/* The same bytes make small numbers as float32 and as bfloat16. */
static void *numbers(int64_t count)
{
    size_t bytes = (size_t)count * sizeof(float);
    uint8_t *data = malloc(bytes);
    for (size_t i = 0; data && i < bytes; i++)
        data[i] = i % 2 ? 0x3c : (uint8_t)(i * 13);
    return data;
}

double zi_onednn_rate(zi_onednn *dnn, int64_t rows, int64_t out, int64_t in)
{
    product p = {.rows = rows < MOST_ROWS ? rows : MOST_ROWS, .out = out, .in = in};
    double rate = 0;
    p.x = numbers(p.rows * in);
    p.w = numbers(out * in);
    p.y = numbers(p.rows * out);
    if (p.x && p.w && p.y && dnn->sgemm) {
        rate = best_rate(dnn, &p);
    } else if (p.x && p.w && p.y) {
        double halves = rate_of_type(dnn, &p, DNNL_BF16);
        rate = rate_of_type(dnn, &p, DNNL_F32);
        rate = halves > rate ? halves : rate;
    }
    free(p.x);
    free(p.w);
    free(p.y);
    return rate;
}
