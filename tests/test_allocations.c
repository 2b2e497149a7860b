/*
 * Fails each memory allocation in turn while a model is opened, a picture made and written. Every failure must come back
 * as an error (or be harmless), and nothing may leak. The interposed functions catch the libraries' allocations too
 * (jansson, PCRE2, libpng, ...), so this needs glibc without a sanitizer's own allocator.
 *
 * Two ways to fail: the n-th allocation alone, and all from the n-th on.
 */
#define ZIMAGE_EXPERIMENTAL
#include "model/qwen3.h"
#include "model/vae.h"
#include "session.h"
#include "support.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdatomic.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)

static void skipped(void **state)
{
    printf("skipped: the sanitizer owns the allocator; the release build runs this\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(skipped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *pointer);

/* Armed only around the work under test, on the only thread that runs then. */
static atomic_int armed;
static atomic_int lasting;
static atomic_long countdown, calls, live;

static int must_fail(void)
{
    if (!armed)
        return 0;
    calls++;
    countdown--;
    if (countdown == 0 || (countdown < 0 && lasting)) {
        errno = ENOMEM;
        return 1;
    }
    return 0;
}

static void *count_live(void *pointer)
{
    if (pointer)
        live++;
    return pointer;
}

void *malloc(size_t size)
{
    return must_fail() ? NULL : count_live(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : count_live(__libc_calloc(count, size));
}

void *realloc(void *pointer, size_t size)
{
    if (must_fail())
        return NULL;
    void *result = __libc_realloc(pointer, size);
    if (result && !pointer)
        live++;
    return result;
}

void *memalign(size_t alignment, size_t size)
{
    return must_fail() ? NULL : count_live(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **pointer, size_t alignment, size_t size)
{
    *pointer = memalign(alignment, size);
    return *pointer ? 0 : ENOMEM;
}

void free(void *pointer)
{
    if (pointer)
        live--;
    __libc_free(pointer);
}

/* Opens, plans, generates with guidance and a preview, writes. The status of the first failing call. */
static int keep_going(const zimage_progress *progress, void *user)
{
    return 0;
}

#define PROMPT                                                                                                         \
    "a r\xc3\xa9"                                                                                                      \
    "d apple"

static zimage_status plan_and_generate(zimage_session *session, zimage_image **image, zimage_error *error)
{
    zimage_request request = {.struct_size = sizeof request};
    zimage_plan *plan = NULL;
    request.prompt = PROMPT;
    request.guidance_scale = 2;
    request.width = request.height = 16;
    request.steps = 1;
    request.preview = 1;
    request.progress = keep_going;
    request.memory_limit = 1 << 30;
    zimage_status status = zimage_plan_make(session, &request, &plan, error);
    zimage_plan_free(plan);
    return status == ZIMAGE_OK ? zimage_generate(session, &request, image, error) : status;
}

static zimage_status whole_job(const char *path, zimage_error *error)
{
    const zimage_session_params params = {
        .struct_size = sizeof params, .threads = 1, .cache_folder = getenv("XDG_CACHE_HOME")};
    zimage_session *session = NULL;
    zimage_image *image = NULL;
    zimage_status status = session_on(ZIMAGE_TEST_DATA "/tiny", NULL, &params, &session, error);
    if (status == ZIMAGE_OK)
        status = plan_and_generate(session, &image, error);
    if (status == ZIMAGE_OK)
        status = zimage_image_write(image, path, &(zimage_text){"prompt", PROMPT}, 1, error);
    zimage_image_free(image);
    zimage_session_close(session);
    return status;
}

static zimage_status inspect_job(const char *path, zimage_error *error)
{
    zimage_inspection *inspection = NULL;
    zimage_status status = zimage_inspect(ZIMAGE_TEST_DATA "/tiny", &inspection, error);
    zimage_inspection_free(inspection);
    return status;
}

/* Pixels to a PNG in memory and back. */
static zimage_status image_job(const char *path, zimage_error *error)
{
    static const uint8_t pixels[8 * 8 * 4] = {1, 2, 3, 4};
    zimage_image *image = NULL, *again = NULL;
    uint8_t *data = NULL;
    size_t size;
    zimage_status status = zimage_image_from_pixels(pixels, 8, 8, 32, 4, &image, error);
    if (status == ZIMAGE_OK)
        status =
            zimage_image_encode(image, ZIMAGE_FORMAT_PNG, &(zimage_text){"prompt", PROMPT}, 1, &data, &size, error);
    if (status == ZIMAGE_OK)
        status = zimage_image_decode(data, size, 0, &again, error);
    zimage_free(data);
    zimage_image_free(again);
    zimage_image_free(image);
    return status;
}

#define MFLUX ZIMAGE_TEST_DATA "/mlx/mflux"

static zimage_status expand_text_encoder(zimage_error *error)
{
    zi_store *store = NULL;
    zi_qwen3_config config;
    zi_qwen3 model = {0};
    zimage_status status = zi_qwen3_config_read(MFLUX "/text_encoder/config.json", NULL, &config, error);
    if (status == ZIMAGE_OK)
        status = zi_store_open(MFLUX "/text_encoder", "model", &store, NULL, error);
    if (status == ZIMAGE_OK) {
        zi_store_dequantize(store, ZI_BF16);
        status = zi_qwen3_bind(&model, &config, store, NULL, error);
    }
    zi_qwen3_free(&model);
    zi_store_free(store);
    return status;
}

/* Packed weights expanded, convolutions turned: what binding allocates. */
static zimage_status packed_job(const char *path, zimage_error *error)
{
    zi_store *store = NULL;
    zi_vae_config config;
    zi_vae model = {0};
    zimage_status status = expand_text_encoder(error);
    if (status == ZIMAGE_OK)
        status = zi_vae_config_read(MFLUX "/vae/config.json", NULL, &config, error);
    if (status == ZIMAGE_OK)
        status = zi_store_open(MFLUX "/vae", "diffusion_pytorch_model", &store, NULL, error);
    if (status == ZIMAGE_OK)
        status = zi_vae_bind(&model, &config, store, NULL, error);
    zi_vae_free(&model);
    zi_store_free(store);
    return status;
}

/* Counts allocations (n = LONG_MAX) or fails from, or at, the n-th. */
static zimage_status armed_job(zimage_status (*job)(const char *, zimage_error *), const char *path, long n,
                               zimage_error *error)
{
    error->message[0] = 0;
    calls = 0;
    countdown = n;
    armed = 1;
    zimage_status status = job(path, error);
    armed = 0;
    return status;
}

static void fail_each(const char *name, zimage_status (*job)(const char *, zimage_error *), int until_the_end)
{
    char path[] = "/tmp/zimage-allocations-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(job(path, &error), ZIMAGE_OK); /* warm: what libraries allocate once is not a leak */
    lasting = until_the_end;
    assert_int_equal(armed_job(job, path, LONG_MAX, &error), ZIMAGE_OK);
    long total = calls, failed = 0;
    for (long n = 1; n <= total; n++) {
        long before = live;
        zimage_status status = armed_job(job, path, n, &error);
        failed += status != ZIMAGE_OK;
        if (status != ZIMAGE_OK && !error.message[0])
            fail_msg("allocation %ld of %ld: an error without a sentence", n, total);
        if (live != before)
            fail_msg("allocation %ld of %ld: %ld blocks leaked (status %d: %s)", n, total, live - before, (int)status,
                     error.message);
    }
    printf("%s: %ld allocations, each failed in turn%s: %ld errors, %ld done without, nothing leaked\n", name, total,
           until_the_end ? " with all after it" : " alone", failed, total - failed);
    assert_true(failed > total / 2);
    unlink(path);
}

static void opening_and_generating(void **state)
{
    char folder[] = "/tmp/zimage-allocations-XXXXXX", command[128];
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1); /* the machine is measured once, and where reading that fails */
    fail_each("open, plan, generate, write", whole_job, 1);
    fail_each("open, plan, generate, write", whole_job, 0);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void packed_weights(void **state)
{
    fail_each("open packed weights", packed_job, 0);
}

static void inspecting(void **state)
{
    fail_each("inspect", inspect_job, 0);
}

static void images(void **state)
{
    fail_each("encode, decode", image_job, 1);
    fail_each("encode, decode", image_job, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(opening_and_generating), cmocka_unit_test(packed_weights),
                                       cmocka_unit_test(inspecting), cmocka_unit_test(images)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
