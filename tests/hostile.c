/* A library that tests put where nobody may look for one. Loading it makes the file that ZIMAGE_TEST_MARK names. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void leave_mark(void)
{
    const char *path = getenv("ZIMAGE_TEST_MARK");
    int file = path ? open(path, O_WRONLY | O_CREAT, 0600) : -1;
    if (file >= 0)
        close(file);
}
