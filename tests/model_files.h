/* Writes networks like those of tests/golden, but larger, with random weights. */
#ifndef ZI_TESTS_MODEL_FILES_H
#define ZI_TESTS_MODEL_FILES_H

#include <jansson.h>

#include "files.h"
#include "pipeline/family.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_OURS 0 /* a sanitizer's shadow counts, too */
#else
#define MEMORY_IS_OURS 1
#endif

/* The description of the store's tensors, as the header of a safetensors file. */
static inline char *safetensors_header(const zi_store *store)
{
    json_t *header = json_object();
    json_int_t at = 0;
    for (size_t i = 0; i < zi_store_count(store); i++) {
        const zi_weight *weight = zi_store_at(store, i);
        json_t *shape = json_array();
        for (int d = 0; d < weight->dims; d++)
            json_array_append_new(shape, json_integer(weight->shape[d]));
        json_t *offsets = json_pack("[I, I]", at, at + (json_int_t)weight->bytes);
        json_object_set_new(header, weight->name,
                            json_pack("{s: s, s: o, s: o}", "dtype", zi_store_dtype_of(store, i), "shape", shape,
                                      "data_offsets", offsets));
        at += (json_int_t)weight->bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    assert_non_null(text);
    json_decref(header);
    return text;
}

static inline void write_store(const zi_store *store, const char *path)
{
    char *header = safetensors_header(store);
    uint64_t length = strlen(header);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&length, sizeof length, 1, file), 1); /* little-endian, as the test's machine is */
    assert_int_equal(fwrite(header, 1, length, file), length);
    for (size_t i = 0; i < zi_store_count(store); i++) {
        const zi_weight *weight = zi_store_at(store, i);
        assert_int_equal(fwrite(weight->data, 1, weight->bytes, file), weight->bytes);
    }
    assert_int_equal(fclose(file), 0);
    free(header);
}

/* folder/config.json and weights of that type. Takes config. Returns the bytes of the weights. */
static inline size_t write_network(const zi_family *family, zi_component_kind kind, json_t *config, zi_dtype dtype,
                                   const char *folder)
{
    const zi_component *component = &family->components[kind];
    const zi_memory_format format = {dtype, 0, 0};
    char path[PATH_MAX];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_networks *networks = calloc(1, family->networks_size);
    zi_store *store = NULL;
    zi_pool *pool = NULL;
    assert_non_null(networks);
    char *text = json_dumps(config, 0);
    json_decref(config);
    assert_non_null(text);
    snprintf(path, sizeof path, "%s/config.json", folder);
    write_text(path, text);
    assert_int_equal(zi_pool_new(1, &pool, &error), ZIMAGE_OK);
    assert_int_equal(component->configure(networks, path, text, &error), ZIMAGE_OK);
    assert_int_equal(zi_store_new_memory(path, &store, &error), ZIMAGE_OK);
    assert_int_equal(component->bind(networks, store, NULL, &error), ZIMAGE_OK);
    component->unbind(networks);
    assert_int_equal(zi_store_fill(store, &format, pool, &error), ZIMAGE_OK);
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, component->base_name);
    write_store(store, path);
    size_t bytes = zi_store_bytes(store);
    zi_store_free(store);
    zi_pool_free(pool);
    free(networks);
    free(text);
    return bytes;
}

/* A transformer of Z-Image with text features of that width. */
static inline size_t write_transformer(const char *folder, int layers, int features, zi_dtype dtype)
{
    json_t *config = json_load_file(ZIMAGE_TEST_DATA "/tiny/transformer/config.json", 0, NULL);
    json_object_set_new(config, "n_layers", json_integer(layers));
    json_object_set_new(config, "cap_feat_dim", json_integer(features));
    return write_network(&zi_family_zimage, ZI_TRANSFORMER, config, dtype, folder);
}

/* The configuration of tiny-klein's text encoder with another number of layers. */
static inline json_t *encoder_config(int layers)
{
    json_t *config = json_load_file(ZIMAGE_TEST_DATA "/tiny-klein/text_encoder/config.json", 0, NULL);
    json_t *types = json_array();
    for (int i = 0; i < layers; i++)
        json_array_append_new(types, json_string("full_attention"));
    json_object_set_new(config, "layer_types", types);
    json_object_set_new(config, "num_hidden_layers", json_integer(layers));
    return config;
}

#endif
