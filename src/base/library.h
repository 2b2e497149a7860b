/*
 * Shared libraries that are opened at run time. They are opened by absolute paths only. A bare name would make the
 * loader search LD_LIBRARY_PATH, and an empty entry there means the current folder.
 */
#ifndef ZI_BASE_LIBRARY_H
#define ZI_BASE_LIBRARY_H

#include <stddef.h>

/*
 * The folder of the file that holds this code: the program, or libzimage. Returns 0 if the system does not say it as an
 * absolute path.
 */
int zi_code_folder(char *folder, size_t size);

/*
 * Opens a library by its file name: in the folder of this code, in ../lib of it, or in the system's folders. The first
 * such file decides. It stays loaded until the process ends. NULL: why says what is wrong.
 */
void *zi_library_open(const char *name, char *why, size_t size);

#endif
