/*
 * tokenizer_config.json. Its fields are obeyed, or refused where they change the reference's ids. The reference is
 * transformers as diffusers calls it: a chat template, then at most 512 ids. So these fields change nothing:
 * model_max_length (the pipeline gives the length), clean_up_tokenization_spaces and errors (decoding), padding_side
 * where the pipeline removes the padding (positions only count relative to each other; zi_tokenizer_pad), and with a
 * tokenizer.json add_bos_token and add_eos_token (its post-processor decides).
 */
#include <string.h>

#include "text/load.h"

/* The classes that take everything from the tokenizer.json. */
static const char *const GENERIC_CLASSES[] = {"PreTrainedTokenizerFast", "TokenizersBackend"};
static const char *const QWEN2_CLASSES[] = {"Qwen2Tokenizer", "Qwen2TokenizerFast"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int is_one_of(const json_t *value, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (zi_is_text(value, texts[i]))
            return 1;
    return 0;
}

int zi_settings_any_pattern(const zi_settings *settings)
{
    return is_one_of(json_object_get(settings->config, "tokenizer_class"), GENERIC_CLASSES, COUNT(GENERIC_CLASSES));
}

static zimage_status check_class(const zi_loader *l, const json_t *config)
{
    const json_t *name = json_object_get(config, "tokenizer_class");
    if (zi_is_absent(name) || is_one_of(name, QWEN2_CLASSES, COUNT(QWEN2_CLASSES)) ||
        is_one_of(name, GENERIC_CLASSES, COUNT(GENERIC_CLASSES)))
        return ZIMAGE_OK;
    return zi_load_unsupported(l, "tokenizer_class", "Qwen2Tokenizer", name);
}

/* "right" or "left", or missing. */
static zimage_status read_side(const zi_loader *l, const json_t *config, const char *field, int *left)
{
    const json_t *side = json_object_get(config, field);
    *left = zi_is_text(side, "left");
    if (!side || *left || zi_is_text(side, "right"))
        return ZIMAGE_OK;
    return zi_load_wrong(l, field, "\"right\" or \"left\"", side);
}

/* Without a tokenizer.json transformers 5 obeys such a flag, and transformers 4 does not. */
static zimage_status refuse_ends(const zi_loader *l, const json_t *config, const char *flag, const char *token)
{
    const json_t *value = json_object_get(config, flag);
    if (!zi_is_absent(value) && !json_is_boolean(value))
        return zi_load_wrong(l, flag, "true or false", value);
    if (!json_is_true(value) || zi_is_absent(json_object_get(config, token)))
        return ZIMAGE_OK;
    return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED,
                        "%s: true, only false is supported without a tokenizer.json: versions of transformers read it "
                        "differently",
                        flag);
}

/* Files that the configuration names, instead of those of the folder. */
static zimage_status refuse_files(const zi_loader *l, const json_t *config)
{
    static const char *const FIELDS[] = {"tokenizer_file", "vocab_file", "merges_file", "gguf_file"};
    for (size_t i = 0; i < COUNT(FIELDS); i++) {
        const json_t *value = json_object_get(config, FIELDS[i]);
        if (!zi_is_absent(value))
            return zi_load_unsupported(l, FIELDS[i], "null", value);
    }
    const json_t *versions = json_object_get(config, "fast_tokenizer_files");
    for (size_t i = 0; i < json_array_size(versions); i++)
        if (!zi_is_text(json_array_get(versions, i), "tokenizer.json"))
            return zi_load_unsupported(l, "fast_tokenizer_files", "\"tokenizer.json\"", json_array_get(versions, i));
    const json_t *inputs = json_object_get(config, "init_inputs");
    if (!zi_is_absent(inputs) && !(json_is_array(inputs) && json_array_size(inputs) == 0))
        return zi_load_unsupported(l, "init_inputs", "an empty array", inputs);
    return ZIMAGE_OK;
}

static zimage_status read_config(zi_loader *l, const zi_settings *s)
{
    const json_t *config = s->config;
    ZI_TRY(check_class(l, config));
    ZI_TRY(refuse_files(l, config));
    ZI_TRY(zi_need_false(l, config, "add_prefix_space", 1));
    ZI_TRY(zi_need_false(l, config, "fix_mistral_regex", 1));
    ZI_TRY(zi_need_false(l, config, "from_slow", 1));
    if (!s->tokenizer) {
        ZI_TRY(refuse_ends(l, config, "add_bos_token", "bos_token"));
        ZI_TRY(refuse_ends(l, config, "add_eos_token", "eos_token"));
    }
    ZI_TRY(read_side(l, config, "padding_side", &l->tokenizer->pad_left));
    ZI_TRY(read_side(l, config, "truncation_side", &l->tokenizer->keep_end));
    const json_t *split = json_object_get(config, "split_special_tokens");
    if (!zi_is_absent(split) && !json_is_boolean(split))
        return zi_load_wrong(l, "split_special_tokens", "true or false", split);
    l->tokenizer->split_special = json_is_true(split);
    return ZIMAGE_OK;
}

zimage_status zi_load_settings(zi_loader *l, const zi_settings *s)
{
    /* Where the configuration is silent, transformers takes the sides from the tokenizer.json. */
    const json_t *truncation = json_object_get(s->tokenizer, "truncation");
    const json_t *padding = json_object_get(s->tokenizer, "padding");
    int keep_end = zi_is_text(json_object_get(truncation, "direction"), "Left");
    int pad_left = zi_is_text(json_object_get(padding, "direction"), "Left");
    l->path = s->config_path;
    if (s->config)
        ZI_TRY(read_config(l, s));
    if (!json_object_get(s->config, "truncation_side"))
        l->tokenizer->keep_end = keep_end;
    if (!json_object_get(s->config, "padding_side"))
        l->tokenizer->pad_left = pad_left;
    return ZIMAGE_OK;
}
