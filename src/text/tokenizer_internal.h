/* The tokenizer as tokenizer_load.c fills it and tokenizer.c uses it. */
#ifndef ZI_TEXT_TOKENIZER_INTERNAL_H
#define ZI_TEXT_TOKENIZER_INTERNAL_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/split.h"
#include "text/tokenizer.h"

struct zi_tokenizer {
    zi_added raw;        /* added tokens looked for in the text as it came */
    zi_added normalized; /* those looked for after normalisation ("normalized": true) */
    int nfc;             /* 0: the file has no normaliser */
    zi_split *split;
    zi_bpe bpe;
    int64_t vocab_size;
};

#endif
