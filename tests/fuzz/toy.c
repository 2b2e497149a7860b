#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/numbers.h"
#include "fuzz.h"
#include "pipeline/family.h"
#include "weights/layout.h"
#include "weights/memory.h"

#define MOST_NUMBERS  1000000 /* of a component */
#define MOST_TENSORS  600
#define NAME_BYTES    256
#define CHANGE_BYTES  4
#define ALL_TENSORS   255 /* selects all of them */
#define WORD_BITS     32
#define CONV_DIMS     4
#define DATA_CAPACITY ((size_t)8 << 20)
#define KLEIN_LAYOUTS 128 /* this bit chooses among the layouts of FLUX.2 */

/* ---- what is written --------------------------------------------------------------------------------------------- */

typedef struct toy_tensor {
    char name[NAME_BYTES];
    const char *dtype;
    int dims;
    int64_t shape[5];
    int64_t shift;    /* added to data_offsets: makes them wrong */
    int value, where; /* a number that stands in the data; 0: none */
    int absent;
} toy_tensor;

typedef struct toy_file {
    toy_tensor tensors[3 * MOST_TENSORS]; /* packed matrices take three */
    size_t count;
    int shards; /* 1: two files and an index */
} toy_file;

static const char *const dtypes[] = {"F32", "F16", "BF16", "U32", "U8", "I64", "F8_E4M3", "BOOL", "F64", "X"};

static size_t dtype_bytes(const char *dtype)
{
    switch (dtype[strlen(dtype) - 1]) {
    case '2':
        return 4;
    case '4':
        return 8;
    case '6':
        return 2;
    default:
        return 1;
    }
}

static int64_t count_of(const toy_tensor *t)
{
    int64_t count = 1;
    for (int i = 0; i < t->dims; i++)
        if (__builtin_mul_overflow(count, t->shape[i], &count) || count < 0 || count > MOST_NUMBERS)
            return MOST_NUMBERS + 1;
    return count;
}

static size_t bytes_of(const toy_tensor *t)
{
    return (size_t)count_of(t) * dtype_bytes(t->dtype);
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

/* A matrix becomes words, scales and biases, as MLX's quantiser writes them. */
static void pack_matrix(toy_file *file, toy_tensor *t, int bits, int group)
{
    char *ending = strrchr(t->name, '.');
    if (t->dims != 2 || t->shape[1] % group != 0 || !ending || strcmp(ending, ".weight") != 0 ||
        file->count + 2 > sizeof file->tensors / sizeof *file->tensors)
        return;
    for (int i = 0; i < 2; i++) {
        toy_tensor *beside = &file->tensors[file->count++];
        *beside = *t;
        snprintf(beside->name, sizeof beside->name, "%.*s%s", (int)(ending - t->name), t->name,
                 i ? ".biases" : ".scales");
        beside->shape[1] = t->shape[1] / group;
    }
    t->dtype = "U32";
    t->shape[1] = t->shape[1] * bits / WORD_BITS;
}

/* The names of another layout (weights/layout.h); with convolutions as it has them. */
static void rename_all(toy_file *file, int which)
{
    static const char *const signs[] = {"cap_embedder.layers.0.weight", "all_final_layer.2-1.adaLN_modulation.0.weight",
                                        "decoder.conv_in.conv.weight", "time_guidance_embed.linear_1.weight",
                                        "decoder.mid_block.attentions.0.to_out.weight"};
    const zi_entry sign = {.weight = {.name = signs[which & KLEIN_LAYOUTS ? 3 + which % 2 : which % 3]}};
    const zi_layout *layout = zi_layout_detect(&sign, 1);
    for (size_t i = 0; i < file->count; i++) {
        toy_tensor *t = &file->tensors[i];
        char name[NAME_BYTES];
        zi_layout_name(layout, t->name, name, sizeof name);
        memcpy(t->name, name, sizeof name);
        if (zi_layout_channels_last(layout) && t->dims == CONV_DIMS) {
            int64_t in = t->shape[1];
            t->shape[1] = t->shape[2];
            t->shape[2] = t->shape[3];
            t->shape[3] = in;
        }
    }
}

static void change_tensor(toy_file *file, toy_tensor *t, const uint8_t change[CHANGE_BYTES])
{
    static const int bits[] = {4, 8, 2, 3, 5, 6, 1, 7};
    int a = change[2], b = change[3];
    size_t length = strlen(t->name);
    switch (change[0] % 9) {
    case 0:
        t->dtype = dtypes[(size_t)a % (sizeof dtypes / sizeof *dtypes)];
        break;
    case 1:
        t->absent = 1;
        break;
    case 2:
        snprintf(t->name + length / 2, sizeof t->name - length / 2, "%c%d", a, b);
        break;
    case 3:
        t->shape[a % 4] = a & 64 ? (int64_t)b << 40 : b;
        break;
    case 4:
        t->value = a;
        t->where = b;
        break;
    case 5:
        t->dims = a % 6 < 5 ? a % 6 : t->dims;
        t->shape[4] = b % 3;
        break;
    case 6:
        pack_matrix(file, t, bits[a % 8], 32 << b % 3);
        break;
    case 7:
        t->shift = a - 128;
        break;
    default:
        snprintf(t->name, sizeof t->name, "%s", file->tensors[(size_t)(a + b) % file->count].name);
        break;
    }
}

static void change_file(toy_file *file, const zi_fuzz_file *changes)
{
    for (size_t at = 0; changes && at + CHANGE_BYTES <= changes->size && file->count > 0; at += CHANGE_BYTES) {
        const uint8_t *change = changes->data + at;
        size_t count = file->count;
        if (change[0] == 'L')
            rename_all(file, change[2]);
        else if (change[0] == 'S')
            file->shards = 1;
        else
            for (size_t i = 0; i < count; i++)
                if (change[1] == ALL_TENSORS || change[1] == i % ALL_TENSORS)
                    change_tensor(file, &file->tensors[i], change);
    }
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* A number as its first bytes are stored in the type. */
static void put_number(uint8_t *to, const char *dtype, float number)
{
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint16_t half = (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 13) & 0x7fff)); /* with another exponent */
    half = fabsf(number) > 1e-4f && fabsf(number) < 60000 ? (uint16_t)(half - (112 << 10)) : half;
    if (strcmp(dtype, "F32") == 0)
        memcpy(to, &bits, 4);
    else if (strcmp(dtype, "F16") == 0)
        memcpy(to, &half, 2);
    else if (strcmp(dtype, "BF16") == 0)
        memcpy(to, (const uint16_t[]){(uint16_t)(bits >> 16)}, 2);
    else
        to[0] = (uint8_t)(bits >> 13);
}

