/*
 * What a small model can draw: the file words.txt in its folder, which diffusers ignores. Text in UTF-8:
 *
 *   zimage words 1
 *   automobile<TAB>自動車<TAB>Auto<TAB>~car      a thing: names that the model knows; with ~ names that it does not know
 *   =<TAB>a<TAB>on<TAB>background             words that name no thing but may stand beside one
 *
 * The first name of a thing is the one that is printed. The file comes from strangers: its size, its lines and its
 * bytes are checked, and nothing in it is a path.
 *
 * Names and prompts are compared as tokens: runs of letters and digits in lower case; a Chinese or Japanese character
 * is a token of its own. Everything else (spaces, punctuation, emoji) separates tokens.
 */
#ifndef ZI_SHARED_VOCABULARY_H
#define ZI_SHARED_VOCABULARY_H

#include <stddef.h>

#include "zimage.h"

#define VOCABULARY_FILE "words.txt"

typedef struct vocabulary vocabulary;

/* A name in the list. */
typedef struct vocabulary_name {
    const char *text;  /* as the file has it */
    const char *key;   /* its tokens, separated by spaces */
    const char *thing; /* the first name of its thing; NULL: it names no thing */
    int is_known;
} vocabulary_name;

/* Reads FOLDER/words.txt; vocabulary_free it. *list is NULL if there is no such file. */
zimage_status vocabulary_read(const char *folder, vocabulary **list, zimage_error *error);
/* The same for a file's bytes: text is on the heap, has room for two more bytes, and is owned by the list, also after a
 * failure. path: for messages. */
zimage_status vocabulary_parse(char *text, size_t size, const char *path, vocabulary **list, zimage_error *error);
void vocabulary_free(vocabulary *list);

/* The names in the file's order. */
size_t vocabulary_count(const vocabulary *list);
const vocabulary_name *vocabulary_at(const vocabulary *list, size_t i);

/* The tokens of a text, separated by spaces; free() it. NULL: no memory. */
char *vocabulary_key(const char *text);

/* Gets a part of a prompt that the model does not know, and the nearest thing; NULL: nothing is near. */
typedef void (*vocabulary_fn)(const char *part, const char *nearest, void *user);
/* Calls `unknown` for each such part of the prompt, `most` times at most. Numbers are not looked at. Returns how many
 * calls there were. */
size_t vocabulary_check(const vocabulary *list, const char *prompt, size_t most, vocabulary_fn unknown, void *user);
/* The known thing whose name is nearest to a key by spelling (at most a third of its characters differ), or NULL. */
const char *vocabulary_nearest(const vocabulary *list, const char *key);

#endif
