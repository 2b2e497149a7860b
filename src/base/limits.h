/*
 * The most that files from strangers may hold. Each limit is several times what the largest known models need, and low
 * enough that a hostile file takes less than a second and less than 1 GiB. Text is scanned against these limits before
 * a tree is built from it: the tree of "[[],[],...]" takes 45 times the bytes of the text.
 */
#ifndef ZI_BASE_LIMITS_H
#define ZI_BASE_LIMITS_H

#include <stddef.h>

/* config.json, scheduler_config.json, model_index.json, tokenizer_config.json: published ones have 12 KiB at most. */
#define ZI_CONFIG_BYTES  ((size_t)1 << 20)
#define ZI_CONFIG_VALUES 65536
#define ZI_CONFIG_DEPTH  32

/* NAME.safetensors.index.json: 60 KiB and 700 values for the transformer of Z-Image. */
#define ZI_INDEX_BYTES  ((size_t)16 << 20)
#define ZI_INDEX_VALUES 131072
#define ZI_INDEX_DEPTH  8

/* tokenizer.json: 11 MiB and 760,000 values for Qwen3. */
#define ZI_TOKENIZER_BYTES  ((size_t)64 << 20)
#define ZI_TOKENIZER_VALUES 2000000
#define ZI_TOKENIZER_DEPTH  32

/* The header of a safetensors file: a tensor is 7 to 10 values and 120 bytes; training tools add MiB of metadata. */
#define ZI_HEADER_BYTES   ((size_t)32 << 20)
#define ZI_HEADER_VALUES  700000
#define ZI_HEADER_DEPTH   8
#define ZI_HEADER_TENSORS 65536

/* machine.json: a line for each combination of CPU, kernels and threads that was measured. */
#define ZI_CACHE_BYTES  ((size_t)1 << 20)
#define ZI_CACHE_VALUES 65536
#define ZI_CACHE_DEPTH  4

/* What a JSON text may hold. */
typedef struct zi_json_limits {
    size_t bytes;
    size_t values;  /* numbers, texts, arrays and objects, but no keys; an empty array counts as if it had a value */
    size_t depth;   /* of arrays and objects in each other */
    size_t members; /* of the outermost array or object; 0: as many as `values` allows */
    int only_reals; /* 1: integers are read as reals, so that they may be beyond 64 bits */
} zi_json_limits;

extern const zi_json_limits zi_config_limits, zi_index_limits, zi_tokenizer_limits, zi_header_limits, zi_cache_limits;
/* transformers 4 writes "model_max_length": 1000000000000000019884624838656 where a tokenizer has no limit. */
extern const zi_json_limits zi_tokenizer_config_limits;

#endif
