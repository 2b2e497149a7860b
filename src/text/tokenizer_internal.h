/* The tokenizer, which tokenizer_load.c fills and tokenizer.c uses. */
#ifndef ZI_TEXT_TOKENIZER_INTERNAL_H
#define ZI_TEXT_TOKENIZER_INTERNAL_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/jinja.h"
#include "text/split.h"
#include "text/tokenizer.h"

#define ZI_SPECIAL_NAMES 7 /* bos_token, eos_token, ... */

struct zi_tokenizer {
    zi_added raw;        /* added tokens that are searched in the text before normalisation */
    zi_added normalized; /* added tokens that are searched after it ("normalized": true) */
    int nfc;             /* 1: NFC; 0: the file has no normaliser */
    zi_split *split;
    zi_bpe bpe;
    int64_t vocab_size;
    int keep_end;      /* 1: a text with too many ids loses its first ones ("truncation_side": "left") */
    int pad_left;      /* 1: the folder fills a prompt up at its beginning ("padding_side": "left") */
    int split_special; /* 1: special tokens are taken for ordinary text ("split_special_tokens") */
    char *chat;        /* the folder's chat template, which belongs to the tokenizer; NULL: the folder has none */
    char *chat_name;   /* of its file and field, for messages */
    zi_chat_token special[ZI_SPECIAL_NAMES]; /* the tokens that a template may name; owned */
};

#endif
