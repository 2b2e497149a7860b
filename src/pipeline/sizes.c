#include "pipeline/sizes.h"

#include <math.h>
#include <stdio.h>

#define FIELD      "_training_sizes"
#define PIXELS_MAX (1 << 20)

static int is_side(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 1 && json_integer_value(value) <= PIXELS_MAX;
}

static zimage_status read_sizes(const zi_json_reader *json, void *out)
{
    zi_sizes *sizes = out;
    const json_t *list = json_object_get(json->object, FIELD);
    if (!list)
        return ZIMAGE_OK;
    size_t count = json_array_size(list);
    if (count < 1 || count > ZI_SIZES_MAX)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: \"" FIELD "\" has %zu elements, expected an array of 1 to %d pairs [width, height]",
                       json->path, count, ZI_SIZES_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(list, i);
        const json_t *width = json_array_get(pair, 0), *height = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !is_side(width) || !is_side(height))
            return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                           "%s: \"" FIELD "[%zu]\" is not a pair [width, height] of integers from 1 to %d", json->path,
                           i, PIXELS_MAX);
        sizes->width[i] = json_integer_value(width);
        sizes->height[i] = json_integer_value(height);
    }
    sizes->count = count;
    return ZIMAGE_OK;
}

zimage_status zi_sizes_read(const char *path, const char *text, zi_sizes *sizes, zimage_error *error)
{
    return zi_config_read(path, text, read_sizes, sizes, sizeof *sizes, error);
}

/* How unlike two sizes are: by the ratios of their sides. */
static double unlike(int64_t width, int64_t height, int64_t other_width, int64_t other_height)
{
    return fabs(log((double)width / (double)other_width)) + fabs(log((double)height / (double)other_height));
}

void zi_sizes_warn(const zi_sizes *sizes, int64_t width, int64_t height, const zi_log *log)
{
    size_t nearest = 0;
    double least = INFINITY;
    for (size_t i = 0; i < sizes->count; i++) {
        double distance = unlike(width, height, sizes->width[i], sizes->height[i]);
        if (distance < least) {
            least = distance;
            nearest = i;
        }
    }
    if (sizes->count == 0 || least == 0)
        return;
    char others[64] = "";
    if (sizes->count > 1)
        snprintf(others, sizeof others, "%zu other sizes, the nearest of them ", sizes->count);
    zi_warn(log, "width, height: %lld x %lld, but the model was trained at %s%lld x %lld: the image may be noise",
            (long long)width, (long long)height, others, (long long)sizes->width[nearest],
            (long long)sizes->height[nearest]);
}
