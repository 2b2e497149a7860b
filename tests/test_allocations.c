/*
 * Memory allocations fail in turn while a model is opened and an image is made and written. Every failure must come
 * back as an error (or be harmless), and nothing may leak. The functions here replace malloc and its sisters for all
 * libraries (jansson, PCRE2, libpng, ...), so the test needs glibc without a sanitizer's own allocator.
 *
 * Two ways to fail: one allocation alone, and one with all that follow it. Most allocations are those of loops, a node
 * of a JSON file for example. So of the allocations that one chain of calls makes, the 1st, 4th, 16th, ... fail in
 * turn; with --all every one of them, which takes eight times as long.
 */
#define ZIMAGE_EXPERIMENTAL
#include "model/qwen3.h"
#include "model/vae.h"
#include "support.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)

static void skipped(void **state)
{
    printf("skipped: a release build with glibc runs this; here the allocator is a sanitizer's, or not glibc's\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(skipped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *pointer);

/* Armed only around the work under test, on the only thread that runs then. */
static atomic_int armed;
static atomic_long live; /* blocks */

/*
 * Which allocations of an armed job fail. NONE: they are counted. IN_CHILDREN: at each allocation the process forks,
 * and in the child the allocation fails. So the job runs only once, and a child runs what follows a failure. ONE: the
 * n-th, for a job that writes a file: a child would remove the file that the parent still writes.
 */
static enum { NONE, IN_CHILDREN, ONE } mode;
static int lasting;  /* all allocations after the failing one fail, too */
static int in_child; /* of IN_CHILDREN */
static long calls, n_th;
static long tried;            /* allocations that failed in a child */
static long errors, harmless; /* children that ended with an error, and without */
static int all;               /* each allocation fails */
static char child_fault[64];  /* what the first other child did */

enum { CHILD_ERROR = 10, CHILD_HARMLESS = 11 }; /* exit codes */

/* In the parent: waits for the child, and counts how it ended. */
static void await(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    errors += code == CHILD_ERROR;
    harmless += code == CHILD_HARMLESS;
    if (code != CHILD_ERROR && code != CHILD_HARMLESS && !child_fault[0])
        snprintf(child_fault, sizeof child_fault, "allocation %ld: status %#x", calls, (unsigned)status);
}

/* Without cmocka's handlers, which would go on with the next test. */
static void default_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGABRT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_DFL);
}

#define CHAINS (1 << 15) /* a power of two, many more than a job has */
#define DEPTH  14        /* innermost calls of a chain, by which chains are told apart */

/* The chains of calls that have allocated, by their hash; a hash of 0: the place is free. */
static struct {
    uint64_t hash;
    long count;
} chains[CHAINS];

/* How often the present chain of calls has allocated, this time included. */
static long count_chain(void)
{
    void *addresses[DEPTH];
    int depth = backtrace(addresses, DEPTH);
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (int i = 0; i < depth; i++)
        hash = (hash ^ (uintptr_t)addresses[i]) * 0x100000001b3u;
    size_t place = hash >> 32;
    for (int i = 0; i < CHAINS; i++, place++) {
        if (chains[place % CHAINS].hash == 0)
            chains[place % CHAINS].hash = hash;
        if (chains[place % CHAINS].hash == hash)
            return ++chains[place % CHAINS].count;
    }
    return 1; /* the table is full */
}

static int is_tried(void)
{
    if (all)
        return 1;
    armed = 0;
    long count = count_chain();
    armed = 1;
    while (count % 4 == 0)
        count /= 4;
    return count == 1;
}

static int fails(void)
{
    if (mode != IN_CHILDREN)
        return mode == ONE && (calls == n_th || (calls > n_th && lasting));
    if (in_child)
        return lasting;
    if (!is_tried())
        return 0;
    tried++;
    armed = 0; /* what fork itself allocates */
    pid_t child = fork();
    armed = 1;
    in_child = child == 0;
    if (in_child)
        default_signals();
    else if (child > 0)
        await(child);
    else
        snprintf(child_fault, sizeof child_fault, "allocation %ld: fork failed", calls);
    return in_child;
}

