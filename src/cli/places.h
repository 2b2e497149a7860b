/* The places where files will be written: tried before minutes of work. */
#ifndef ZI_CLI_PLACES_H
#define ZI_CLI_PLACES_H

#include <jansson.h>
#include <stddef.h>

/* Whether a file can be written: a file of that name, or one in its folder, is created and removed again. An image's
 * name ends in .png, .jpg, .jpeg or .webp. 0: a printed sentence. label begins the sentence: "--output". */
int cli_can_write(const char *command, const char *label, const char *path);
int cli_can_write_image(const char *command, const char *label, const char *path);
/* The same for a default name: a file that exists stays, and the new one gets another name. */
int cli_can_create(const char *command, const char *label, const char *path);

/* Whether any file can be written in a folder. */
int cli_can_write_in(const char *command, const char *label, const char *folder);
/* Makes the folders of "FOLDER/a/b/file" below FOLDER. 0, or an errno value. */
int cli_parents_make(const char *folder, const char *path);

/* Whether a path is a symbolic link: then a sentence is printed. A link in the folder of a batch may lead out of it. */
int cli_is_link(const char *command, const char *label, const char *path);

/* Creates a folder and its missing parents; *existing: bytes of the path that were there before. 0: a printed sentence,
 * and nothing was created. */
int cli_folder_make(const char *command, const char *label, const char *path, size_t *existing);
/* Removes those folders again, as far as they are empty. */
void cli_folder_unmake(const char *path, size_t existing);
/* Whether the folder exists or can be created; nothing stays. 0: a printed sentence. */
int cli_can_make_folder(const char *command, const char *label, const char *path);

/* Whether it is an ordinary file. */
int cli_is_file(const char *path);
/* Whether a file is complete: files appear when they are, apart from the empty one that claims a name. */
int cli_is_complete(const char *path);
/* The same for a name that could not be given to a new file. One that is only claimed is waited for. If it stays empty
 * for a second, a process that was killed has left it: then it is removed, and *removed is 1. */
int cli_is_taken(const char *path, int *removed);
/* Whether there is anything of that name, also a symbolic link that leads nowhere. */
int cli_exists(const char *path);
/* The first name with a number above *number that does not exist and is no key of `taken`; number 1 is path itself.
 * Sets *number. The caller releases the name with free. NULL: errno says why. */
char *cli_free_name(const char *path, int *number, const json_t *taken);

#endif
