/* The stages of a tokenizer.json around its vocabulary: normaliser, pre-tokenizer, post-processor, model options. */
#include <stdio.h>
#include <string.h>

#include "text/load.h"

/* Why a folder for Qwen2Tokenizer can't have stages of its own. */
#define READ_OTHERWISE                                                                                                 \
    "for a Qwen2Tokenizer transformers 5 takes the one of Qwen2 instead, and transformers 4 takes it from the file"

static zimage_status read_one_normalizer(const zi_loader *l, const json_t *normalizer, const char *field)
{
    char type[ZI_FIELD_SIZE];
    if (!json_is_object(normalizer))
        return zi_load_wrong(l, field, "an object", normalizer);
    l->tokenizer->nfc = 1;
    snprintf(type, sizeof type, "%s.type", field);
    return zi_need_text(l, normalizer, type, "NFC");
}

/* NFC, also as the only entries of a sequence; or none. */
static zimage_status read_normalizer(const zi_loader *l, const json_t *root, int qwen2_only)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    if (zi_is_absent(normalizer) && qwen2_only)
        return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED, "normalizer: none, only NFC is supported here: %s",
                            READ_OTHERWISE);
    if (zi_is_absent(normalizer))
        return ZIMAGE_OK;
    if (!json_is_object(normalizer))
        return zi_load_wrong(l, "normalizer", "an object or null", normalizer);
    const json_t *sequence = json_object_get(normalizer, "normalizers");
    if (!json_is_array(sequence) || !zi_is_text(json_object_get(normalizer, "type"), "Sequence"))
        return read_one_normalizer(l, normalizer, "normalizer");
    if (json_array_size(sequence) != 1)
        return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED, "normalizer.normalizers: %zu entries, only one is supported",
                            json_array_size(sequence));
    return read_one_normalizer(l, json_array_get(sequence, 0), "normalizer.normalizers[0]");
}

static zimage_status new_split(const zi_loader *l, const char *pattern)
{
    char where[1100];
    snprintf(where, sizeof where, "%s: pre_tokenizer.pretokenizers[0].pattern.Regex", l->path);
    return zi_split_new(pattern, where, &l->tokenizer->split, l->error);
}

static zimage_status read_split(const zi_loader *l, const json_t *split, int qwen2_only)
{
    if (!json_is_object(split))
        return zi_load_wrong(l, "pre_tokenizer.pretokenizers[0]", "an object", split);
    ZI_TRY(zi_need_text(l, split, "pre_tokenizer.pretokenizers[0].type", "Split"));
    ZI_TRY(zi_need_text(l, split, "pre_tokenizer.pretokenizers[0].behavior", "Isolated"));
    ZI_TRY(zi_need_false(l, split, "pre_tokenizer.pretokenizers[0].invert", 1));
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    if (!json_is_string(regex))
        return zi_load_wrong(l, "pre_tokenizer.pretokenizers[0].pattern.Regex", "a string", regex);
    if (qwen2_only && strcmp(json_string_value(regex), ZI_QWEN2_PATTERN) != 0)
        return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED,
                            "pre_tokenizer.pretokenizers[0].pattern.Regex is another pattern than that of Qwen2: %s",
                            READ_OTHERWISE);
    return new_split(l, json_string_value(regex));
}

static zimage_status read_pre_tokenizer(const zi_loader *l, const json_t *root, int qwen2_only)
{
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    if (!json_is_object(pre))
        return zi_load_wrong(l, "pre_tokenizer", "an object", pre);
    ZI_TRY(zi_need_text(l, pre, "pre_tokenizer.type", "Sequence"));
    const json_t *sequence = json_object_get(pre, "pretokenizers");
    if (!json_is_array(sequence))
        return zi_load_wrong(l, "pre_tokenizer.pretokenizers", "an array", sequence);
    if (json_array_size(sequence) != 2)
        return zi_load_fail(
            l, ZIMAGE_ERROR_UNSUPPORTED,
            "pre_tokenizer.pretokenizers: %zu entries, only a Split followed by a ByteLevel is supported",
            json_array_size(sequence));
    ZI_TRY(read_split(l, json_array_get(sequence, 0), qwen2_only));
    const json_t *bytes = json_array_get(sequence, 1);
    if (!json_is_object(bytes))
        return zi_load_wrong(l, "pre_tokenizer.pretokenizers[1]", "an object", bytes);
    ZI_TRY(zi_need_text(l, bytes, "pre_tokenizer.pretokenizers[1].type", "ByteLevel"));
    ZI_TRY(zi_need_false(l, bytes, "pre_tokenizer.pretokenizers[1].add_prefix_space", 0));
    return zi_need_false(l, bytes, "pre_tokenizer.pretokenizers[1].use_regex", 0); /* true where it is missing */
}

