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
 * Names and prompts are compared as tokens (fold.h). Of a prompt the longest runs of tokens are taken that are names,
 * or plurals of names; the rest is unknown. Numbers, single letters and parts in hiragana, which are grammar in most
 * cases, are not looked at. That words such as "of", "photo" or "beautiful" say nothing is said by the list itself.
 */
#ifndef ZI_SHARED_VOCABULARY_H
#define ZI_SHARED_VOCABULARY_H

#include <stddef.h>

#include "zimage.h"

#define VOCABULARY_FILE "words.txt"

typedef struct vocabulary vocabulary;

#define VOCABULARY_PARTS   5    /* of a prompt, that are unknown and told */
#define VOCABULARY_WARNING 1024 /* bytes of a warning */

/* A name in the list. */
typedef struct vocabulary_name {
    const char *text;  /* as the file has it */
    char *key;         /* its tokens, separated by spaces */
    const char *thing; /* the first name of its thing; NULL: it names no thing */
    int is_known;
    int is_alone; /* its script is written without spaces */
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

/* Gets a part of a prompt that the model does not know, in UTF-8 without control characters, and the name of what is
 * nearest; NULL: nothing is near. */
typedef void (*vocabulary_fn)(const char *part, const char *nearest, void *user);
/* Calls `unknown` for each such part of the prompt, once, and VOCABULARY_PARTS times at most. Returns how many calls
 * there were. Several threads may check with one list. */
size_t vocabulary_check(const vocabulary *list, const char *prompt, vocabulary_fn unknown, void *user);
/* The same as a sentence: `MODEL does not know "A" (nearest: "B"), "C"`. list, prompt: NULL is allowed. 0: there is
 * nothing to warn of. */
int vocabulary_warning(const vocabulary *list, const char *model, const char *prompt, char text[VOCABULARY_WARNING]);
/* What is nearest to a text by the list, by spelling, or because its name holds the text; NULL: nothing. */
const char *vocabulary_nearest(const vocabulary *list, const char *text);

#endif
