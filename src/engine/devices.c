/* What this machine can compute with. */
#include <jansson.h>
#include <stdlib.h>

#include "base/cpu_count.h"
#include "cpu/cpu.h"
#include "cpu/features.h"
#include "engine/machine.h"

static json_t *features_json(uint32_t features)
{
    json_t *list = json_array();
    for (int i = 0; i < ZI_CPU_FEATURES; i++)
        if (features >> i & 1)
            json_array_append_new(list, json_string(zi_cpu_feature_name((zi_cpu_feature)i)));
    return list;
}

static json_t *kernels_json(uint32_t features)
{
    json_t *list = json_array();
    zi_cpu_set set;
    for (int i = 0; zi_cpu_set_at(i, features, &set); i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "name", set.name, "usable", set.usable, "gops",
                                              set.usable ? json_real(zi_cpu_set_rate(&set) * 1e-9) : json_null()));
    return list;
}

zimage_status zimage_devices(const char *cpu_mask, char **json, zimage_error *error)
{
    if (!json)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "json: NULL, expected where to put the text");
    *json = NULL;
    uint32_t mask;
    char model[200];
    ZI_TRY(zi_cpu_mask_parse(cpu_mask, &mask, error));
    mask &= zi_cpu_features();
    zi_processor_model(model, sizeof model);
    json_t *all = json_pack("{s:{s:s, s:i, s:o, s:o}}", "cpu", "model", model, "threads", zi_cpu_count(), "features",
                            features_json(mask), "kernels", kernels_json(mask));
    *json = all ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(all);
    return *json ? ZIMAGE_OK : zi_fail_memory(error, "the list of devices", 0);
}
