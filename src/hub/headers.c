#include "hub/headers.h"

#include <ctype.h>
#include <string.h>

#define WAIT_DIGITS 6 /* of a number of seconds; more are no wait but never */

int hub_header_etag(const char *value, char etag[HUB_ETAG_MAX])
{
    value += strspn(value, " \t");
    if (!strncmp(value, "W/", 2))
        value += 2;
    value += *value == '"';
    size_t length = strcspn(value, "\" \t\r\n");
    if (length >= HUB_ETAG_MAX)
        return 0;
    memcpy(etag, value, length);
    etag[length] = 0;
    return hub_is_etag(etag);
}

/* Digits at *text, which moves behind them; 0: there are none, or too many for 64 bits. */
static int read_digits(const char **text, uint64_t *number)
{
    const char *begin = *text;
    *number = 0;
    for (; isdigit((unsigned char)**text); ++*text) {
        unsigned digit = (unsigned)(**text - '0');
        if (*number > (UINT64_MAX - digit) / 10)
            return 0;
        *number = *number * 10 + digit;
    }
    return *text > begin;
}

static int is_end(const char *text)
{
    return text[strspn(text, " \t\r\n")] == 0;
}

int hub_header_number(const char *value, uint64_t *number)
{
    value += strspn(value, " \t");
    return read_digits(&value, number) && is_end(value);
}

int hub_header_range(const char *value, uint64_t *first, uint64_t *last, uint64_t *total)
{
    value += strspn(value, " \t");
    if (strncmp(value, "bytes ", 6) != 0)
        return 0;
    value += 6;
    if (!read_digits(&value, first) || *value++ != '-' || !read_digits(&value, last) || *value++ != '/')
        return 0;
    *total = UINT64_MAX;
    if (*value == '*')
        value++;
    else if (!read_digits(&value, total))
        return 0;
    return is_end(value) && *first <= *last && *last < *total;
}

/* Links are separated by commas; an address may hold commas, too. */
int hub_header_next(const char *value, char *address, size_t size)
{
    for (const char *begin = strchr(value, '<'); begin; begin = strchr(begin, '<')) {
        const char *end = strchr(++begin, '>');
        if (!end)
            return 0;
        size_t length = (size_t)(end - begin), parameters = strcspn(end, ",<");
        const char *relation = strstr(end, "rel=\"next\"");
        if (relation && (size_t)(relation - end) < parameters) {
            if (length == 0 || length >= size)
                return 0;
            memcpy(address, begin, length);
            address[length] = 0;
            return 1;
        }
        begin = end;
    }
    return 0;
}

/* The number of a parameter such as ";t=55". */
static int parameter(const char *value, char name, uint64_t *number)
{
    for (const char *at = strchr(value, ';'); at; at = strchr(at + 1, ';')) {
        const char *text = at + 1 + strspn(at + 1, " ");
        if (text[0] == name && text[1] == '=') {
            text += 2;
            return strspn(text, "0123456789") <= WAIT_DIGITS && read_digits(&text, number);
        }
    }
    return 0;
}

double hub_header_wait(const char *value)
{
    uint64_t left = 1, seconds = 0;
    return parameter(value, 'r', &left) && left == 0 && parameter(value, 't', &seconds) ? (double)seconds : 0;
}
