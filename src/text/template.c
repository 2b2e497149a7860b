#include "text/template.h"

#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

/* The templates of docs/spec/text-encoder.md 5, for a tokenizer that has none of its own. */
typedef struct fixed_template {
    const char *name;
    const char *before, *after;
    const char *needed[5]; /* the added tokens in before and after, ended by NULL */
} fixed_template;

static const fixed_template TEMPLATES[] = {
    [ZIMAGE_TEMPLATE_NONE] = {"none", "", "", {NULL}},
    [ZIMAGE_TEMPLATE_Z_IMAGE] = {"z-image",
                                 "<|im_start|>user\n",
                                 "<|im_end|>\n<|im_start|>assistant\n",
                                 {"<|im_start|>", "<|im_end|>", NULL}},
    [ZIMAGE_TEMPLATE_KLEIN] = {"klein",
                               "<|im_start|>user\n",
                               "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
                               {"<|im_start|>", "<|im_end|>", "<think>", "</think>", NULL}},
};

/* A tokenizer without these tokens would take them for ordinary text: it belongs to another model. */
static zimage_status check_needed(const zi_tokenizer *tokenizer, const fixed_template *wrap, zimage_error *error)
{
    for (const char *const *needed = wrap->needed; *needed; needed++)
        if (!zi_added_find(&tokenizer->raw, *needed) && !zi_added_find(&tokenizer->normalized, *needed))
            return zi_fail(error, ZIMAGE_ERROR_MODEL,
                           "the tokenizer has no added token \"%s\", which the %s template needs", *needed, wrap->name);
    return ZIMAGE_OK;
}

static zimage_status apply_fixed(const fixed_template *wrap, const char *prompt, size_t length, char **whole,
                                 size_t *total, zimage_error *error)
{
    size_t before = strlen(wrap->before), after = strlen(wrap->after);
    *total = before + length + after;
    *whole = malloc(*total + 1);
    if (!*whole)
        return zi_fail_memory(error, "the prompt", *total + 1);
    memcpy(*whole, wrap->before, before);
    if (length)
        memcpy(*whole + before, prompt, length);
    memcpy(*whole + before + length, wrap->after, after);
    return ZIMAGE_OK;
}

zimage_status zi_template_apply(const zi_tokenizer *tokenizer, zimage_template kind, const char *prompt, size_t length,
                                char **whole, size_t *total, zimage_error *error)
{
    *whole = NULL;
    *total = 0;
    if ((size_t)kind >= sizeof TEMPLATES / sizeof TEMPLATES[0])
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "template: %d, expected a zimage_template", (int)kind);
    if (kind == ZIMAGE_TEMPLATE_NONE || !tokenizer->chat) {
        ZI_TRY(check_needed(tokenizer, &TEMPLATES[kind], error));
        return apply_fixed(&TEMPLATES[kind], prompt, length, whole, total, error);
    }
    const zi_chat chat = {
        .source = tokenizer->chat,
        .name = tokenizer->chat_name,
        .content = prompt,
        .length = length,
        .thinking = kind == ZIMAGE_TEMPLATE_Z_IMAGE,
        .tokens = tokenizer->special,
        .token_count = ZI_SPECIAL_NAMES,
    };
    return zi_jinja_render(&chat, whole, total, error);
}