#define PATTERN 509 /* numbers that repeat: to make each one would take longer than all else */

static void fill(uint8_t *data, const toy_tensor *t, uint64_t *state)
{
    static const float values[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-40f, 0, -0.0f, 65504, 1e20f, 1, -1};
    size_t size = dtype_bytes(t->dtype), count = (size_t)count_of(t), made = zi_min_size(count, PATTERN);
    float spread = t->dims < 2 ? 0.5f : 0.1f, middle = t->dims < 2 ? 1 : 0;
    float value = values[(size_t)t->value % (sizeof values / sizeof *values)];
    for (size_t i = 0; i < made; i++) {
        float number = middle + spread * ((float)(zi_random_bits(state) >> 8) / (float)(1 << 24) - 0.5f);
        put_number(data + i * size, t->dtype, t->value && t->where == ALL_TENSORS ? value : number);
    }
    for (size_t i = made; i < count; i += made)
        memcpy(data + i * size, data, zi_min_size(made, count - i) * size);
    if (t->value && (size_t)t->where < count)
        put_number(data + (size_t)t->where * size, t->dtype, value);
}

/* Tensors first, first + step, ... as one file. */
static void write_file(const toy_file *file, size_t first, size_t step, const char *name)
{
    static uint8_t bytes[DATA_CAPACITY];
    uint64_t state = ZI_RANDOM_SEED;
    json_t *header = json_object();
    size_t size = 0, length, capacity = DATA_CAPACITY / 2;
    uint8_t *data = bytes + capacity;
    for (size_t i = first; i < file->count; i += step) {
        const toy_tensor *t = &file->tensors[i];
        if (t->absent || size + bytes_of(t) > capacity || json_object_get(header, t->name))
            continue;
        json_t *shape = json_array(), *entry;
        for (int d = 0; d < t->dims; d++)
            json_array_append_new(shape, json_integer(t->shape[d]));
        entry = json_pack("{s: s, s: o, s: [I, I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                          (json_int_t)size + t->shift, (json_int_t)(size + bytes_of(t)) + t->shift);
        if (json_object_set_new(header, t->name, entry) != 0)
            continue;
        fill(data + size, t, &state);
        size += bytes_of(t);
    }
    length = json_dumpb(header, (char *)bytes + 8, capacity - 8, JSON_COMPACT);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)length >> 8 * i);
    memmove(bytes + 8 + length, data, size);
    zi_fuzz_write(name, bytes, 8 + length + size);
    json_decref(header);
}

