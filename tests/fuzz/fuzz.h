/*
 * Fuzz targets: what strangers may give to the program, from files to texts. driver.c makes a libFuzzer program of each
 * (-DZIMAGE_FUZZ=ON), and of all together one program that replays files, for CI.
 */
#ifndef ZI_TESTS_FUZZ_FUZZ_H
#define ZI_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#define ZI_FUZZ_KEEP    0  /* results of run */
#define ZI_FUZZ_DISCARD -1 /* the input says nothing about the library: libFuzzer does not keep it */

/* Changes `size` bytes in place, in a buffer of `capacity` bytes; returns the new size. The seed is the only chance. */
typedef size_t zi_fuzz_mutator(uint8_t *data, size_t size, size_t capacity, unsigned seed);

typedef struct zi_fuzz_target {
    const char *name;
    void (*prepare)(void); /* called once, before the first run; NULL: nothing to do */
    int (*run)(const uint8_t *data, size_t size);
    zi_fuzz_mutator *mutate; /* NULL: bytes are changed anywhere */
} zi_fuzz_target;

extern const zi_fuzz_target zi_fuzz_base64, zi_fuzz_batch, zi_fuzz_caches, zi_fuzz_chat, zi_fuzz_fields, zi_fuzz_folder,
    zi_fuzz_form, zi_fuzz_generate, zi_fuzz_hub, zi_fuzz_image, zi_fuzz_policy, zi_fuzz_recipe, zi_fuzz_route,
    zi_fuzz_safetensors, zi_fuzz_text, zi_fuzz_tokenizer, zi_fuzz_words;

/* ---- driver.c ---- */

/* Ends the process with a sentence, which libFuzzer reports as a crash: a promise of the library is broken. */
void zi_fuzz_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* What the library said of the input; printed where single files are replayed. */
void zi_fuzz_note(const char *message);
/* The folder of this process for files, in memory where the system can. It is removed when the process ends. */
const char *zi_fuzz_folder_path(void);
/* The path of `name` in it; valid until the eighth call after this one. */
const char *zi_fuzz_path(const char *name);
/* Writes a file there. Missing folders of its name are made. */
void zi_fuzz_write(const char *name, const void *data, size_t size);
/* Removes what the folder holds. */
void zi_fuzz_clear(void);

/* ---- container.c ----
 *
 * Several files as one: for each its name, a zero byte, its length in decimal, a line feed, its bytes.
 */

typedef struct zi_fuzz_file {
    const char *name; /* a path without "..", below some folder */
    const uint8_t *data;
    size_t size;
} zi_fuzz_file;

#define ZI_FUZZ_FILES_MAX 32

/* Finds the files; returns how many. They point into data. What is malformed ends the list. */
size_t zi_fuzz_files(const uint8_t *data, size_t size, zi_fuzz_file files[ZI_FUZZ_FILES_MAX]);
/* Reads the model folders tests/fuzz/toy and toy-klein, which containers then change. Once. */
void zi_fuzz_load_base(void);
/* Whether the files change toy-klein, FLUX.2-klein, and not toy, a Z-Image: a file "@klein" says so. */
int zi_fuzz_is_klein(const zi_fuzz_file *files, size_t count);
/* The files of the folder; none if it was not loaded. */
size_t zi_fuzz_base(int klein, const zi_fuzz_file **files);
/*
 * zi_fuzz_files, and the files of their folder whose names are not among them. A file without bytes says that the
 * folder lacks this file.
 */
size_t zi_fuzz_model_files(const uint8_t *data, size_t size, zi_fuzz_file files[ZI_FUZZ_FILES_MAX]);
/* The file of that name; NULL: there is none. */
const zi_fuzz_file *zi_fuzz_find(const zi_fuzz_file *files, size_t count, const char *name);
/* Writes the files to the folder of this process, except those whose name begins with '@': they are for the target. */
void zi_fuzz_write_all(const zi_fuzz_file *files, size_t count);

/* ---- mutate.c: mutators that keep what they change readable, so that it is not refused at the first look ----
 *
 * Only in libFuzzer's programs. ZI_FUZZ_MUTATOR(f) is f there, and NULL in the program that replays.
 */
#ifdef ZI_FUZZ_TARGET
#define ZI_FUZZ_MUTATOR(f) f
#else
#define ZI_FUZZ_MUTATOR(f) NULL
#endif

zi_fuzz_mutator zi_fuzz_mutate_json, zi_fuzz_mutate_lines, zi_fuzz_mutate_safetensors, zi_fuzz_mutate_image,
    zi_fuzz_mutate_container;

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity); /* of libFuzzer */

/* ---- toy.c ---- */

/*
 * Writes weights into the model folder of this process, for each component that has a configuration and no file of
 * weights: the tensors that the configuration asks for, so that odd configurations are opened and run, too. The files
 * "@text_encoder", "@transformer" and "@vae" hold changes to them: 4 bytes each. 0: the model would be too large.
 */
int zi_fuzz_write_weights(const zi_fuzz_file *files, size_t count);

#endif