static int must_fail(void)
{
    if (!armed)
        return 0;
    calls++;
    int now = fails();
    if (now)
        errno = ENOMEM;
    return now;
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

static int keep_going(const zimage_progress *progress, void *user)
{
    return 0;
}

#define PROMPT                                                                                                         \
    "a r\xc3\xa9"                                                                                                      \
    "d apple"

/* The image of the last open_and_generate in which no allocation failed; write_png writes it. */
static zimage_image *made;

/* An image that is changed, and its own mask; made before allocations are counted. */
static zimage_image *input;

static zimage_status plan_and_generate(zimage_session *session, zimage_image **image, zimage_error *error)
{
    const zimage_image *images[] = {input};
    zimage_request request = {.struct_size = sizeof request};
    zimage_plan *plan = NULL;
    request.images = images;
    request.image_count = 1;
    request.mask = input;
    request.prompt = PROMPT;
    request.guidance_scale = 2;
    request.width = request.height = 16;
    request.steps = 1;
    request.preview = 1;
    request.progress = keep_going;
    request.memory_limit = 1 << 30;
    zimage_status status = zimage_request_check(session, &request, error);
    if (status == ZIMAGE_OK)
        status = zimage_plan_make(session, &request, &plan, error);
    zimage_plan_free(plan);
    return status == ZIMAGE_OK ? zimage_generate(session, &request, image, error) : status;
}

/* The parts of the model are named one by one; a second session uses it, too; the model is closed first. */
static zimage_status open_sessions(zimage_session *opened[2], zimage_error *error)
{
    const zimage_model_params model_params = {.struct_size = sizeof model_params,
                                              .transformer = ZIMAGE_TEST_DATA "/tiny/transformer",
                                              .text_encoder = ZIMAGE_TEST_DATA "/tiny/text_encoder",
                                              .vae = ZIMAGE_TEST_DATA "/tiny/vae",
                                              .tokenizer = ZIMAGE_TEST_DATA "/tiny/tokenizer",
                                              .scheduler = ZIMAGE_TEST_DATA "/tiny-base/scheduler"};
    const zimage_session_params params = {
        .struct_size = sizeof params, .threads = 1, .cache_folder = getenv("XDG_CACHE_HOME")};
    zimage_model *model = NULL;
    zimage_status status = zimage_model_open(ZIMAGE_TEST_DATA "/tiny", &model_params, &model, error);
    for (int i = 0; i < 2 && status == ZIMAGE_OK; i++)
        status = zimage_session_open(model, &params, &opened[i], error);
    zimage_model_close(model);
    return status;
}

/* Opens, checks, plans, generates with guidance and a preview. */
static zimage_status open_and_generate(zimage_error *error)
{
    zimage_session *opened[2] = {NULL, NULL};
    zimage_image *image = NULL;
    zimage_status status = open_sessions(opened, error);
    if (status == ZIMAGE_OK)
        status = plan_and_generate(opened[0], &image, error);
    if (status == ZIMAGE_OK && mode == NONE) {
        zimage_image_free(made);
        made = image;
        image = NULL;
    }
    zimage_image_free(image);
    zimage_session_close(opened[0]);
    zimage_session_close(opened[1]);
    return status;
}

static char written[] = "/tmp/zimage-allocations-XXXXXX.png";

static zimage_status write_png(zimage_error *error)
{
    return zimage_image_write(made, written, &(zimage_text){"prompt", PROMPT}, 1, error);
}

static zimage_status inspect_job(zimage_error *error)
{
    zimage_inspection *inspection = NULL;
    zimage_status status = zimage_inspect(ZIMAGE_TEST_DATA "/tiny", &inspection, error);
    zimage_inspection_free(inspection);
    return status;
}

static zimage_status device_job(zimage_error *error)
{
    zimage_device_list *list = NULL;
    zimage_status status = zimage_devices("generic", &list, error);
    zimage_device_list_free(list);
    for (int i = 0; i < 2; i++)
        (void)dlerror(); /* the second call frees its text */
    return status;
}

static zimage_status token_job(zimage_error *error)
{
    zimage_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    size_t count;
    zimage_status status = zimage_tokenizer_open(ZIMAGE_TEST_DATA "/tiny", &tokenizer, error);
    if (status == ZIMAGE_OK)
        status =
            zimage_tokenizer_encode(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, PROMPT, strlen(PROMPT), &ids, &count, error);
    zimage_free(ids);
    zimage_tokenizer_close(tokenizer);
    return status;
}

/* A tensor to a file and back. */
static zimage_status tensor_job(zimage_error *error)
{
    static const float numbers[6] = {1, 2, 3, 4, 5, 6};
    const int64_t shape[2] = {2, 3};
    int64_t found[4];
    int32_t dimensions;
    float *again = NULL;
    zimage_status status = zimage_tensor_write(written, "numbers", numbers, shape, 2, error);
    if (status == ZIMAGE_OK)
        status = zimage_tensor_read(written, "numbers", &again, found, &dimensions, error);
    zimage_free(again);
    return status;
}

static zimage_status read_back(const uint8_t *data, size_t size, zimage_error *error)
{
    zimage_image *image = NULL;
    zimage_texts *texts = NULL;
    zimage_status status = zimage_image_decode(data, size, 0, &image, error);
    if (status == ZIMAGE_ERROR_FORMAT && strstr(error->message, "or memory is short")) /* libwebp does not know */
        status = error->status = ZIMAGE_ERROR_MEMORY;
    if (status == ZIMAGE_OK)
        status = zimage_texts_decode(data, size, &texts, error);
    zimage_texts_free(texts);
    zimage_image_free(image);
    return status;
}

static int image_quality;
static zimage_format image_format;

/* Pixels to a file in memory and back. Lossless WebP is not read: libwebp 1.2.4 crashes where one of two allocations of
 * its lossless decoder fails. */
static zimage_status image_job(zimage_error *error)
{
    static const uint8_t pixels[8 * 8 * 4] = {1, 2, 3, 4};
    const zimage_text text = {"parameters", PROMPT}; /* in XMP, and in EXIF */
    const zimage_save_params params = {
        .struct_size = sizeof params, .quality = image_quality, .texts = &text, .text_count = 1};
    zimage_image *image = NULL;
    uint8_t *data = NULL;
    size_t size;
    zimage_status status = zimage_image_from_pixels(pixels, 8, 8, 32, 4, &image, error);
    if (status == ZIMAGE_OK)
        status = zimage_image_encode_with(image, image_format, &params, &data, &size, error);
    if (status == ZIMAGE_OK && (image_format != ZIMAGE_FORMAT_WEBP || image_quality))
        status = read_back(data, size, error);
    zimage_free(data);
    zimage_image_free(image);
    return status;
}

/* Files that need more memory to read: with alpha, progressive, turned. */
static zimage_status golden_job(zimage_error *error)
{
    static const char *const names[] = {"png.rgba.file", "jpeg.cmyk_progressive.file", "jpeg.turned6.file"};
    zi_store *store = NULL;
    zimage_status status = zi_store_open_file(ZIMAGE_TEST_DATA "/images.safetensors", &store, error);
    for (size_t i = 0; i < sizeof names / sizeof *names && status == ZIMAGE_OK; i++) {
        const zi_weight *file = zi_store_find(store, names[i]);
        status = read_back(file->data, file->bytes, error);
    }
    zi_store_free(store);
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

/* Packed weights expanded, convolutions turned: what binding allocates, and the first image that is encoded. */
static zimage_status packed_job(zimage_error *error)
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
    if (status == ZIMAGE_OK)
        status = zi_store_copy_late(store, error);
    zi_vae_free(&model);
    zi_store_free(store);
    return status;
}

/* Folders of FLUX.2-klein: the model's, and those of the parts that mflux packed, or NULL. */
typedef struct klein_folders {
    const char *model, *transformer, *vae;
} klein_folders;

static klein_folders klein;

/* An image from two references, the first of which is repainted. */
static zimage_status klein_job(zimage_error *error)
{
    const zimage_model_params model_params = {
        .struct_size = sizeof model_params, .transformer = klein.transformer, .vae = klein.vae};
    const zimage_session_params params = {.struct_size = sizeof params, .threads = 1};
    const zimage_image *images[] = {input, input};
    zimage_request request = {.struct_size = sizeof request, .prompt = PROMPT, .width = 16, .height = 16, .steps = 1};
    zimage_model *model = NULL;
    zimage_session *session = NULL;
    zimage_image *image = NULL;
    request.images = images;
    request.image_count = 2;
    request.mask = input;
    zimage_status status = zimage_model_open(klein.model, &model_params, &model, error);
    if (status == ZIMAGE_OK)
        status = zimage_session_open(model, &params, &session, error);
    if (status == ZIMAGE_OK)
        status = zimage_generate(session, &request, &image, error);
    zimage_image_free(image);
    zimage_session_close(session);
    zimage_model_close(model);
    return status;
}

/* Stores that share: other files to compare with, and a file that is open already. */
static zimage_status sharing_job(zimage_error *error)
{
    static const char *const files[][2] = {
        {MFLUX "/text_encoder", "model"}, {MFLUX "/vae", "diffusion_pytorch_model"}, {MFLUX "/text_encoder", "model"}};
    zi_store *stores[3] = {NULL};
    zimage_status status = ZIMAGE_OK;
    for (int i = 0; i < 3 && status == ZIMAGE_OK; i++) {
        status = zi_store_open(files[i][0], files[i][1], &stores[i], NULL, error);
        if (status == ZIMAGE_OK)
            status = zi_store_share(stores[i], error);
    }
    for (int i = 0; i < 3; i++)
        zi_store_free(stores[i]);
    return status;
}

#define FLUX2_VAE ZIMAGE_TEST_DATA "/vae-flux2"

static zimage_status there_and_back(const zi_vae *model, zimage_error *error)
{
    static const uint8_t image[8 * 16 * 3];
    zi_run run = {.error = error};
    float moments[6 * 2 * 4], latents[12 * 1 * 2];
    uint8_t rgb8[sizeof image];
    ZI_TRY(zi_ops_reference_new(&run.ops, error));
    zimage_status status = zi_vae_encode(model, &run, image, 8, 16, 0, moments);
    if (status == ZIMAGE_OK) {
        zi_vae_latents(model, moments, NULL, 2, 4, latents);
        status = zi_vae_decode(model, &run, latents, 1, 2, 0, &(zi_vae_output){.rgb8 = rgb8});
    }
    zi_table(&run)->free(run.ops);
    return status;
}

/* The VAE of FLUX.2, whose statistics are copied when it is bound, in both directions. */
static zimage_status vae_job(zimage_error *error)
{
    zi_store *store = NULL;
    zi_vae_config config;
    zi_vae model = {0};
    zimage_status status = zi_vae_flux2_config_read(FLUX2_VAE "/config.json", NULL, &config, error);
    if (status == ZIMAGE_OK)
        status = zi_store_open(FLUX2_VAE, "diffusion_pytorch_model", &store, NULL, error);
    if (status == ZIMAGE_OK)
        status = zi_vae_bind(&model, &config, store, NULL, error);
    if (status == ZIMAGE_OK)
        status = there_and_back(&model, error);
    zi_vae_free(&model);
    zi_store_free(store);
    return status;
}

typedef zimage_status job_fn(zimage_error *error);

static zimage_status armed_job(job_fn *job, zimage_error *error)
{
    error->message[0] = 0;
    calls = 0;
    armed = 1;
    zimage_status status = job(error);
    armed = 0;
    return status;
}

/* What is wrong with the way in which a job ended; NULL: nothing. */
static const char *fault_of(zimage_status status, const zimage_error *error, long leaked)
{
    if (status != ZIMAGE_OK && (status != ZIMAGE_ERROR_MEMORY || error->status != status || !error->message[0]))
        return "another error, or one without a sentence";
    return leaked ? "leaked blocks" : NULL;
}

/* Runs the job once; its allocations fail in a child each. */
static void fail_in_children(const char *name, job_fn *job)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    fflush(stdout); /* else children would write it again */
    errors = harmless = tried = child_fault[0] = 0;
    memset(chains, 0, sizeof chains);
    mode = IN_CHILDREN;
    long before = live;
    zimage_status status = armed_job(job, &error);
    const char *fault = fault_of(status, &error, live - before);
    if (in_child) {
        if (fault)
            fprintf(stderr, "%s: allocation %ld: %s (%ld blocks; status %d: %s)\n", name, calls, fault, live - before,
                    (int)status, error.message);
        _exit(fault ? 1 : status != ZIMAGE_OK ? CHILD_ERROR : CHILD_HARMLESS);
    }
    mode = NONE;
    assert_int_equal(status, ZIMAGE_OK);
    assert_null(fault);
    if (child_fault[0])
        fail_msg("%s: %s", name, child_fault);
    assert_int_equal(errors + harmless, tried);
}

