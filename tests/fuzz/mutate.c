#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "fuzz.h"

#define SLOTS_MAX 4096
#define TEXT_MAX  256

static uint64_t seeded(unsigned seed)
{
    uint64_t state = ZI_RANDOM_SEED ^ ((uint64_t)seed << 17);
    for (int i = 0; i < 4; i++)
        zi_random_next(&state);
    return state;
}

/* 0 .. below - 1 */
static size_t pick(uint64_t *state, size_t below)
{
    return zi_random_bits(state) % below;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* A place of a value: in an object (key) or in an array. */
typedef struct slot {
    json_t *parent;
    const char *key; /* NULL: index */
    size_t index;
} slot;

static void collect(json_t *value, slot *slots, size_t *count)
{
    const char *key;
    size_t index;
    json_t *child;
    json_object_foreach(value, key, child)
    {
        if (*count < SLOTS_MAX)
            slots[(*count)++] = (slot){value, key, 0};
        collect(child, slots, count);
    }
    json_array_foreach(value, index, child)
    {
        if (*count < SLOTS_MAX)
            slots[(*count)++] = (slot){value, NULL, index};
        collect(child, slots, count);
    }
}

static json_t *value_of(const slot *s)
{
    return s->key ? json_object_get(s->parent, s->key) : json_array_get(s->parent, s->index);
}

static void set(const slot *s, json_t *value)
{
    if (s->key)
        json_object_set_new(s->parent, s->key, value);
    else
        json_array_set_new(s->parent, s->index, value);
}

/* Text that libFuzzer changes: it knows the words of the dictionary. NULL where the result is not UTF-8. */
static json_t *changed_text(const char *text)
{
    char buffer[TEXT_MAX];
    size_t size = zi_min_size(strlen(text), sizeof buffer / 2);
    memcpy(buffer, text, size);
    size = LLVMFuzzerMutate((uint8_t *)buffer, size, sizeof buffer);
    return json_stringn(buffer, size);
}

static json_t *interesting(uint64_t *state)
{
    static const json_int_t integers[] = {0,
                                          1,
                                          -1,
                                          2,
                                          3,
                                          4,
                                          7,
                                          8,
                                          16,
                                          31,
                                          32,
                                          33,
                                          64,
                                          127,
                                          128,
                                          255,
                                          256,
                                          1000,
                                          4096,
                                          65535,
                                          65536,
                                          1 << 20,
                                          1 << 24,
                                          INT32_MAX,
                                          INT32_MIN,
                                          (json_int_t)1 << 32,
                                          (json_int_t)1 << 53,
                                          INT64_MAX,
                                          INT64_MIN};
    static const double reals[] = {0.0, -0.0, 0.5, 1.0, -1.0, 1e-320, 1e-38, 1e-6, 1e6, 3.4e38, 1e300, -1e300, 1.7e308};
    switch (pick(state, 8)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean(pick(state, 2));
    case 2:
        return json_real(reals[pick(state, sizeof reals / sizeof *reals)]);
    case 3:
        return json_object();
    case 4:
        return json_array();
    case 5:
        return json_string("");
    default:
        return json_integer(integers[pick(state, sizeof integers / sizeof *integers)]);
    }
}

/* A value near the old one; NULL: none was found. */
static json_t *nearby(const json_t *old, uint64_t *state)
{
    json_int_t integer = json_integer_value(old);
    switch (json_typeof(old)) {
    case JSON_STRING:
        return changed_text(json_string_value(old));
    case JSON_REAL:
        return json_real(json_real_value(old) * (pick(state, 2) ? 2 : -0.5));
    case JSON_INTEGER:
        switch (pick(state, 4)) {
        case 0:
            return json_integer((json_int_t)((uint64_t)integer + 1));
        case 1:
            return json_integer((json_int_t)((uint64_t)integer - 1));
        case 2:
            return json_integer((json_int_t)((uint64_t)integer * 2));
        default:
            return json_integer(integer / 2);
        }
    case JSON_TRUE:
        return json_false();
    case JSON_FALSE:
        return json_true();
    default:
        return interesting(state);
    }
}

static void rename_key(const slot *s, const slot *other, uint64_t *state)
{
    json_t *value = s->key ? json_incref(value_of(s)) : NULL;
    json_t *text = s->key && pick(state, 2) ? changed_text(s->key) : NULL;
    const char *name = text ? json_string_value(text) : other->key;
    if (value && name) {
        json_object_set(s->parent, name, value);
        json_object_del(s->parent, s->key);
    }
    json_decref(text);
    json_decref(value);
}

static void repeat_element(const slot *s, uint64_t *state)
{
    if (s->key)
        return;
    for (size_t i = pick(state, 8); i > 0; i--)
        json_array_insert_new(s->parent, s->index, json_deep_copy(value_of(s)));
}

/* One change to the tree: what happens in real files, and what a hostile one would try. */
static void change_tree(const slot *s, const slot *other, uint64_t *state)
{
    json_t *value = NULL;
    switch (pick(state, 8)) {
    case 0:
        value = interesting(state);
        break;
    case 1:
        if (s->key)
            json_object_del(s->parent, s->key);
        else
            json_array_remove(s->parent, s->index);
        return;
    case 2:
        value = json_deep_copy(value_of(other));
        break;
    case 3:
        rename_key(s, other, state);
        return;
    case 4:
        repeat_element(s, state);
        return;
    case 5:
        value = json_pack("[O]", value_of(s));
        break;
    default:
        value = nearby(value_of(s), state);
        break;
    }
    if (value)
        set(s, value);
}

size_t zi_fuzz_mutate_json(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
    static slot slots[SLOTS_MAX];
    uint64_t state = seeded(seed);
    json_t *root = NULL;
    size_t count = 0, written = 0;
    if (pick(&state, 5))
        root = json_loadb((const char *)data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    collect(root, slots, &count);
    if (count > 0) {
        change_tree(&slots[pick(&state, count)], &slots[pick(&state, count)], &state);
        written = json_dumpb(root, (char *)data, capacity, JSON_COMPACT | JSON_ENCODE_ANY);
    }
    json_decref(root);
    return written > 0 && written <= capacity ? written : LLVMFuzzerMutate(data, size, capacity);
}

/* One line of a text of many. */
size_t zi_fuzz_mutate_lines(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
    uint64_t state = seeded(seed);
    size_t begin = size ? pick(&state, size) : 0, end = begin;
    while (begin > 0 && data[begin - 1] != '\n')
        begin--;
    while (end < size && data[end] != '\n')
        end++;
    uint8_t *line = malloc(capacity);
    if (!line || begin == end || pick(&state, 6) == 0) {
        free(line);
        return LLVMFuzzerMutate(data, size, capacity);
    }
    memcpy(line, data + begin, end - begin);
    size_t changed =
        zi_fuzz_mutate_json(line, end - begin, capacity - (size - (end - begin)), (unsigned)zi_random_bits(&state));
    memmove(data + begin + changed, data + end, size - end);
    memcpy(data + begin, line, changed);
    free(line);
    return size - (end - begin) + changed;
}

/* ---- safetensors: the length of the header in 8 bytes, the header, the data -------------------------------------- */

/* The largest end of data that the header names, below `limit`. */
static size_t data_end(const uint8_t *header, size_t size, size_t limit)
{
    json_t *root = json_loadb((const char *)header, size, 0, NULL), *tensor;
    const char *name;
    size_t end = 0;
    json_object_foreach(root, name, tensor)
    {
        json_int_t at = json_integer_value(json_array_get(json_object_get(tensor, "data_offsets"), 1));
        if (at > 0 && (size_t)at <= limit)
            end = zi_max_size(end, (size_t)at);
    }
    json_decref(root);
    return end;
}

static void put_length(uint8_t *data, uint64_t length)
{
    for (int i = 0; i < 8; i++)
        data[i] = (uint8_t)(length >> 8 * i);
}

size_t zi_fuzz_mutate_safetensors(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
    uint64_t state = seeded(seed), length = 0;
    for (int i = 0; i < 8 && size >= 8; i++)
        length |= (uint64_t)data[i] << 8 * i;
    if (size < 8 || length > size - 8 || pick(&state, 10) == 0)
        return LLVMFuzzerMutate(data, size, capacity);
    size_t header = (size_t)length, rest = size - 8 - header, room = capacity - 8;
    if (rest > 0 && pick(&state, 8) == 0)
        return 8 + header + LLVMFuzzerMutate(data + 8 + header, rest, room - header);
    uint8_t *copy = malloc(capacity);
    if (!copy)
        return size;
    memcpy(copy, data + 8, header);
    size_t changed = zi_fuzz_mutate_json(copy, header, room, (unsigned)zi_random_bits(&state));
    rest = zi_min_size(rest, room - changed);
    memmove(data + 8 + changed, data + 8 + header, rest);
    memcpy(data + 8, copy, changed);
    put_length(data, changed);
    if (pick(&state, 3)) { /* as much data as the header asks for */
        size_t wanted = data_end(copy, changed, room - changed);
        if (wanted > rest)
            memset(data + 8 + changed + rest, 'z', wanted - rest);
        rest = wanted;
    }
    free(copy);
    return 8 + changed + rest;
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

static uint32_t checksum(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static void put_word(uint8_t *to, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(word >> (24 - 8 * i));
}

/* PNG has chunks of length, kind, data and a checksum. Makes the checksums right. A chunk that is longer than the rest
 * becomes as long as the rest. */
static void mend_chunks(uint8_t *data, size_t size)
{
    size_t at = 8;
    while (at + 12 <= size) {
        uint32_t length = (uint32_t)data[at] << 24 | (uint32_t)data[at + 1] << 16 | (uint32_t)data[at + 2] << 8 |
                          (uint32_t)data[at + 3];
        length = (uint32_t)zi_min_size(length, size - at - 12);
        put_word(data + at, length);
        put_word(data + at + 8 + length, checksum(data + at + 4, 4 + length));
        at += 12 + length;
    }
}

/* The signature of the format stays, most of the time. What a changed file would be refused for at once is mended: the
 * checksums of a PNG, the size in the header of a WebP. */
size_t zi_fuzz_mutate_image(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
    uint64_t state = seeded(seed);
    int is_png = size > 8 && data[0] == 0x89, is_webp = size > 12 && data[0] == 'R';
    size_t kept = pick(&state, 16) == 0 ? 0 : is_png ? 8 : is_webp ? 12 : size > 3 ? 3 : 0;
    size = kept + LLVMFuzzerMutate(data + kept, size - kept, capacity - kept);
    if (pick(&state, 16) == 0)
        return size;
    if (is_png)
        mend_chunks(data, size);
    for (size_t i = 0; is_webp && size >= 8 && i < 4; i++)
        data[4 + i] = (uint8_t)((size - 8) >> (8 * i));
    return size;
}

/* ---- containers -------------------------------------------------------------------------------------------------- */

/* 0: there is no room. */
static int append(uint8_t *out, size_t capacity, size_t *used, const zi_fuzz_file *file)
{
    char head[512];
    int length = snprintf(head, sizeof head, "%s%c%zu\n", file->name, 0, file->size);
    if (length < 0 || (size_t)length >= sizeof head || *used + (size_t)length + file->size > capacity)
        return 0;
    memcpy(out + *used, head, (size_t)length);
    memcpy(out + *used + length, file->data, file->size);
    *used += (size_t)length + file->size;
    return 1;
}

static size_t mutate_file(const zi_fuzz_file *file, uint8_t *buffer, size_t capacity, uint64_t *state)
{
    unsigned seed = (unsigned)zi_random_bits(state);
    size_t size = zi_min_size(file->size, capacity), name = strlen(file->name);
    memcpy(buffer, file->data, size);
    if (name > 12 && !strcmp(file->name + name - 12, ".safetensors"))
        return zi_fuzz_mutate_safetensors(buffer, size, capacity, seed);
    if (size > 0 && (buffer[0] == '{' || buffer[0] == '['))
        return zi_fuzz_mutate_json(buffer, size, capacity, seed);
    return LLVMFuzzerMutate(buffer, size, capacity);
}

/*
 * Changes the list, which may be empty if there is a toy model: a file is changed, lost, replaced by another one, or
 * renamed. A file of the toy model may join the list before.
 */
static void change_files(zi_fuzz_file *files, size_t *count, uint8_t *buffer, size_t capacity, char name[TEXT_MAX],
                         uint64_t *state)
{
    const zi_fuzz_file *base;
    size_t length, base_count = zi_fuzz_base(zi_fuzz_is_klein(files, *count), &base);
    if (*count == 0 || (base_count > 0 && *count < ZI_FUZZ_FILES_MAX && pick(state, 6) == 0))
        files[(*count)++] = base[pick(state, base_count)];
    zi_fuzz_file *file = &files[pick(state, *count)], *other = &files[pick(state, *count)];
    switch (pick(state, 24)) {
    case 0:
        *file = files[--*count];
        break;
    case 1:
        file->data = other->data;
        file->size = other->size;
        break;
    case 2:
        length = zi_min_size(strlen(file->name), TEXT_MAX - 1);
        memcpy(name, file->name, length);
        length = LLVMFuzzerMutate((uint8_t *)name, length, TEXT_MAX - 1);
        name[length] = 0;
        file->name = name;
        break;
    case 3:
        file->size = 0; /* the folder lacks it */
        break;
    default:
        file->size = mutate_file(file, buffer, capacity, state);
        file->data = buffer;
    }
}

size_t zi_fuzz_mutate_container(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
    uint64_t state = seeded(seed);
    zi_fuzz_file files[ZI_FUZZ_FILES_MAX];
    const zi_fuzz_file *base;
    char name[TEXT_MAX];
    size_t count = zi_fuzz_files(data, size, files), used = 0;
    uint8_t *buffer = malloc(2 * capacity), *out = buffer ? buffer + capacity : NULL;
    if (!buffer || (count == 0 && zi_fuzz_base(0, &base) == 0) || pick(&state, 50) == 0) {
        free(buffer);
        return LLVMFuzzerMutate(data, size, capacity);
    }
    change_files(files, &count, buffer, capacity, name, &state);
    for (size_t i = 0; i < count && append(out, capacity, &used, &files[i]); i++) {
    }
    memcpy(data, out, used);
    free(buffer);
    return used;
}
