/*
 * The reference (the `tokenizers` package, 0.23.3) has its own Unicode tables: version 16.0 in its regular expressions
 * (Oniguruma), version 9.0 in its normaliser (unicode-normalization-alignments). PCRE2 and utf8proc have the version of
 * the system's packages (Debian 12: PCRE2 14.0, utf8proc 15.0). Token ids must not depend on that. So these tables list
 * the few code points on which the versions 14.0 to 18.0 and the reference differ in a way that changes tokens.
 *
 * They were computed, not typed: all code points were scanned in the package with `\p{L}`, `\p{N}`, NFD and pairs of
 * combining marks, and compared with the general categories of Unicode 14.0, 15.0, 15.1, 16.0, 17.0 and 18.0 and with
 * the canonical decompositions and combining classes of 18.0 (Python's unicodedata2). Normalisation is stable: it never
 * changes for a character that 9.0 has. So only later characters are listed.
 */
#include "text/unicode.h"

typedef struct class_range {
    uint32_t first, last;
    uint8_t class; /* a zi_char_class */
} class_range;

typedef struct code_range {
    uint32_t first, last;
} code_range;

enum { LETTER = ZI_CHAR_LETTER, NUMBER = ZI_CHAR_NUMBER, OTHER = ZI_CHAR_OTHER };

/*
 * LETTER, NUMBER: letters and numbers of Unicode 16.0 that 14.0 lacks. OTHER: characters that became letters or numbers
 * after 16.0; and U+180E, which \s of PCRE2 matches although Unicode does not call it white space since 6.3.
 */
/* clang-format off */
static const class_range CLASS_RANGES[] = {
    {0x00558, 0x00558, OTHER}, {0x0058B, 0x0058C, OTHER}, {0x0088F, 0x0088F, OTHER}, {0x00C5C, 0x00C5C, OTHER},
    {0x00CDC, 0x00CDC, OTHER}, {0x0180E, 0x0180E, OTHER}, {0x01C89, 0x01C8A, LETTER}, {0x0208F, 0x0208F, OTHER},
    {0x0209D, 0x0209F, OTHER}, {0x0A7CB, 0x0A7CD, LETTER}, {0x0A7CE, 0x0A7CF, OTHER}, {0x0A7D2, 0x0A7D2, OTHER},
    {0x0A7D4, 0x0A7D4, OTHER}, {0x0A7DA, 0x0A7DC, LETTER}, {0x0A7DD, 0x0A7DD, OTHER}, {0x0A7E2, 0x0A7E2, OTHER},
    {0x0A7F1, 0x0A7F1, OTHER}, {0x0AB6C, 0x0AB6D, OTHER}, {0x105C0, 0x105F3, LETTER}, {0x107BB, 0x107BF, OTHER},
    {0x10940, 0x10959, OTHER}, {0x10D40, 0x10D49, NUMBER}, {0x10D4A, 0x10D65, LETTER}, {0x10D6F, 0x10D85, LETTER},
    {0x10EC2, 0x10EC4, LETTER}, {0x10EC5, 0x10EC7, OTHER}, {0x10ED9, 0x10EEE, OTHER}, {0x1123F, 0x11240, LETTER},
    {0x11380, 0x11389, LETTER}, {0x1138B, 0x1138B, LETTER}, {0x1138E, 0x1138E, LETTER}, {0x11390, 0x113B5, LETTER},
    {0x113B7, 0x113B7, LETTER}, {0x113D1, 0x113D1, LETTER}, {0x113D3, 0x113D3, LETTER}, {0x116D0, 0x116E3, NUMBER},
    {0x11B0A, 0x11B0A, OTHER}, {0x11BC0, 0x11BE0, LETTER}, {0x11BF0, 0x11BF9, NUMBER}, {0x11DB0, 0x11DDB, OTHER},
    {0x11DE0, 0x11DE9, OTHER}, {0x11DF1, 0x11DF1, OTHER}, {0x11F02, 0x11F02, LETTER}, {0x11F04, 0x11F10, LETTER},
    {0x11F12, 0x11F33, LETTER}, {0x11F50, 0x11F59, NUMBER}, {0x1246F, 0x1246F, OTHER}, {0x12475, 0x1247F, OTHER},
    {0x12550, 0x12686, OTHER}, {0x1342F, 0x1342F, LETTER}, {0x13441, 0x13446, LETTER}, {0x13460, 0x143FA, LETTER},
    {0x16100, 0x1611D, LETTER}, {0x16130, 0x16139, NUMBER}, {0x16D40, 0x16D6C, LETTER}, {0x16D70, 0x16D79, NUMBER},
    {0x16EA0, 0x16EB8, OTHER}, {0x16EBB, 0x16ED3, OTHER}, {0x16FF2, 0x16FF6, OTHER}, {0x187F8, 0x187FF, OTHER},
    {0x18CD6, 0x18CDA, OTHER}, {0x18CFF, 0x18CFF, LETTER}, {0x18D09, 0x18D20, OTHER}, {0x18D80, 0x18DF2, OTHER},
    {0x18E00, 0x19191, OTHER}, {0x191A0, 0x191D2, OTHER}, {0x1B123, 0x1B128, OTHER}, {0x1B132, 0x1B132, LETTER},
    {0x1B155, 0x1B155, LETTER}, {0x1B168, 0x1B168, OTHER}, {0x1CCF0, 0x1CCF9, NUMBER}, {0x1D2C0, 0x1D2D3, NUMBER},
    {0x1D6A6, 0x1D6A6, OTHER}, {0x1DF1F, 0x1DF24, OTHER}, {0x1DF25, 0x1DF2A, LETTER}, {0x1DF2B, 0x1DF81, OTHER},
    {0x1DF90, 0x1DF96, OTHER}, {0x1DFCD, 0x1DFFF, OTHER}, {0x1E030, 0x1E06D, LETTER}, {0x1E4D0, 0x1E4EB, LETTER},
    {0x1E4F0, 0x1E4F9, NUMBER}, {0x1E5D0, 0x1E5ED, LETTER}, {0x1E5F0, 0x1E5F0, LETTER}, {0x1E5F1, 0x1E5FA, NUMBER},
    {0x1E6C0, 0x1E6DE, OTHER}, {0x1E6E0, 0x1E6E2, OTHER}, {0x1E6E4, 0x1E6E5, OTHER}, {0x1E6E7, 0x1E6ED, OTHER},
    {0x1E6F0, 0x1E6F4, OTHER}, {0x1E6FE, 0x1E6FF, OTHER}, {0x2B739, 0x2B739, LETTER}, {0x2B73A, 0x2B73F, OTHER},
    {0x2B81E, 0x2B81E, OTHER}, {0x2CEA2, 0x2CEAD, OTHER}, {0x2EBF0, 0x2EE5D, LETTER}, {0x31350, 0x323AF, LETTER},
    {0x323B0, 0x33479, OTHER}, {0x3D000, 0x3FC3F, OTHER},
};

