/* Running the program as a user does, and spoiling copies of the tiny model. */
#ifndef ZI_TESTS_PROGRAM_H
#define ZI_TESTS_PROGRAM_H

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "change_json.h"
#include "support.h"

/* A fresh temporary folder; shared by one test program, removed by folder_remove. */
static char test_folder[64];

static inline void run_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline void run_shell(const char *format, ...)
{
    char command[3 * PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    if (system(command) != 0)
        fail_msg("%s failed", command);
}

static inline int folder_make(void **state)
{
    strcpy(test_folder, "/tmp/zimage-test-XXXXXX");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int folder_remove(void **state)
{
    run_shell("rm -rf '%s'", test_folder);
    return 0;
}

/* test_folder/NAME, in one of a few rotating buffers. */
static inline const char *in_folder(const char *name)
{
    static char paths[8][PATH_MAX];
    static int next;
    char *path = paths[next++ & 7];
    snprintf(path, PATH_MAX, "%s/%s", test_folder, name);
    return path;
}

static inline int count_files(const char *folder)
{
    int count = 0;
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

typedef struct outcome {
    int code; /* exit code, or 128 + signal */
    char out[65536], err[65536];
} outcome;

static inline void read_text(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t length = fread(text, 1, size - 1, file);
    text[length] = 0;
    fclose(file);
}

/* Starts the program with the arguments (NULL-terminated) in test_folder; stdout and stderr go to files there. */
static inline pid_t start_program(const char *const *arguments)
{
    const char *argv[64] = {ZIMAGE_PROGRAM};
    for (int i = 0; arguments[i]; i++)
        argv[i + 1] = arguments[i];
    char out[PATH_MAX + 16], err[PATH_MAX + 16];
    snprintf(out, sizeof out, "%s.out", test_folder);
    snprintf(err, sizeof err, "%s.err", test_folder);
    pid_t child = fork();
    if (child == 0) {
        if (chdir(test_folder) != 0 || !freopen(out, "wb", stdout) || !freopen(err, "wb", stderr))
            _exit(126);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    assert_true(child > 0);
    return child;
}

static inline void finish_program(pid_t child, outcome *o)
{
    char path[PATH_MAX + 16];
    int status;
    assert_true(waitpid(child, &status, 0) == child);
    o->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    snprintf(path, sizeof path, "%s.out", test_folder);
    read_text(path, o->out, sizeof o->out);
    unlink(path);
    snprintf(path, sizeof path, "%s.err", test_folder);
    read_text(path, o->err, sizeof o->err);
    unlink(path);
}

static inline void run_program(const char *const *arguments, outcome *o)
{
    finish_program(start_program(arguments), o);
}

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Of the test's folder; released with zimage_image_free. */
static inline zimage_image *read_image(const char *name)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    if (zimage_image_read(in_folder(name), NULL, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

static inline int has_file(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

/* Expects failure: exit code non-zero (not a crash), one sentence on stderr with both words, no file made. */
static inline void expect_refusal(const char *const *arguments, outcome *o, const char *word1, const char *word2)
{
    int before = count_files(test_folder);
    run_program(arguments, o);
    if (o->code == 0 || o->code >= 126)
        fail_msg("exit code %d, expected a refusal; stderr: %s", o->code, o->err);
    if (!strstr(o->err, word1) || !strstr(o->err, word2))
        fail_msg("expected \"%s\" and \"%s\" in: %s", word1, word2, o->err);
    assert_int_equal(count_files(test_folder), before);
}

/* Writes a text file in test_folder. */
static inline void put_file(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Replaces a text in a file, wherever it stands there. Other bytes stay as they are, also in files that are no text. */
static inline void replace_text(const char *path, const char *from, const char *to)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file), replaced = 0;
    char *bytes = malloc(size);
    rewind(file);
    assert_int_equal(fread(bytes, 1, size, file), size);
    fclose(file);
    file = fopen(path, "wb");
    assert_non_null(file);
    const char *at = bytes, *end = bytes + size, *found;
    for (; (found = memmem(at, (size_t)(end - at), from, strlen(from))); at = found + strlen(from)) {
        fwrite(at, 1, (size_t)(found - at), file);
        fwrite(to, 1, strlen(to), file);
        replaced++;
    }
    fwrite(at, 1, (size_t)(end - at), file);
    assert_int_equal(fclose(file), 0);
    free(bytes);
    assert_true(replaced > 0);
}

/* Makes a file of the model shorter. */
static inline void cut_file(const char *model, const char *name, long long bytes)
{
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", model, name);
    assert_int_equal(truncate(path, (off_t)bytes), 0);
}

/* Writes an image in test_folder, in the format of its extension: a gradient, or for a mask a white left half. */
static inline void put_picture(const char *name, int32_t width, int32_t height, int is_mask)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    uint8_t *pixels = malloc((size_t)width * (size_t)height * 3);
    assert_non_null(pixels);
    for (int32_t i = 0; i < width * height; i++) {
        int32_t x = i % width, y = i / width;
        const uint8_t rgb[3] = {(uint8_t)(x * 255 / width), (uint8_t)(y * 255 / height), (uint8_t)(x * y)};
        for (int c = 0; c < 3; c++)
            pixels[3 * i + c] = is_mask ? (x < width / 2 ? 255 : 0) : rgb[c];
    }
    if (zimage_image_from_pixels(pixels, width, height, (size_t)width * 3, 3, &image, &error) != ZIMAGE_OK ||
        zimage_image_write(image, in_folder(name), NULL, 0, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_image_free(image);
    free(pixels);
}

/* A fresh copy of the tiny model as test_folder/NAME. */
static inline const char *copy_model(const char *name)
{
    run_shell("rm -rf '%s/%s' && cp -r '%s/tiny' '%s/%s'", test_folder, name, ZIMAGE_TEST_DATA, test_folder, name);
    return in_folder(name);
}

/* Sets FIELD of a JSON file to the value written as JSON; NULL removes it. */
static inline void spoil_json(const char *model, const char *file, const char *field, const char *value)
{
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", model, file);
    change_json(path, path, field, value);
}

/* A packed model's folder as its maker leaves it, with the tokenizer (and what else it lacks) of the tiny model. */
static inline const char *packed_model(const char *layout)
{
    const char *vae = strcmp(layout, "mflux") ? "vae" : "";
    run_shell("rm -rf '%s/%s' && cp -r '%s/mlx/%s' '%s/%s'", test_folder, layout, ZIMAGE_TEST_DATA, layout, test_folder,
              layout);
    run_shell("cd '%s/tiny' && cp -r tokenizer %s '%s/%s'", ZIMAGE_TEST_DATA, vae, test_folder, layout);
    return in_folder(layout);
}

/* Weights of the tiny model that spoil the block of that name when their first number becomes the value. */
static const struct {
    const char *file, *tensor, *block;
    float value;
} spoiled[] = {
    {"transformer/diffusion_pytorch_model.safetensors", "layers.1.attention.to_v.weight", "layers.1", NAN},
    {"transformer/diffusion_pytorch_model.safetensors", "noise_refiner.0.feed_forward.w2.weight", "noise_refiner.0",
     INFINITY},
    {"transformer/diffusion_pytorch_model.safetensors", "context_refiner.0.attention.to_q.weight", "context_refiner.0",
     NAN},
    {"text_encoder/model.safetensors", "model.layers.1.mlp.down_proj.weight", "layers.1", NAN},
    {"vae/diffusion_pytorch_model.safetensors", "decoder.up_blocks.1.resnets.0.conv1.weight", "up_blocks.1", NAN},
};

#define SPOILED (sizeof spoiled / sizeof *spoiled)

/* Overwrites the first element of a float32 tensor in a safetensors file. */
static inline void spoil_weight(const char *model, const char *file, const char *tensor, float value)
{
    char path[2 * PATH_MAX];
    uint64_t length;
    snprintf(path, sizeof path, "%s/%s", model, file);
    FILE *stream = fopen(path, "r+b");
    assert_non_null(stream);
    assert_int_equal(fread(&length, 8, 1, stream), 1);
    char *header = malloc(length);
    assert_int_equal(fread(header, 1, length, stream), length);
    json_t *object = json_loadb(header, length, 0, NULL);
    json_t *offsets = json_object_get(json_object_get(object, tensor), "data_offsets");
    assert_non_null(offsets);
    fseek(stream, (long)(8 + length + (uint64_t)json_integer_value(json_array_get(offsets, 0))), SEEK_SET);
    assert_int_equal(fwrite(&value, sizeof value, 1, stream), 1);
    fclose(stream);
    json_decref(object);
    free(header);
}

#endif
