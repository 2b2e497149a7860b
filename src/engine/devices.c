/* What this machine can compute with. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu_count.h"
#include "base/system.h"
#include "cpu/cpu.h"
#include "cpu/features.h"
#include "engine/device.h"
#include "engine/machine.h"

#define MOST_CARDS 64

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

static json_t *card_json(const zi_cuda_device *card)
{
    char name[24], capability[24];
    snprintf(name, sizeof name, "cuda:%d", card->index);
    snprintf(capability, sizeof capability, "%d.%d", card->major, card->minor);
    return json_pack("{s:s, s:s, s:s, s:I, s:b, s:s?}", "device", name, "name", card->name, "capability", capability,
                     "bytes", (json_int_t)card->memory, "usable", !*card->fault, "fault",
                     *card->fault ? card->fault : NULL);
}

static json_t *cards_json(void)
{
    zi_cuda_device cards[MOST_CARDS];
    zimage_error why = ZIMAGE_ERROR_INIT;
    int count = 0;
    json_t *list = json_array();
    zimage_status status = zi_device_cards(cards, MOST_CARDS, &count, &why);
    for (int i = 0; i < count; i++)
        json_array_append_new(list, card_json(&cards[i]));
    return json_pack("{s:o, s:s?}", "devices", list, "fault", status == ZIMAGE_OK ? NULL : why.message);
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
    zi_cpu_model(model, sizeof model);
    json_t *all = json_pack("{s:{s:s, s:i, s:o, s:o}, s:o}", "cpu", "model", model, "threads", zi_cpu_count(),
                            "features", features_json(mask), "kernels", kernels_json(mask), "cuda", cards_json());
    *json = all ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(all);
    return *json ? ZIMAGE_OK : zi_fail_memory(error, "the list of devices", 0);
}