/* Runs the job once for each of its allocations. */
static void fail_in_turn(const char *name, job_fn *job)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(armed_job(job, &error), ZIMAGE_OK);
    long total = calls;
    errors = 0;
    mode = ONE;
    for (n_th = 1; n_th <= total; n_th++) {
        long before = live;
        zimage_status status = armed_job(job, &error);
        const char *fault = fault_of(status, &error, live - before);
        if (fault)
            fail_msg("%s: allocation %ld: %s (%ld blocks; status %d: %s)", name, n_th, fault, live - before,
                     (int)status, error.message);
        errors += status != ZIMAGE_OK;
    }
    mode = NONE;
    calls = tried = total;
}

/* least: of 100 allocations, so many end in an error; libraries do without some. */
static void fail_each(const char *name, job_fn *job, int writes, int and_all_after, long least)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(job(&error), ZIMAGE_OK); /* what libraries allocate once and keep is not a leak */
    lasting = and_all_after;
    if (writes)
        fail_in_turn(name, job);
    else
        fail_in_children(name, job);
    printf("%s: of %ld allocations %ld failed in turn%s: %ld errors, %ld done without, nothing leaked\n", name, calls,
           tried, lasting ? " with all after it" : " alone", errors, tried - errors);
    assert_true(errors * 100 >= tried * least);
}

