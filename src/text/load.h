/*
 * Reading a tokenizer's files. A setting that this tokenizer does not handle exactly as the reference does is an error,
 * never ignored: another normaliser or pre-tokenizer would silently give other ids.
 */
#ifndef ZI_TEXT_LOAD_H
#define ZI_TEXT_LOAD_H

#include "base/json.h"
#include "text/tokenizer_internal.h"

/* The largest id. No text encoder has nearly as many tokens. */
#define ZI_ID_LIMIT 0x7FFFFFFE
/* Bytes. The time of matching grows with the longest added token; that of Qwen3 has 20. */
#define ZI_ADDED_TOKEN_LIMIT 256
/* Added tokens of one tokenizer. The published ones have 26. */
#define ZI_ADDED_TOKENS_LIMIT 8192

/* Bytes of a field's name in a message. */
#define ZI_FIELD_SIZE 160

typedef struct zi_named_id {
    int32_t id;
    const char *name; /* points into the JSON */
} zi_named_id;

/* An added token as a file declares it. */
typedef struct zi_declared {
    const char *content; /* points into the JSON */
    size_t length;
    int32_t id; /* -1: the file gives none, the next free one is taken */
    int normalized, special;
} zi_declared;

typedef struct zi_loader {
    const char *path; /* of the file that is being read, for messages */
    zimage_error *error;
    zi_tokenizer *tokenizer;
    const json_t *vocab;
    const char *vocab_name; /* of the vocabulary, for messages */
    zi_named_id *ids;       /* of the vocabulary, and of the added tokens that are not in it */
    size_t id_count;
    zi_declared *declared; /* added tokens, in the order in which they get their ids */
    size_t declared_count, declared_capacity;
} zi_loader;

/* ---- messages and checks (load_checks.c) ------------------------------------------------------------------------- */

/* "PATH: FORMAT" */
zimage_status zi_load_fail(const zi_loader *l, zimage_status status, const char *format, ...) ZI_PRINTF(3, 4);
/* "PATH: FIELD: VALUE, expected WHAT" */
zimage_status zi_load_wrong(const zi_loader *l, const char *field, const char *what, const json_t *value);
/* "PATH: FIELD: VALUE, only WHAT is supported" */
zimage_status zi_load_unsupported(const zi_loader *l, const char *field, const char *what, const json_t *value);
int zi_is_absent(const json_t *value); /* missing or null */
int zi_is_text(const json_t *value, const char *text);

/* field is the whole path, for messages; its last part is the key in the object. */

/* A flag that must be false. It may be absent if absent_is_false. */
zimage_status zi_need_false(const zi_loader *l, const json_t *object, const char *field, int absent_is_false);
zimage_status zi_need_text(const zi_loader *l, const json_t *object, const char *field, const char *wanted);
/* A string that must be null, missing or "". */
zimage_status zi_need_no_text(const zi_loader *l, const json_t *object, const char *field);

/* ---- the parts --------------------------------------------------------------------------------------------------- */

/*
 * load_stages.c: everything of a tokenizer.json but the vocabulary and the added tokens. qwen2_only: the pattern and
 * the normaliser must be those of Qwen2.
 */
zimage_status zi_load_stages(const zi_loader *l, const json_t *root, int qwen2_only);
/* The pattern and the normaliser of Qwen2, for a folder without a tokenizer.json. */
zimage_status zi_load_qwen2_stages(const zi_loader *l);

/* load_vocabulary.c: model.vocab and model.merges of a tokenizer.json; or vocab.json, and the text of merges.txt. */
zimage_status zi_load_vocabulary(zi_loader *l, const char *field, const json_t *vocab);
zimage_status zi_load_merges(const zi_loader *l, const json_t *merges);
zimage_status zi_load_merges_text(const zi_loader *l, const char *text, size_t length);
/* The id of `name` in the vocabulary; -1: it is not there. */
int32_t zi_vocabulary_id(const zi_loader *l, const char *name);
/* value is the id of `name` in `field`. */
zimage_status zi_read_id(const zi_loader *l, const char *field, const char *name, const json_t *value, int32_t *id);

/* load_added.c */

/*
 * Reads content and flags of an added token, all but its id. strict: no flag may be missing. The others are false where
 * they are missing, and normalized is the opposite of special.
 */
zimage_status zi_read_declared(const zi_loader *l, const char *field, const json_t *token, int strict,
                               zi_declared *declared);
zimage_status zi_declare(zi_loader *l, const zi_declared *declared);
/* The last declared token with this content, or NULL. */
zi_declared *zi_find_declared(const zi_loader *l, const char *content);
/* Declares added_tokens of a tokenizer.json. */
zimage_status zi_declare_tokens(zi_loader *l, const json_t *tokens);
void zi_sort_declared(zi_loader *l); /* by id */
/* Fills in ids that no file gives. check: another id than the reference's is an error. */
zimage_status zi_number_declared(zi_loader *l, int check);
/* Gives ids to the declared tokens and the tokens to the tokenizer. Checks all ids. */
zimage_status zi_finish_added(zi_loader *l);

/* load_settings.c: what a folder says beside the vocabulary. Each object may be NULL: the folder has no such file. */
typedef struct zi_settings {
    const json_t *config;    /* tokenizer_config.json */
    const json_t *map;       /* special_tokens_map.json */
    const json_t *added;     /* added_tokens.json */
    const json_t *tokenizer; /* tokenizer.json */
    const char *config_path, *map_path, *added_path, *tokenizer_path;
} zi_settings;

/* 1: every reader of the folder takes the pattern and the normaliser from its tokenizer.json. */
int zi_settings_any_pattern(const zi_settings *settings);
/* Refuses settings that change the reference's ids and are not handled. Sets the truncation side and the like. */
zimage_status zi_load_settings(zi_loader *l, const zi_settings *settings);

/* load_chat.c: the chat template of a folder. config may be NULL. */
zimage_status zi_load_chat(zi_loader *l, const char *folder, const json_t *config);

/* load_special.c: declares the added tokens of all files of a folder, after its vocabulary has been read. */
zimage_status zi_declare_folder(zi_loader *l, const zi_settings *settings);

#endif