static void write_shards(const toy_file *file, const zi_component *component)
{
    char name[NAME_BYTES];
    json_t *map = json_object(), *index = json_pack("{s: o}", "weight_map", map);
    for (size_t i = 0; i < file->count; i++) {
        snprintf(name, sizeof name, "%s-%zu.safetensors", component->base_name, i % 2);
        if (!file->tensors[i].absent)
            json_object_set_new(map, file->tensors[i].name, json_string(name));
    }
    for (size_t i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s/%s-%zu.safetensors", component->folder, component->base_name, i);
        write_file(file, i, 2, name);
    }
    char *text = json_dumps(index, 0);
    snprintf(name, sizeof name, "%s/%s.safetensors.index.json", component->folder, component->base_name);
    if (text)
        zi_fuzz_write(name, text, strlen(text));
    free(text);
    json_decref(index);
}

/* ---- the tensors of a configuration ------------------------------------------------------------------------------ */

/* 0: there are too many. */
static int take_specs(const zi_tensor_specs *specs, toy_file *file)
{
    int64_t numbers = 0;
    for (size_t i = 0; i < specs->count; i++) {
        const zi_tensor_spec *spec = &specs->list[i];
        if (file->count == MOST_TENSORS)
            return 0;
        toy_tensor *t = &file->tensors[file->count++];
        *t = (toy_tensor){.dtype = "F32", .dims = spec->dims};
        snprintf(t->name, sizeof t->name, "%s", spec->name);
        memcpy(t->shape, spec->shape, sizeof spec->shape);
        numbers += count_of(t);
        if (numbers > MOST_NUMBERS)
            return 0;
    }
    return 1;
}

/* 1: file holds the tensors, or none where the configuration is refused. 0: there are too many. */
static int tensors_of(const zi_family *family, const zi_component *component, const char *config, toy_file *file)
{
    zi_networks *networks = calloc(1, family->networks_size);
    zi_store *store = NULL;
    int small = 1;
    if (!networks || zi_store_new_memory("toy", &store, NULL) != ZIMAGE_OK)
        zi_fuzz_fail("out of memory");
    if (component->configure(networks, config, NULL, NULL) == ZIMAGE_OK &&
        component->bind(networks, store, NULL, NULL) == ZIMAGE_OK)
        small = take_specs(zi_store_specs(store), file);
    component->unbind(networks);
    zi_store_free(store);
    free(networks);
    return small;
}

static int has_weights(const zi_fuzz_file *files, size_t count, const char *folder)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(files[i].name, folder, strlen(folder)) == 0 && strstr(files[i].name, "safetensors"))
            return 1;
    return 0;
}

static int write_component(const zi_family *family, const zi_component *component, const zi_fuzz_file *files,
                           size_t count)
{
    static toy_file file;
    char config[NAME_BYTES], changes[NAME_BYTES], name[NAME_BYTES];
    snprintf(config, sizeof config, "%s/config.json", component->folder);
    snprintf(changes, sizeof changes, "@%s", component->folder);
    snprintf(name, sizeof name, "%s/%s.safetensors", component->folder, component->base_name);
    file.count = 0;
    file.shards = 0;
    if (!zi_fuzz_find(files, count, config) || has_weights(files, count, component->folder))
        return 1;
    if (!tensors_of(family, component, zi_fuzz_path(config), &file))
        return 0;
    if (file.count == 0)
        return 1;
    change_file(&file, zi_fuzz_find(files, count, changes));
    if (file.shards)
        write_shards(&file, component);
    else
        write_file(&file, 0, 1, name);
    return 1;
}

int zi_fuzz_write_weights(const zi_fuzz_file *files, size_t count)
{
    const zi_family *family = zi_fuzz_is_klein(files, count) ? &zi_family_klein : &zi_family_zimage;
    for (int i = 0; i < ZI_COMPONENTS; i++)
        if (!write_component(family, &family->components[i], files, count))
            return 0;
    return 1;
}
