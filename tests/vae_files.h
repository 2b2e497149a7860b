/* Opens the VAEs of tests/golden, and makes changed copies of their files of weights. */
#ifndef ZI_TESTS_VAE_FILES_H
#define ZI_TESTS_VAE_FILES_H

#include "base/file.h"
#include "model/vae.h"
#include "networks.h"

/* The golden folder's configuration, and the weights of a golden folder. */
static inline void open_golden_vae(const char *config_folder, const char *folder, zi_store **store, zi_vae *model)
{
    char path[4096], name[256];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_vae_config config;
    snprintf(name, sizeof name, "%s/config.json", config_folder);
    golden_path(path, sizeof path, name);
    zimage_status status = strstr(config_folder, "flux2") ? zi_vae_flux2_config_read(path, NULL, &config, &error)
                                                          : zi_vae_config_read(path, NULL, &config, &error);
    if (status != ZIMAGE_OK)
        fail_msg("%s", error.message);
    *store = open_component(folder, "diffusion_pytorch_model");
    if (zi_vae_bind(model, &config, *store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

/* ---- changed files ----------------------------------------------------------------------------------------------- */

/* A tensor of a file, which edit_tensors writes as it is afterwards. */
typedef struct vae_tensor {
    char name[256]; /* empty: it is left out */
    const char *dtype;
    int dims;
    int64_t shape[4];
    uint8_t *data;
    size_t bytes;
} vae_tensor;

static inline void rename_part(vae_tensor *tensor, const char *old, const char *new)
{
    char whole[sizeof tensor->name];
    char *part = strstr(tensor->name, old);
    if (!part)
        return;
    snprintf(whole, sizeof whole, "%.*s%s%s", (int)(part - tensor->name), tensor->name, new, part + strlen(old));
    memcpy(tensor->name, whole, sizeof whole);
}

/* A convolution [out, in, h, w] to [out, h, w, in]. */
static inline void turn_channels_last(vae_tensor *tensor)
{
    if (tensor->dims != 4)
        return;
    int64_t out = tensor->shape[0], in = tensor->shape[1], taps = tensor->shape[2] * tensor->shape[3];
    size_t size = tensor->bytes / (size_t)(out * in * taps);
    uint8_t *turned = malloc(tensor->bytes);
    assert_non_null(turned);
    for (int64_t i = 0; i < out * in * taps; i++) {
        int64_t o = i / (in * taps), c = i / taps % in, tap = i % taps;
        memcpy(turned + (size_t)((o * taps + tap) * in + c) * size, tensor->data + (size_t)i * size, size);
    }
    memcpy(tensor->data, turned, tensor->bytes);
    free(turned);
    tensor->shape[1] = tensor->shape[2];
    tensor->shape[2] = tensor->shape[3];
    tensor->shape[3] = in;
}

static inline void read_tensor(vae_tensor *tensor, const char *name, json_t *value, const uint8_t *data)
{
    json_t *shape = json_object_get(value, "shape"), *offsets = json_object_get(value, "data_offsets");
    size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    *tensor = (vae_tensor){.dtype = json_string_value(json_object_get(value, "dtype")),
                           .dims = (int)json_array_size(shape),
                           .bytes = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin};
    assert_in_range(tensor->dims, 0, 4);
    for (int i = 0; i < tensor->dims; i++)
        tensor->shape[i] = json_integer_value(json_array_get(shape, (size_t)i));
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->data = malloc(tensor->bytes + 1);
    assert_non_null(tensor->data);
    memcpy(tensor->data, data + begin, tensor->bytes);
}

/* Appends the tensor to the header and to the data, which have room for it. */
static inline void append_tensor(const vae_tensor *tensor, json_t *header, uint8_t *data, size_t *at)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->dims; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    json_object_set_new(header, tensor->name,
                        json_pack("{s: s, s: o, s: [I, I]}", "dtype", tensor->dtype, "shape", shape, "data_offsets",
                                  (json_int_t)*at, (json_int_t)(*at + tensor->bytes)));
    memcpy(data + *at, tensor->data, tensor->bytes);
    *at += tensor->bytes;
}

static inline void write_tensors(const char *path, json_t *header, const uint8_t *data, size_t bytes)
{
    char *text = json_dumps(header, JSON_COMPACT);
    FILE *file = fopen(path, "wb");
    assert_true(text && file);
    const uint64_t length = strlen(text);
    assert_int_equal(fwrite(&length, sizeof length, 1, file), 1);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(text);
}

/* Copies the safetensors file `source` to `target`, with each tensor as `edit` leaves it; its data may not grow. */
static inline void edit_tensors(const char *source, const char *target, void (*edit)(vae_tensor *tensor))
{
    char *bytes = NULL;
    size_t size = 0, at = 0;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_read_file(source, (size_t)1 << 24, &bytes, &size, &error), ZIMAGE_OK);
    uint64_t length;
    memcpy(&length, bytes, sizeof length);
    json_t *header = json_loadb(bytes + 8, length, 0, NULL), *edited = json_object(), *value;
    uint8_t *data = malloc(size);
    const char *name;
    assert_true(header && edited && data);
    json_object_foreach(header, name, value)
    {
        vae_tensor tensor;
        if (strcmp(name, "__metadata__") == 0)
            continue;
        read_tensor(&tensor, name, value, (const uint8_t *)bytes + 8 + length);
        edit(&tensor);
        if (tensor.name[0])
            append_tensor(&tensor, edited, data, &at);
        free(tensor.data);
    }
    write_tensors(target, edited, data, at);
    json_decref(header);
    json_decref(edited);
    free(data);
    free(bytes);
}

#endif