/* A template for one text that is only the text: [{"Sequence": {"id": "A", ...}}]. */
static zimage_status check_post_template(const zi_loader *l, const json_t *post, const char *field)
{
    char single[ZI_FIELD_SIZE];
    const json_t *parts = json_object_get(post, "single");
    snprintf(single, sizeof single, "%s.single", field);
    if (!json_is_array(parts))
        return zi_load_wrong(l, single, "an array", parts);
    size_t sequences = 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *token = json_object_get(json_array_get(parts, i), "SpecialToken");
        const char *id = json_string_value(json_object_get(token, "id"));
        if (token)
            return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED,
                                "%s adds the token \"%.80s\" to every text, which is not supported", single,
                                id ? id : "?");
        sequences += zi_is_text(json_object_get(json_object_get(json_array_get(parts, i), "Sequence"), "id"), "A");
    }
    if (sequences != 1 || json_array_size(parts) != 1)
        return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED, "%s is not the text alone, which is not supported", single);
    return ZIMAGE_OK;
}

/* Kinds that add no ids: ByteLevel only moves offsets, and a template may consist of the text alone. */
static zimage_status check_one_post_processor(const zi_loader *l, const json_t *post, const char *field)
{
    char type_field[ZI_FIELD_SIZE];
    if (!json_is_object(post))
        return zi_load_wrong(l, field, "an object", post);
    if (zi_is_text(json_object_get(post, "type"), "TemplateProcessing"))
        return check_post_template(l, post, field);
    snprintf(type_field, sizeof type_field, "%s.type", field);
    return zi_need_text(l, post, type_field, "ByteLevel");
}

static zimage_status check_post_processor(const zi_loader *l, const json_t *root)
{
    const json_t *post = json_object_get(root, "post_processor");
    if (zi_is_absent(post))
        return ZIMAGE_OK;
    if (!json_is_object(post))
        return zi_load_wrong(l, "post_processor", "an object or null", post);
    const json_t *processors = json_object_get(post, "processors");
    if (!zi_is_text(json_object_get(post, "type"), "Sequence") || !json_is_array(processors))
        return check_one_post_processor(l, post, "post_processor");
    for (size_t i = 0; i < json_array_size(processors); i++) {
        char field[ZI_FIELD_SIZE];
        snprintf(field, sizeof field, "post_processor.processors[%zu]", i);
        ZI_TRY(check_one_post_processor(l, json_array_get(processors, i), field));
    }
    return ZIMAGE_OK;
}

static zimage_status check_model_options(const zi_loader *l, const json_t *model)
{
    ZI_TRY(zi_need_text(l, model, "model.type", "BPE"));
    const json_t *dropout = json_object_get(model, "dropout");
    if (!zi_is_absent(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return zi_load_unsupported(l, "model.dropout", "null", dropout);
    ZI_TRY(zi_need_no_text(l, model, "model.unk_token"));
    ZI_TRY(zi_need_no_text(l, model, "model.continuing_subword_prefix"));
    ZI_TRY(zi_need_no_text(l, model, "model.end_of_word_suffix"));
    ZI_TRY(zi_need_false(l, model, "model.fuse_unk", 1));
    ZI_TRY(zi_need_false(l, model, "model.byte_fallback", 1));
    return zi_need_false(l, model, "model.ignore_merges", 1);
}

zimage_status zi_load_stages(const zi_loader *l, const json_t *root, int qwen2_only)
{
    ZI_TRY(read_normalizer(l, root, qwen2_only));
    ZI_TRY(read_pre_tokenizer(l, root, qwen2_only));
    ZI_TRY(check_post_processor(l, root));
    return check_model_options(l, json_object_get(root, "model"));
}

zimage_status zi_load_qwen2_stages(const zi_loader *l)
{
    l->tokenizer->nfc = 1;
    return zi_split_new(ZI_QWEN2_PATTERN, "the pattern of Qwen2", &l->tokenizer->split, l->error);
}
