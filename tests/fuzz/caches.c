/*
 * Files of the cache folder, which any process of the user may have written: the machine's speeds (machine.json), and
 * the algorithms that were measured to be fastest on a GPU. A text that begins with '{' is the former.
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/choices.h"
#include "fuzz.h"
#include "ops/ops_count.h"
#include "ops/speed.h"

#define THREADS     1
#define TRIALS      1000
#define KEY         "KEY" /* in an input: the key of this machine */
#define HEADER      "GPU" /* the first line of the other file */
#define VALUE_BYTES 16

/* ---- speeds ------------------------------------------------------------------------------------------------------ */

static char *machine_key; /* as JSON, without the quotation marks */

static void get_speed(zi_speed *speed)
{
    zi_ops *ops = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zi_ops_count_new(&ops, &error) != ZIMAGE_OK ||
        zi_speed_get(ops, THREADS, zi_fuzz_folder_path(), speed, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    ops->table->free(ops);
}

/* Learns the key from the file that the library writes. Counting takes so little time that some measurements are not
 * believed, and not written. */
static void prepare(void)
{
    zi_speed speed;
    const char *key = NULL;
    json_t *all = NULL, *entry;
    zi_fuzz_clear();
    for (int i = 0; i < TRIALS && !all; i++) {
        get_speed(&speed);
        all = json_load_file(zi_fuzz_path("machine.json"), 0, NULL);
    }
    json_object_foreach(all, key, entry)
    {
        json_t *text = json_string(key);
        machine_key = json_dumps(text, JSON_ENCODE_ANY);
        json_decref(text);
    }
    json_decref(all);
    if (!machine_key)
        zi_fuzz_fail("machine.json was not written");
}

/* The input with the key of this machine in the place of "KEY", quotation marks included. */
static void write_speeds(const uint8_t *data, size_t size)
{
    static const char placeholder[] = "\"" KEY "\"";
    const size_t length = sizeof placeholder - 1;
    const uint8_t *place = memmem(data, size, placeholder, length);
    char *text = malloc(size + strlen(machine_key) + 1);
    if (!text)
        zi_fuzz_fail("out of memory");
    size_t before = place ? (size_t)(place - data) : size, used = before;
    memcpy(text, data, before);
    if (place) {
        memcpy(text + used, machine_key, strlen(machine_key));
        used += strlen(machine_key);
        memcpy(text + used, place + length, size - before - length);
        used += size - before - length;
    }
    zi_fuzz_write("machine.json", text, used);
    free(text);
}

static void run_speeds(const uint8_t *data, size_t size)
{
    const zi_counts counts = {.linear_flops = 1e15, .attention_flops = 1e14, .conv_flops = 1e14, .unpacked = 1e12};
    zi_speed speed;
    write_speeds(data, size);
    get_speed(&speed);
    double seconds = zi_speed_seconds(&speed, &counts);
    seconds += zi_speed_divided(&speed, &counts, 4, &(zi_traffic){.exchanges = 1000, .bytes = (uint64_t)1 << 40});
    if (!isfinite(seconds) || seconds < 0)
        zi_fuzz_fail("%g s are predicted", seconds);
}

/* ---- algorithms -------------------------------------------------------------------------------------------------- */

static void run_choices(const uint8_t *data, size_t size)
{
    static const char key[] = "key";
    uint8_t value[VALUE_BYTES], again[VALUE_BYTES];
    zi_choices choices;
    zi_choices_open(&choices, zi_fuzz_folder_path(), "cuda", HEADER);
    zi_fuzz_write(strrchr(zi_choices_path(&choices), '/') + 1, data, size);
    zi_choices_close(&choices);
    zi_choices_open(&choices, zi_fuzz_folder_path(), "cuda", HEADER);
    for (size_t bytes = 1; bytes <= sizeof value; bytes *= 4) {
        (void)zi_choices_recall(&choices, "product", key, 1, value, bytes);
        (void)zi_choices_recall(&choices, "gated", key, 3, value, bytes);
    }
    memset(value, 7, sizeof value);
    zi_choices_remember(&choices, "product", key, 3, value, sizeof value);
    zi_choices_close(&choices);
    zi_choices_open(&choices, zi_fuzz_folder_path(), "cuda", HEADER);
    if (!zi_choices_recall(&choices, "product", key, 3, again, sizeof again) || memcmp(value, again, sizeof again) != 0)
        zi_fuzz_fail("what was remembered is not recalled");
    zi_choices_close(&choices);
}

static int run(const uint8_t *data, size_t size)
{
    zi_fuzz_clear();
    if (size > 0 && data[0] == '{')
        run_speeds(data, size);
    else
        run_choices(data, size);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_caches = {
    .name = "caches", .prepare = prepare, .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_json)};
