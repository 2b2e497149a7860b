/*
 * The pattern of a tokenizer.json is written for Oniguruma. PCRE2 shares most of its syntax, but not all: in Oniguruma
 * `^` and `$` match at every line, `.` and `\w` match other characters, `[a&&b]` is an intersection, `{2}+` a
 * repetition. A pattern with such a construct would silently give other tokens. So only constructs that are known to
 * agree are accepted: ASCII literals, the classes \s \S \p{L} \p{N} (unicode_tables.c makes up for the Unicode
 * versions), alternation, groups, look-around and repetition.
 */
#include "text/pattern.h"

#include <string.h>

typedef struct scanner {
    const char *pattern;
    const char *at;
    const char *problem; /* NULL: none */
} scanner;

static int problem(scanner *s, const char *what)
{
    s->problem = what;
    return 0;
}

static int is_alphanumeric(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* At a backslash. */
static int scan_escape(scanner *s)
{
    char c = s->at[1];
    if (c == 'p' || c == 'P') {
        if (strncmp(s->at + 2, "{L}", 3) != 0 && strncmp(s->at + 2, "{N}", 3) != 0)
            return problem(s, "a property other than \\p{L} and \\p{N}");
        s->at += 5;
        return 1;
    }
    if (c == '\0')
        return problem(s, "a backslash at the end");
    if (is_alphanumeric(c) && !strchr("sSrnt", c))
        return problem(s, "an escape other than \\s \\S \\r \\n \\t \\p{L} \\p{N} and punctuation");
    if ((unsigned char)c < 0x20 || (unsigned char)c >= 0x7F)
        return problem(s, "an escaped control or non-ASCII character");
    s->at += 2;
    return 1;
}

/* At a '['; ends after the matching ']'. */
static int scan_class(scanner *s)
{
    s->at += s->at[1] == '^' ? 2 : 1;
    if (*s->at == ']')
        return problem(s, "a ']' at the start of a character class");
    while (*s->at != ']') {
        if (*s->at == '\0')
            return problem(s, "a character class without end");
        if (*s->at == '[')
            return problem(s, "a class within a character class");
        if (*s->at == '&' && s->at[1] == '&')
            return problem(s, "an intersection of character classes");
        if ((unsigned char)*s->at >= 0x80)
            return problem(s, "a character beyond ASCII");
        if (*s->at != '\\')
            s->at++;
        else if (!scan_escape(s))
            return 0;
    }
    s->at++;
    return 1;
}

/* At a '('; ends after the opening of the group. */
static int scan_group(scanner *s)
{
    static const char *const OPENINGS[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (s->at[1] == '*')
        return problem(s, "a verb");
    if (s->at[1] != '?') {
        s->at++;
        return 1;
    }
    for (size_t i = 0; i < sizeof OPENINGS / sizeof OPENINGS[0]; i++) {
        size_t length = strlen(OPENINGS[i]);
        if (strncmp(s->at, OPENINGS[i], length) == 0) {
            s->at += length;
            return 1;
        }
    }
    return problem(s, "a group other than (?: (?i: (?= (?! (?<= (?<! (?>");
}

/* At a '{': accepts {n}, {n,} and {n,m}. Not with ? or + after it, which mean something else in Oniguruma. */
static int scan_interval(scanner *s)
{
    const char *c = s->at + 1;
    size_t digits = strspn(c, "0123456789");
    c += digits;
    if (*c == ',')
        c += 1 + strspn(c + 1, "0123456789");
    if (!digits || *c != '}')
        return problem(s, "a '{' that does not begin an interval {n}, {n,} or {n,m}");
    if (c[1] == '?' || c[1] == '+')
        return problem(s, "an interval followed by ? or +");
    s->at = c + 1;
    return 1;
}

static int scan_one(scanner *s)
{
    switch (*s->at) {
    case '\\':
        return scan_escape(s);
    case '[':
        return scan_class(s);
    case '(':
        return scan_group(s);
    case '{':
        return scan_interval(s);
    case '^':
    case '$':
    case '.':
        return problem(s, "one of ^ $ .");
    default:
        if ((unsigned char)*s->at >= 0x80)
            return problem(s, "a character beyond ASCII");
        s->at++;
        return 1;
    }
}

zimage_status zi_pattern_check(const char *pattern, const char *where, zimage_error *error)
{
    scanner s = {pattern, pattern, NULL};
    while (*s.at && scan_one(&s)) {
    }
    if (!s.problem)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "%s holds %s at byte %zu, which is not supported", where, s.problem,
                   (size_t)(s.at - pattern));
}
