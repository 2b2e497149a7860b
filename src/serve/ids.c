#include "ids.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";

int id_has_letter(char c)
{
    return c && strchr(letters, c) != NULL;
}

int id_make(char id[ID_LENGTH + 1])
{
    uint8_t bytes[16], bits = 0;
    int have = 0;
    size_t at = 0;
    if (getentropy(bytes, sizeof bytes) != 0)
        return 0;
    uint32_t buffer = 0;
    for (int i = 0; i < ID_LENGTH; i++) {
        if (have < 5) {
            bits = at < sizeof bytes ? bytes[at++] : 0;
            buffer = buffer << 8 | bits;
            have += 8;
        }
        have -= 5;
        id[i] = letters[buffer >> have & 31];
    }
    id[ID_LENGTH] = 0;
    return 1;
}
