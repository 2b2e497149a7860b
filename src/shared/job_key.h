/*
 * Keys of jobs. A key is the SHA-256 of a job's canonical text: a JSON object in UTF-8 with sorted keys that holds the
 * request with its defaults filled in and its seed, hashes of its input images and tensors, the model's fingerprint and
 * the format of the file. So a job has the same key on every machine, and jobs with the same key make the same image.
 *
 *   {"format":"png","guidance":0,"model_fingerprint":"...","prompt":"a red apple","recipe":1,"rng":"torch-cpu",
 *    "seed":7,"size":"1024x1024","steps":8}
 *
 * A compute type and a type of expanded weights are part of it only where the job asks for one: else each machine
 * chooses its own, as it chooses its kernels.
 */
#ifndef ZI_SHARED_JOB_KEY_H
#define ZI_SHARED_JOB_KEY_H

#include "hash.h"
#include "zimage.h"

#define JOB_KEY HASH_TEXT

/* What a job asks for beside the request. */
typedef struct job_output {
    zimage_format format;
    int quality;                  /* of a lossy file; else 0 */
    int has_recipe;               /* the file says how the image was made */
    zimage_compute compute;       /* AUTO: the machine decides */
    zimage_dequantize dequantize; /* of packed weights */
} job_output;

/* The canonical text. Released with free. NULL: an error. */
char *job_key_text(const zimage_model *model, const zimage_request *request, const job_output *output,
                   zimage_error *error);
/* The key. After a failure it is empty. */
zimage_status job_key(const zimage_model *model, const zimage_request *request, const job_output *output,
                      char key[JOB_KEY], zimage_error *error);

/* The key, as a number of 256 bits, modulo count: which of so many shards the job belongs to, from 0. */
uint64_t job_key_shard(const char key[JOB_KEY], uint64_t count);

/* "ab/cd/KEY.png": the file of a job without a name of its own, in one of 65,536 folders. */
#define JOB_KEY_FILE (JOB_KEY + 16)
void job_key_file(const char key[JOB_KEY], zimage_format format, char name[JOB_KEY_FILE]);

#endif
