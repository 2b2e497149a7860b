/* The tokenizer, which tokenizer_load.c fills and tokenizer.c uses. */
#ifndef ZI_TEXT_TOKENIZER_INTERNAL_H
#define ZI_TEXT_TOKENIZER_INTERNAL_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/split.h"
#include "text/tokenizer.h"

struct zi_tokenizer {
    zi_added raw;        /* added tokens that are searched in the text before normalisation */
    zi_added normalized; /* added tokens that are searched after it ("normalized": true) */
    int nfc;             /* 1: NFC; 0: the file has no normaliser */
    zi_split *split;
    zi_bpe bpe;
    int64_t vocab_size;
};

#endif
