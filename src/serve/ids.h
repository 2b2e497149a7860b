/* Ids that nobody can guess: 128 random bits in base32. */
#ifndef ZI_SERVE_IDS_H
#define ZI_SERVE_IDS_H

#define ID_LENGTH       26
#define OWNER_HASH_TEXT 33 /* of an API key: half of its SHA-256, and a zero */

/* 0: the system has no random bits. */
int id_make(char id[ID_LENGTH + 1]);
/* Whether a character may be one of an id. */
int id_has_letter(char c);

#endif
