/*
 * Fields of a configuration as diffusers reads them. A missing field has the default of its class, which the caller
 * passes. So has a field that the array "_use_default_values" names: ConfigMixin.extract_init_dict of diffusers ignores
 * its value. A null is a value of its own: the reference fails at most of them, so that the functions here refuse it.
 */
#ifndef ZI_BASE_FIELDS_H
#define ZI_BASE_FIELDS_H

#include "base/json.h"

/* 1: the field has the default of its class. */
int zi_field_is_default(const zi_json_reader *json, const char *field);

/* Each reads one field. `low`, `high` and the errors are those of json.h. */
zimage_status zi_field_int(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                           int64_t default_value, int64_t *value);
zimage_status zi_field_number(const zi_json_reader *json, const char *field, double low, double high,
                              double default_value, double *value);
/* Null is false, as in Python. */
zimage_status zi_field_bool(const zi_json_reader *json, const char *field, int default_value, int *value);
/* Exactly `count` integers. */
zimage_status zi_field_int_array(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                                 const int64_t *default_values, int64_t *values, size_t count);

/*
 * Refuses a "quantization_config", which says that the weights of a component are packed. Null is none. MLX's
 * converters write {"group_size", "bits"} without "quant_method": the binder knows such weights by their tensors.
 */
zimage_status zi_refuse_quantization(const zi_json_reader *json);

/*
 * Warns of fields that are not among `known` (NULL-ended), once for the file: diffusers ignores such fields, with a
 * warning. Names that begin with "_" are private to diffusers.
 */
void zi_warn_of_unknown_fields(json_t *object, const char *path, const char *const *known, const zi_log *log);

#endif