/*
 * Combining classes and canonical decompositions (and what they are made of) newer than Unicode 9.0: to the reference
 * these are unassigned, so they neither reorder nor compose. The list is as of 18.0. And U+11A7, the empty trailing
 * consonant: utf8proc (2.8 at least) takes it for a Hangul syllable's third letter and swallows it.
 */
static const code_range INERT_RANGES[] = {
    {0x005C8, 0x005C9}, {0x007FD, 0x007FD}, {0x00897, 0x0089F}, {0x008CA, 0x008D3}, {0x009FE, 0x009FE},
    {0x00C3C, 0x00C3C}, {0x00D3B, 0x00D3C}, {0x00EBA, 0x00EBA}, {0x011A7, 0x011A7}, {0x01715, 0x01715},
    {0x01ABF, 0x01AF0}, {0x01DF6, 0x01DFA}, {0x0A82C, 0x0A82C}, {0x105C9, 0x105C9}, {0x105D2, 0x105D2},
    {0x105DA, 0x105DA}, {0x105E4, 0x105E4}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC},
    {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11382, 0x11385}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
    {0x11390, 0x11391}, {0x113B8, 0x113B8}, {0x113BB, 0x113BB}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
    {0x113C7, 0x113C9}, {0x113CE, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930},
    {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x1611E, 0x16129}, {0x1612F, 0x1612F}, {0x16D63, 0x16D63},
    {0x16D67, 0x16D6A}, {0x16FF0, 0x16FF1}, {0x1D127, 0x1D128}, {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C},
    {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6},
    {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5},
};
/* clang-format on */

zi_char_class zi_char_class_of_reference(uint32_t code_point)
{
    size_t low = 0, high = sizeof CLASS_RANGES / sizeof CLASS_RANGES[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code_point > CLASS_RANGES[middle].last)
            low = middle + 1;
        else if (code_point < CLASS_RANGES[middle].first)
            high = middle;
        else
            return (zi_char_class)CLASS_RANGES[middle].class;
    }
    return ZI_CHAR_AS_IS;
}

int zi_char_is_inert(uint32_t code_point)
{
    size_t low = 0, high = sizeof INERT_RANGES / sizeof INERT_RANGES[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code_point > INERT_RANGES[middle].last)
            low = middle + 1;
        else if (code_point < INERT_RANGES[middle].first)
            high = middle;
        else
            return 1;
    }
    return 0;
}

/* Length of the valid character at `c`, 0 if there is none; the ranges of the second byte are Unicode's table 3-7. */
static size_t character_length(const uint8_t *c, size_t left)
{
    if (c[0] < 0x80)
        return 1;
    size_t length = c[0] >= 0xF0 ? 4 : c[0] >= 0xE0 ? 3 : 2;
    if (c[0] < 0xC2 || c[0] > 0xF4 || left < length)
        return 0;
    uint8_t low = c[0] == 0xE0 ? 0xA0 : c[0] == 0xF0 ? 0x90 : 0x80;
    uint8_t high = c[0] == 0xED ? 0x9F : c[0] == 0xF4 ? 0x8F : 0xBF;
    if (c[1] < low || c[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((c[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

size_t zi_utf8_valid_prefix(const char *text, size_t length)
{
    size_t offset = 0;
    while (offset < length) {
        size_t step = character_length((const uint8_t *)text + offset, length - offset);
        if (!step)
            break;
        offset += step;
    }
    return offset;
}