static void opening_and_generating(void **state)
{
    char folder[] = "/tmp/zimage-allocations-XXXXXX", command[128];
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1); /* the machine is measured once, and where reading that fails */
    uint8_t pixels[20 * 30 * 3] = {0};
    memset(pixels, 255, sizeof pixels / 2);
    assert_int_equal(zimage_image_from_pixels(pixels, 20, 30, 60, 3, &input, NULL), ZIMAGE_OK);
    for (int and_all_after = 0; and_all_after < 2; and_all_after++)
        fail_each("open, plan, generate", open_and_generate, 0, and_all_after, and_all_after ? 100 : 90);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void writing(void **state)
{
    int file = mkstemps(written, 4);
    assert_true(file >= 0);
    close(file);
    for (int and_all_after = 0; and_all_after < 2; and_all_after++) {
        fail_each("write", write_png, 1, and_all_after, 80);
        fail_each("write and read a tensor", tensor_job, 1, and_all_after, 80);
    }
    unlink(written);
    zimage_image_free(made);
    zimage_image_free(input);
}

static void packed_weights(void **state)
{
    fail_each("open packed weights", packed_job, 0, 0, 90);
}

static void shared_weights(void **state)
{
    fail_each("share weights", sharing_job, 0, 0, 90);
}

static void a_vae(void **state)
{
    fail_each("encode and decode with a VAE", vae_job, 0, 0, 90);
}

