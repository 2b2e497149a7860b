/*
 * The part of the Jinja language that chat templates need. Everything else is refused with a sentence, so a template is
 * either rendered as Jinja renders it, or not at all.
 */
#ifndef ZI_TEXT_JINJA_H
#define ZI_TEXT_JINJA_H

#include "base/error.h"

/* "eos_token" and the like, which a template may name. content NULL: the folder has no such token. */
typedef struct zi_chat_token {
    const char *name;
    char *content;
} zi_chat_token;

/* One message of the user, as the pipeline of diffusers gives it: apply_chat_template(add_generation_prompt=True). */
typedef struct zi_chat {
    const char *source; /* the template */
    const char *name;   /* of its file, for messages */
    const char *content;
    size_t length;
    int thinking; /* enable_thinking */
    const zi_chat_token *tokens;
    size_t token_count;
} zi_chat;

/* *text, *length: the rendered text, released with free(). */
zimage_status zi_jinja_render(const zi_chat *chat, char **text, size_t *length, zimage_error *error);

#endif
