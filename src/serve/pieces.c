#include "pieces.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base64.h"

static void add(pieces *p, piece new)
{
    if (p->count == p->allocated) {
        size_t allocated = p->allocated ? 2 * p->allocated : 8;
        piece *items = realloc(p->items, allocated * sizeof *items);
        if (!items) {
            p->is_broken = 1;
            free(new.owned);
            return;
        }
        p->items = items;
        p->allocated = allocated;
    }
    p->items[p->count++] = new;
    p->total += new.is_base64 ? base64_length(new.size) : new.size;
}

void pieces_add_owned(pieces *p, char *text)
{
    if (text)
        add(p, (piece){(const uint8_t *)text, strlen(text), 0, text});
    p->is_broken |= text == NULL;
}

void pieces_add_text(pieces *p, const char *text)
{
    pieces_add_owned(p, strdup(text));
}

void pieces_add_bytes(pieces *p, const uint8_t *data, size_t size)
{
    add(p, (piece){data, size, 0, NULL});
}

void pieces_add_base64(pieces *p, const uint8_t *data, size_t size)
{
    add(p, (piece){data, size, 1, NULL});
}

void pieces_add_json(pieces *p, json_t *value)
{
    pieces_add_owned(p, value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL);
    json_decref(value);
}

static void add_json_with(pieces *p, json_t *object, const char *name, piece base64)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    int has_more = json_object_size(object) > 0;
    json_decref(object);
    if (text && has_more)
        text[strlen(text) - 1] = ','; /* in place of its closing brace */
    pieces_add_owned(p, text && !has_more ? (free(text), strdup("{")) : text);
    pieces_add_text(p, "\"");
    pieces_add_text(p, name);
    pieces_add_text(p, "\":\"");
    add(p, base64);
    pieces_add_text(p, "\"}");
}

void pieces_add_json_with(pieces *p, json_t *object, const char *name, const uint8_t *data, size_t size)
{
    add_json_with(p, object, name, (piece){data, size, 1, NULL});
}

void pieces_add_json_copied(pieces *p, json_t *object, const char *name, const uint8_t *data, size_t size)
{
    char *copy = malloc(size);
    if (copy)
        memcpy(copy, data, size);
    p->is_broken |= copy == NULL;
    add_json_with(p, object, name, (piece){(const uint8_t *)copy, copy ? size : 0, 1, copy});
}

size_t pieces_read(const pieces *p, size_t at, char *buffer, size_t most)
{
    size_t copied = 0;
    for (size_t i = 0; i < p->count && copied < most; i++) {
        const piece *item = &p->items[i];
        size_t length = item->is_base64 ? base64_length(item->size) : item->size;
        if (at >= length) {
            at -= length;
            continue;
        }
        size_t count = length - at < most - copied ? length - at : most - copied;
        if (item->is_base64)
            base64_write(item->data, item->size, at, buffer + copied, count);
        else
            memcpy(buffer + copied, item->data + at, count);
        copied += count;
        at = 0;
    }
    return copied;
}

void pieces_clear(pieces *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->items[i].owned);
    free(p->items);
    *p = (pieces){0};
}
