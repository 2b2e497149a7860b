#include "weights/absent.h"

#include <stdio.h>
#include <string.h>

#include "base/listing.h"

/* What a file with this ending says of a folder without readable weights. The first that a folder has is reported. */
static const struct {
    const char *ending, *meaning;
} signs[] = {
    {".incomplete", "the download is not complete: continue it"},
    {".part", "the download is not complete: continue it"},
    {".crdownload", "the download is not complete: continue it"},
    {".gguf", "GGUF files are not read; only safetensors files are"},
    {".bin", "pickled weights are not read, since they can hold programs; save the model with safe_serialization=True"},
    {".pt", "pickled weights are not read, since they can hold programs; convert them to safetensors"},
    {".pth", "pickled weights are not read, since they can hold programs; convert them to safetensors"},
    {".ckpt", "pickled weights are not read, since they can hold programs; convert them to safetensors"},
    {".onnx", "ONNX models are not read; only safetensors files are"},
    {".msgpack", "weights of Flax are not read; only safetensors files are"},
    {".h5", "weights of TensorFlow are not read; only safetensors files are"},
    {".npz", "weights of NumPy are not read; only safetensors files are"},
    {".safetensors", "weights of another name are not read; rename the file"},
};

/* NAME.fp16.safetensors and the index of shards with that ending: diffusers reads them with variant="fp16" alone. */
static int say_variant(char *text, size_t size, const zi_listing *files, const char *base)
{
    static const char *const endings[] = {".safetensors", ".safetensors.index.json", ".json"};
    char beginning[128];
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(beginning, sizeof beginning, "%s.%s", base, i == 2 ? "safetensors.index." : "");
        const char *name = zi_listing_find(files, beginning, endings[i]);
        if (!name)
            continue;
        snprintf(text, size, "%.200s is a variant, which diffusers reads only when it is asked for (variant=...): %s",
                 name, i == 0 ? "rename the file" : "save the model again without a variant");
        return 1;
    }
    return 0;
}

static int say_shards(char *text, size_t size, const zi_listing *files, const char *base)
{
    char beginning[128];
    snprintf(beginning, sizeof beginning, "%s-0", base);
    size_t count = zi_listing_matches(files, beginning, ".safetensors");
    if (count > 0)
        snprintf(text, size,
                 "%zu of the shards are there, %.200s and others, without the index that says what they hold", count,
                 zi_listing_find(files, beginning, ".safetensors"));
    return count > 0;
}

static void say_what_is_there(char *text, size_t size, const zi_listing *files, const char *base)
{
    if (say_variant(text, size, files, base) || say_shards(text, size, files, base))
        return;
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        const char *name = zi_listing_find(files, "", signs[i].ending);
        if (name) {
            snprintf(text, size, "there is %.200s, but %s", name, signs[i].meaning);
            return;
        }
    }
    snprintf(text, size, "%s", files->count == 0 ? "the folder is empty" : "");
}

zimage_status zi_fail_without_weights(const char *folder, const char *base, zimage_error *error)
{
    char text[512];
    zi_listing files = zi_listing_of(folder);
    say_what_is_there(text, sizeof text, &files, base);
    zi_listing_free(&files);
    return zi_fail(error, ZIMAGE_ERROR_FILE,
                   "%s: no weights: there is neither %s.safetensors nor %s.safetensors.index.json%s%s", folder, base,
                   base, text[0] ? "; " : "", text);
}