static void klein_models(void **state)
{
    static uint8_t pixels[64 * 64 * 3];
    char kv[] = "/tmp/zimage-allocations-XXXXXX", command[512];
    assert_non_null(mkdtemp(kv));
    snprintf(command, sizeof command,
             "cp -r '%s/tiny-klein/.' '%s' && sed -i s/KleinPipeline/KleinKVPipeline/ '%s/model_index.json'",
             ZIMAGE_TEST_DATA, kv, kv);
    assert_int_equal(system(command), 0);
    memset(pixels, 255, sizeof pixels / 2);
    assert_int_equal(zimage_image_from_pixels(pixels, 64, 64, sizeof pixels / 64, 3, &input, NULL), ZIMAGE_OK);
    klein = (klein_folders){.model = kv};
    fail_each("FLUX.2-klein, KV", klein_job, 0, 0, 90);
    klein = (klein_folders){.model = ZIMAGE_TEST_DATA "/tiny-klein",
                            .transformer = ZIMAGE_TEST_DATA "/mlx/klein/transformer",
                            .vae = ZIMAGE_TEST_DATA "/mlx/klein/vae"};
    fail_each("FLUX.2-klein, packed", klein_job, 0, 1, 100);
    zimage_image_free(input);
    snprintf(command, sizeof command, "rm -r '%s'", kv);
    assert_int_equal(system(command), 0);
}

static void inspecting(void **state)
{
    fail_each("inspect", inspect_job, 0, 0, 80);
}

static void images(void **state)
{
    static const struct {
        const char *name;
        zimage_format format;
        int quality;
    } cases[] = {{"PNG", ZIMAGE_FORMAT_PNG, 0},
                 {"JPEG", ZIMAGE_FORMAT_JPEG, 90},
                 {"lossless WebP", ZIMAGE_FORMAT_WEBP, 0},
                 {"lossy WebP", ZIMAGE_FORMAT_WEBP, 90}};
    for (int and_all_after = 0; and_all_after < 2; and_all_after++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            image_format = cases[i].format;
            image_quality = cases[i].quality;
            fail_each(cases[i].name, image_job, 0, and_all_after, 80);
        }
        fail_each("decode", golden_job, 0, and_all_after, 80);
    }
}

static void tokens(void **state)
{
    fail_each("tokenize", token_job, 0, 0, 90);
}

/* The dynamic loader does without most of its own allocations. */
static void devices(void **state)
{
    for (int and_all_after = 0; and_all_after < 2; and_all_after++)
        fail_each("devices", device_job, 0, and_all_after, 10);
}

/* test_allocations [--all] */
int main(int argc, char **argv)
{
    void *address;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_and_generating),
        cmocka_unit_test(writing),
        cmocka_unit_test(packed_weights),
        cmocka_unit_test(shared_weights),
        cmocka_unit_test(a_vae),
        cmocka_unit_test(klein_models),
        cmocka_unit_test(inspecting),
        cmocka_unit_test(images),
        cmocka_unit_test(tokens),
        cmocka_unit_test(devices),
    };
    all = argc > 1 && strcmp(argv[1], "--all") == 0;
    (void)backtrace(&address, 1); /* the first call loads a library */
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
