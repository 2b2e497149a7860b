/*
 * The interpreter. A value has Python's meaning in every operation that is here; all others are refused. Its work is
 * limited, so no template takes long.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grow.h"
#include "text/jinja_internal.h"

/* Bytes that are touched, with STEP for each expression and statement. */
#define WORK_LIMIT ((uint64_t)256 << 20)
#define STEP       64

#define EVALUATION_DEPTH 200

typedef enum value_kind { UNDEFINED, NONE, BOOLEAN, INTEGER, TEXT, LIST, MAP, METHOD, FUNCTION } value_kind;

typedef struct value value;

typedef struct entry entry;

typedef struct map {
    int is_namespace; /* 1: made by namespace(), so {% set a.b = c %} may change it */
    entry *first;
} map;

struct value {
    value_kind kind;
    int64_t number;   /* of integers and booleans; the number of items of a list */
    const char *text; /* of texts; the name of methods and functions */
    size_t length;
    const value *items; /* of lists; the object of a method */
    map *fields;
};

struct entry {
    const char *name;
    size_t length;
    value value;
    entry *next;
};

typedef struct output {
    char *text;
    size_t length, capacity;
} output;

typedef struct runner {
    zi_jinja *j;
    entry *variables; /* the innermost first */
    output *out;
    uint64_t work;
    int depth; /* of the expressions that are being evaluated */
} runner;

static value undefined(void)
{
    return (value){.kind = UNDEFINED};
}

static value boolean(int is_true)
{
    return (value){.kind = BOOLEAN, .number = is_true};
}

static value integer(int64_t number)
{
    return (value){.kind = INTEGER, .number = number};
}

static value text_of(const char *text, size_t length)
{
    return (value){.kind = TEXT, .text = text, .length = length};
}

static value refuse(runner *r, const zi_jinja_node *node, const char *what)
{
    zi_jinja_refuse(r->j, node->at, "%s", what);
    return undefined();
}

/* 0: the work is too much, or there is an error. */
static int charge(runner *r, const zi_jinja_node *node, size_t bytes)
{
    r->work += STEP + bytes;
    if (r->work > WORK_LIMIT)
        zi_jinja_refuse(r->j, node->at, "too much work");
    return r->j->status == ZIMAGE_OK;
}

static int is_true(const value *v)
{
    switch (v->kind) {
    case BOOLEAN:
    case INTEGER:
    case LIST:
        return v->number != 0;
    case TEXT:
        return v->length != 0;
    case MAP:
        return v->fields->first != NULL || v->fields->is_namespace;
    case METHOD:
    case FUNCTION:
        return 1;
    case UNDEFINED:
    case NONE:
        break;
    }
    return 0;
}

/* Of a name or text in a message. */
static int shown_length(size_t length)
{
    return length < 80 ? (int)length : 80;
}

static int is_number(const value *v)
{
    return v->kind == INTEGER || v->kind == BOOLEAN;
}

static int same_text(const value *v, const char *text)
{
    return v->length == strlen(text) && memcmp(v->text, text, v->length) == 0;
}

/* ---- variables and fields ---------------------------------------------------------------------------------------- */

static entry *find(entry *chain, const char *name, size_t length)
{
    while (chain && (chain->length != length || memcmp(chain->name, name, length) != 0))
        chain = chain->next;
    return chain;
}

static void put(runner *r, entry **chain, const char *name, size_t length, value v)
{
    entry *made = zi_jinja_alloc(r->j, sizeof *made);
    if (!made)
        return;
    *made = (entry){name, length, v, *chain};
    *chain = made;
}

static void define(runner *r, const char *name, value v)
{
    put(r, &r->variables, name, strlen(name), v);
}

static value new_map(runner *r)
{
    map *fields = zi_jinja_alloc(r->j, sizeof *fields);
    return fields ? (value){.kind = MAP, .fields = fields} : undefined();
}

static value new_list(runner *r, size_t count, value **items)
{
    *items = zi_jinja_alloc(r->j, (count + 1) * sizeof **items);
    return *items ? (value){.kind = LIST, .number = (int64_t)count, .items = *items} : undefined();
}

/* ---- expressions ------------------------------------------------------------------------------------------------- */

static value evaluate(runner *r, const zi_jinja_node *node);

static value joined(runner *r, const zi_jinja_node *node, const value *a, const value *b)
{
    size_t length = a->length + b->length;
    char *text = charge(r, node, length) ? zi_jinja_alloc(r->j, length + 1) : NULL;
    if (!text)
        return undefined();
    if (a->length)
        memcpy(text, a->text, a->length);
    if (b->length)
        memcpy(text + a->length, b->text, b->length);
    return text_of(text, length);
}

/* str() of a value, as {{ }} and ~ have it. */
static value as_text(runner *r, const zi_jinja_node *node, const value *v)
{
    char *digits;
    switch (v->kind) {
    case TEXT:
        return *v;
    case UNDEFINED:
        return text_of("", 0);
    case NONE:
        return text_of("None", 4);
    case BOOLEAN:
        return v->number ? text_of("True", 4) : text_of("False", 5);
    case INTEGER:
        digits = zi_jinja_alloc(r->j, 24);
        if (!digits)
            return undefined();
        return text_of(digits, (size_t)snprintf(digits, 24, "%lld", (long long)v->number));
    case LIST:
    case MAP:
    case METHOD:
    case FUNCTION:
        break;
    }
    return refuse(r, node, "a value that is not a text, written as one");
}

/* 1, 0, or -1: such values are not compared here. */
static int are_equal(const value *a, const value *b)
{
    if (a->kind > TEXT || b->kind > TEXT)
        return a->kind > TEXT && b->kind > TEXT ? -1 : 0;
    if (is_number(a) && is_number(b))
        return a->number == b->number;
    if (a->kind != b->kind)
        return 0;
    return a->kind != TEXT || (a->length == b->length && memcmp(a->text, b->text, a->length) == 0);
}

static int compare_texts(const value *a, const value *b)
{
    size_t length = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, length);
    return order ? order : (a->length > b->length) - (a->length < b->length);
}

static value is_within(runner *r, const zi_jinja_node *node, const value *a, const value *b)
{
    if (!charge(r, node, a->length + b->length))
        return undefined();
    if (b->kind == TEXT && a->kind == TEXT)
        return boolean(a->length == 0 || memmem(b->text, b->length, a->text, a->length) != NULL);
    if (b->kind == MAP && !b->fields->is_namespace && a->kind == TEXT)
        return boolean(find(b->fields->first, a->text, a->length) != NULL);
    if (b->kind != LIST)
        return refuse(r, node, "\"in\" with such values");
    for (int64_t i = 0; i < b->number; i++) {
        int equal = charge(r, node, a->length) ? are_equal(a, &b->items[i]) : -1;
        if (equal < 0)
            return refuse(r, node, "\"in\" with such values");
        if (equal)
            return boolean(1);
    }
    return boolean(0);
}

/* Numbers stay so small that no operation overflows. */
static value arithmetic(runner *r, const zi_jinja_node *node, int64_t a, int64_t b)
{
    const int64_t limit = (int64_t)1 << 31;
    int64_t result = 0;
    if (zi_jinja_is(node, "+"))
        result = a + b;
    else if (zi_jinja_is(node, "-"))
        result = a - b;
    else if (zi_jinja_is(node, "*"))
        result = a * b;
    else if (zi_jinja_is(node, "%") && b > 0)
        result = (a % b + b) % b;
    else
        return refuse(r, node, "such arithmetic");
    return result > -limit && result < limit ? integer(result) : refuse(r, node, "a large number");
}

static value compare(runner *r, const zi_jinja_node *node, const value *a, const value *b)
{
    int equality = zi_jinja_is(node, "=="), inequality = zi_jinja_is(node, "!="), order;
    if (!charge(r, node, a->length))
        return undefined();
    if (equality || inequality) {
        int equal = are_equal(a, b);
        return equal < 0 ? refuse(r, node, "a comparison of such values") : boolean(equal == equality);
    }
    if (is_number(a) && is_number(b))
        order = (a->number > b->number) - (a->number < b->number);
    else if (a->kind == TEXT && b->kind == TEXT)
        order = compare_texts(a, b);
    else
        return refuse(r, node, "a comparison of such values");
    if (zi_jinja_is(node, "<"))
        return boolean(order < 0);
    if (zi_jinja_is(node, "<="))
        return boolean(order <= 0);
    return boolean(zi_jinja_is(node, ">") ? order > 0 : order >= 0);
}

static value evaluate_binary(runner *r, const zi_jinja_node *node)
{
    value a = evaluate(r, node->a);
    if (zi_jinja_is(node, "and"))
        return is_true(&a) ? evaluate(r, node->b) : a;
    if (zi_jinja_is(node, "or"))
        return is_true(&a) ? a : evaluate(r, node->b);
    value b = evaluate(r, node->b);
    if (r->j->status != ZIMAGE_OK)
        return undefined();
    if (zi_jinja_is(node, "~")) {
        a = as_text(r, node, &a);
        b = as_text(r, node, &b);
        return r->j->status == ZIMAGE_OK ? joined(r, node, &a, &b) : undefined();
    }
    if (zi_jinja_is(node, "in"))
        return is_within(r, node, &a, &b);
    if (zi_jinja_is(node, "not in")) {
        value within = is_within(r, node, &a, &b);
        return boolean(!within.number);
    }
    if (strchr("=!<>", node->text[0]))
        return compare(r, node, &a, &b);
    if (zi_jinja_is(node, "+") && a.kind == TEXT && b.kind == TEXT)
        return joined(r, node, &a, &b);
    if (is_number(&a) && is_number(&b))
        return arithmetic(r, node, a.number, b.number);
    return refuse(r, node, "an operation with such values");
}

static int is_method_of_text(const zi_jinja_node *node)
{
    static const char *const NAMES[] = {"startswith", "endswith", "strip", "lstrip", "rstrip", "split"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (zi_jinja_is(node, NAMES[i]))
            return 1;
    return 0;
}

static value evaluate_attribute(runner *r, const zi_jinja_node *node)
{
    static const char *const OF_DICTIONARIES[] = {"items", "keys",       "values", "pop",     "copy",
                                                  "clear", "setdefault", "update", "popitem", "fromkeys"};
    value object = evaluate(r, node->a), *kept = zi_jinja_alloc(r->j, sizeof *kept);
    if (!kept || !charge(r, node, 0))
        return undefined();
    *kept = object;
    const value method = {.kind = METHOD, .text = node->text, .length = node->length, .items = kept};
    if (object.kind == UNDEFINED)
        return refuse(r, node, "an attribute of an undefined value");
    if (object.kind == TEXT)
        return is_method_of_text(node) ? method : refuse(r, node, "an unknown attribute of a text");
    if (object.kind != MAP)
        return refuse(r, node, "an attribute of such a value");
    if (!object.fields->is_namespace && zi_jinja_is(node, "get"))
        return method;
    for (size_t i = 0; i < sizeof OF_DICTIONARIES / sizeof OF_DICTIONARIES[0]; i++)
        if (!object.fields->is_namespace && zi_jinja_is(node, OF_DICTIONARIES[i]))
            return refuse(r, node, "an unknown method of a dictionary");
    const entry *found = find(object.fields->first, node->text, node->length);
    return found ? found->value : undefined();
}

static value evaluate_index(runner *r, const zi_jinja_node *node)
{
    value object = evaluate(r, node->a), index = evaluate(r, node->b);
    if (!charge(r, node, 0))
        return undefined();
    if (object.kind == MAP && !object.fields->is_namespace && index.kind == TEXT) {
        const entry *found = find(object.fields->first, index.text, index.length);
        return found ? found->value : undefined();
    }
    if (object.kind != LIST || index.kind != INTEGER)
        return refuse(r, node, "an index of such values");
    int64_t at = index.number < 0 ? index.number + object.number : index.number;
    return at >= 0 && at < object.number ? object.items[at] : undefined();
}

/* A part of a slice; missing: the fallback. */
static int64_t slice_part(runner *r, const zi_jinja_node *part, int64_t count, int64_t low, int64_t high,
                          int64_t fallback)
{
    if (!part)
        return fallback;
    value v = evaluate(r, part);
    if (v.kind != INTEGER)
        refuse(r, part, "such a slice");
    int64_t at = v.number < 0 ? v.number + count : v.number;
    return at < low ? low : at > high ? high : at;
}

static value evaluate_slice(runner *r, const zi_jinja_node *node)
{
    value object = evaluate(r, node->a), *items;
    value step = node->list ? evaluate(r, node->list) : integer(1);
    if (r->j->status != ZIMAGE_OK)
        return undefined();
    if (object.kind != LIST || step.kind != INTEGER || step.number == 0)
        return refuse(r, node, "such a slice");
    int64_t n = object.number, down = step.number < 0, count = 0;
    int64_t low = down ? -1 : 0, high = down ? n - 1 : n;
    int64_t from = slice_part(r, node->b, n, low, high, down ? n - 1 : 0);
    int64_t to = slice_part(r, node->c, n, low, high, down ? -1 : n);
    value list = new_list(r, (size_t)n, &items);
    if (list.kind != LIST || !charge(r, node, (size_t)n * sizeof *items))
        return undefined();
    for (int64_t i = from; down ? i > to : i < to; i += step.number)
        items[count++] = object.items[i];
    list.number = count;
    return list;
}

static value evaluate_list(runner *r, const zi_jinja_node *node)
{
    size_t count = 0;
    value *items;
    for (const zi_jinja_node *item = node->list; item; item = item->next)
        count++;
    value list = new_list(r, count, &items);
    count = 0;
    for (const zi_jinja_node *item = node->list; item && r->j->status == ZIMAGE_OK; item = item->next)
        items[count++] = evaluate(r, item);
    return list;
}

/* ---- calls, filters, tests --------------------------------------------------------------------------------------- */

/* The text without what `set` (NULL: whitespace) has at its sides. set is ASCII, so its bytes are its characters. */
static value stripped(runner *r, const zi_jinja_node *node, const value *text, const value *set, int sides)
{
    const char *begin = text->text, *end = begin + text->length, *kept;
    size_t bytes = 1;
    for (size_t i = 0; set && i < set->length; i++)
        if ((unsigned char)set->text[i] >= 0x80)
            return refuse(r, node, "a strip of characters beyond ASCII");
    if (!charge(r, node, text->length * (1 + (set ? set->length : 0))))
        return undefined();
    while ((sides & 1) && begin < end &&
           (set ? memchr(set->text, *begin, set->length) != NULL : zi_jinja_space(begin, end, &bytes)))
        begin += bytes;
    kept = begin;
    for (const char *c = begin; c < end; c += bytes) {
        bytes = 1;
        if (!(set ? memchr(set->text, *c, set->length) != NULL : zi_jinja_space(c, end, &bytes)))
            kept = c + bytes;
    }
    return text_of(begin, (size_t)((sides & 2 ? kept : end) - begin));
}

static value split(runner *r, const zi_jinja_node *node, const value *text, const value *separator)
{
    size_t count = 1;
    const char *end = text->text + text->length, *found;
    value *items;
    if (separator->length == 0)
        return refuse(r, node, "a split at nothing");
    if (!charge(r, node, 2 * text->length))
        return undefined();
    for (const char *c = text->text; (found = memmem(c, (size_t)(end - c), separator->text, separator->length));)
        c = found + separator->length, count++;
    value list = new_list(r, count, &items);
    if (list.kind != LIST)
        return undefined();
    const char *c = text->text;
    for (size_t i = 0; i < count; i++) {
        found = memmem(c, (size_t)(end - c), separator->text, separator->length);
        items[i] = text_of(c, (size_t)((found ? found : end) - c));
        c = found ? found + separator->length : end;
    }
    return list;
}

static value call_of_text(runner *r, const zi_jinja_node *node, const value *method, const value *arguments,
                          size_t count)
{
    const value *text = method->items, *first = count ? arguments : NULL;
    if (count > 1 || (first && first->kind != TEXT))
        return refuse(r, node, "a method with such arguments");
    if (same_text(method, "strip"))
        return stripped(r, node, text, first, 3);
    if (same_text(method, "lstrip"))
        return stripped(r, node, text, first, 1);
    if (same_text(method, "rstrip"))
        return stripped(r, node, text, first, 2);
    if (!first)
        return refuse(r, node, "a method without an argument");
    if (same_text(method, "split"))
        return split(r, node, text, first);
    if (!charge(r, node, first->length))
        return undefined();
    const char *at = same_text(method, "endswith") ? text->text + text->length - first->length : text->text;
    return boolean(first->length <= text->length && memcmp(at, first->text, first->length) == 0);
}

static value call_namespace(runner *r, const zi_jinja_node *node)
{
    value made = new_map(r);
    if (made.kind != MAP)
        return made;
    for (const zi_jinja_node *argument = node->list; argument && r->j->status == ZIMAGE_OK; argument = argument->next) {
        if (argument->kind != ZI_JINJA_KEYWORD)
            return refuse(r, node, "a namespace of such values");
        put(r, &made.fields->first, argument->text, argument->length, evaluate(r, argument->a));
    }
    made.fields->is_namespace = 1;
    return made;
}

#define ARGUMENTS 2

/* The values of the arguments; -1: too many, or keywords. */
static int evaluate_arguments(runner *r, const zi_jinja_node *node, value arguments[ARGUMENTS])
{
    int count = 0;
    for (const zi_jinja_node *argument = node->list; argument; argument = argument->next) {
        if (count == ARGUMENTS || argument->kind == ZI_JINJA_KEYWORD) {
            refuse(r, node, "such arguments");
            return -1;
        }
        arguments[count++] = evaluate(r, argument);
    }
    return r->j->status == ZIMAGE_OK ? count : -1;
}

static value evaluate_call(runner *r, const zi_jinja_node *node)
{
    value callee = evaluate(r, node->a), arguments[ARGUMENTS];
    if (!charge(r, node, 0))
        return undefined();
    if (callee.kind == FUNCTION && same_text(&callee, "namespace"))
        return call_namespace(r, node);
    int count = evaluate_arguments(r, node, arguments);
    if (count < 0)
        return undefined();
    if (callee.kind == FUNCTION && same_text(&callee, "raise_exception")) {
        const value reason = count && arguments[0].kind == TEXT ? arguments[0] : text_of("no reason", 9);
        r->j->status = zi_fail(r->j->error, ZIMAGE_ERROR_MODEL, "%s: the chat template refuses the prompt: %.*s",
                               r->j->chat->name, shown_length(reason.length), reason.text);
        return undefined();
    }
    if (callee.kind != METHOD)
        return refuse(r, node, "a call of such a value");
    if (callee.items->kind == TEXT)
        return call_of_text(r, node, &callee, arguments, (size_t)count);
    /* dict.get(key, fallback) */
    if (count == 0 || arguments[0].kind != TEXT)
        return refuse(r, node, "such arguments");
    const entry *found = find(callee.items->fields->first, arguments[0].text, arguments[0].length);
    return found ? found->value : count > 1 ? arguments[1] : (value){.kind = NONE};
}

/* Characters of a text of valid UTF-8, items of a list. */
static value length_of(runner *r, const zi_jinja_node *node, const value *v)
{
    int64_t count = 0;
    if (v->kind == LIST)
        return integer(v->number);
    if (v->kind == UNDEFINED)
        return integer(0);
    if (v->kind != TEXT)
        return refuse(r, node, "the length of such a value");
    if (!charge(r, node, v->length))
        return undefined();
    for (size_t i = 0; i < v->length; i++)
        count += (v->text[i] & 0xC0) != 0x80;
    return integer(count);
}

static value evaluate_filter(runner *r, const zi_jinja_node *node)
{
    value v = evaluate(r, node->a), arguments[ARGUMENTS];
    int count = evaluate_arguments(r, node, arguments);
    if (count < 0 || !charge(r, node, 0))
        return undefined();
    if (count == 0 && (zi_jinja_is(node, "length") || zi_jinja_is(node, "count")))
        return length_of(r, node, &v);
    if (count == 0 && zi_jinja_is(node, "trim") && v.kind == TEXT)
        return stripped(r, node, &v, NULL, 3);
    if (count == 0 && zi_jinja_is(node, "string") && v.kind == TEXT)
        return v;
    if (count == 0 && zi_jinja_is(node, "list") && v.kind == LIST)
        return v;
    if (count == 0 && zi_jinja_is(node, "first") && v.kind == LIST)
        return v.number ? v.items[0] : undefined();
    if (count == 0 && zi_jinja_is(node, "last") && v.kind == LIST)
        return v.number ? v.items[v.number - 1] : undefined();
    if (count == 1 && (zi_jinja_is(node, "default") || zi_jinja_is(node, "d")))
        return v.kind == UNDEFINED ? arguments[0] : v;
    zi_jinja_refuse(r->j, node->at, "the filter \"%.*s\" with such values", shown_length(node->length), node->text);
    return undefined();
}

static value evaluate_test(runner *r, const zi_jinja_node *node)
{
    value v = evaluate(r, node->a), arguments[ARGUMENTS];
    int count = evaluate_arguments(r, node, arguments), result;
    if (count < 0 || !charge(r, node, v.length))
        return undefined();
    if (count == 1 && (zi_jinja_is(node, "equalto") || zi_jinja_is(node, "eq")))
        result = are_equal(&v, &arguments[0]);
    else if (count)
        result = -1;
    else if (zi_jinja_is(node, "defined"))
        result = v.kind != UNDEFINED;
    else if (zi_jinja_is(node, "undefined"))
        result = v.kind == UNDEFINED;
    else if (zi_jinja_is(node, "none"))
        result = v.kind == NONE;
    else if (zi_jinja_is(node, "string"))
        result = v.kind == TEXT;
    else if (zi_jinja_is(node, "mapping"))
        result = v.kind == MAP && !v.fields->is_namespace;
    else if (zi_jinja_is(node, "boolean"))
        result = v.kind == BOOLEAN;
    else if (zi_jinja_is(node, "integer"))
        result = v.kind == INTEGER;
    else if (zi_jinja_is(node, "number"))
        result = is_number(&v);
    else if (zi_jinja_is(node, "true"))
        result = v.kind == BOOLEAN && v.number;
    else if (zi_jinja_is(node, "false"))
        result = v.kind == BOOLEAN && !v.number;
    else if (zi_jinja_is(node, "iterable") && v.kind <= MAP)
        result = v.kind == TEXT || v.kind == LIST || v.kind == UNDEFINED || (v.kind == MAP && !v.fields->is_namespace);
    else
        result = -1;
    if (result < 0)
        zi_jinja_refuse(r->j, node->at, "the test \"%.*s\" with such values", shown_length(node->length), node->text);
    return boolean(node->number ? !result : result);
}

static value evaluate_name(runner *r, const zi_jinja_node *node)
{
    static const char *const FUNCTIONS[] = {"namespace", "raise_exception"};
    static const char *const UNKNOWN[] = {"range", "dict", "lipsum", "cycler", "joiner", "strftime_now"};
    const entry *found = find(r->variables, node->text, node->length);
    if (found)
        return found->value;
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof FUNCTIONS[0]; i++)
        if (zi_jinja_is(node, FUNCTIONS[i]))
            return (value){.kind = FUNCTION, .text = node->text, .length = node->length};
    for (size_t i = 0; i < sizeof UNKNOWN / sizeof UNKNOWN[0]; i++)
        if (zi_jinja_is(node, UNKNOWN[i]))
            zi_jinja_refuse(r->j, node->at, "the function \"%s\"", UNKNOWN[i]);
    return undefined();
}

static value evaluate_conditional(runner *r, const zi_jinja_node *node)
{
    value condition = evaluate(r, node->b);
    if (is_true(&condition))
        return evaluate(r, node->a);
    return node->c ? evaluate(r, node->c) : undefined();
}

static value evaluate_negative(runner *r, const zi_jinja_node *node)
{
    value v = evaluate(r, node->a);
    return v.kind == INTEGER ? integer(-v.number) : refuse(r, node, "a negative value that is no number");
}

static value evaluate_not(runner *r, const zi_jinja_node *node)
{
    value v = evaluate(r, node->a);
    return boolean(!is_true(&v));
}

static value evaluate_node(runner *r, const zi_jinja_node *node)
{
    switch (node->kind) {
    case ZI_JINJA_STRING:
        return text_of(node->text ? node->text : "", node->length);
    case ZI_JINJA_INTEGER:
        return node->number < ((int64_t)1 << 31) ? integer(node->number) : refuse(r, node, "a large number");
    case ZI_JINJA_TRUE:
    case ZI_JINJA_FALSE:
        return boolean(node->kind == ZI_JINJA_TRUE);
    case ZI_JINJA_NONE:
        return (value){.kind = NONE};
    case ZI_JINJA_NAME:
        return evaluate_name(r, node);
    case ZI_JINJA_LIST:
        return evaluate_list(r, node);
    case ZI_JINJA_ATTRIBUTE:
        return evaluate_attribute(r, node);
    case ZI_JINJA_INDEX:
        return evaluate_index(r, node);
    case ZI_JINJA_SLICE:
        return evaluate_slice(r, node);
    case ZI_JINJA_CALL:
        return evaluate_call(r, node);
    case ZI_JINJA_FILTER:
        return evaluate_filter(r, node);
    case ZI_JINJA_TEST:
        return evaluate_test(r, node);
    case ZI_JINJA_NOT:
        return evaluate_not(r, node);
    case ZI_JINJA_NEGATIVE:
        return evaluate_negative(r, node);
    case ZI_JINJA_BINARY:
        return evaluate_binary(r, node);
    case ZI_JINJA_CONDITIONAL:
        return evaluate_conditional(r, node);
    default:
        return refuse(r, node, node->kind == ZI_JINJA_UNSUPPORTED ? node->text : "an unusual expression");
    }
}

/* The depth of a long chain of operators is not limited by the parser. */
static value evaluate(runner *r, const zi_jinja_node *node)
{
    if (!charge(r, node, 0))
        return undefined();
    if (r->depth >= EVALUATION_DEPTH)
        return refuse(r, node, "too many operations within each other");
    r->depth++;
    value v = evaluate_node(r, node);
    r->depth--;
    return v;
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

static void run(runner *r, const zi_jinja_node *chain);

static void write(runner *r, const zi_jinja_node *node, const char *text, size_t length)
{
    output *out = r->out;
    if (!charge(r, node, length) || !length)
        return;
    if (out->length + length > ZI_JINJA_MEMORY) {
        refuse(r, node, "a text that is too long");
        return;
    }
    char *grown = zi_grow(out->text, &out->capacity, out->length + length + 1, 1);
    if (!grown) {
        r->j->status = zi_fail_memory(r->j->error, "the prompt", out->length + length + 1);
        return;
    }
    out->text = grown;
    memcpy(out->text + out->length, text, length);
    out->length += length;
}

/* `loop` in the body of a for. */
static value loop_of(runner *r, const value *list, int64_t at)
{
    value loop = new_map(r);
    const struct {
        const char *name;
        value value;
    } fields[] = {
        {"index", integer(at + 1)},
        {"index0", integer(at)},
        {"revindex", integer(list->number - at)},
        {"revindex0", integer(list->number - at - 1)},
        {"length", integer(list->number)},
        {"first", boolean(at == 0)},
        {"last", boolean(at == list->number - 1)},
        {"previtem", at > 0 ? list->items[at - 1] : undefined()},
        {"nextitem", at < list->number - 1 ? list->items[at + 1] : undefined()},
    };
    for (size_t i = 0; loop.kind == MAP && i < sizeof fields / sizeof fields[0]; i++)
        put(r, &loop.fields->first, fields[i].name, strlen(fields[i].name), fields[i].value);
    if (loop.kind == MAP)
        loop.fields->is_namespace = 1;
    return loop;
}

/* The items for which the condition of the loop holds. */
static value filtered(runner *r, const zi_jinja_node *node, const value *list)
{
    value *items, kept = new_list(r, (size_t)list->number, &items);
    int64_t count = 0;
    entry *outside = r->variables;
    for (int64_t i = 0; i < list->number && r->j->status == ZIMAGE_OK; i++) {
        put(r, &r->variables, node->text, node->length, list->items[i]);
        value condition = evaluate(r, node->c);
        if (is_true(&condition) && r->j->status == ZIMAGE_OK)
            items[count++] = list->items[i];
        r->variables = outside;
    }
    kept.number = count;
    return kept;
}

/* A loop has its own variables, anew in each turn. */
static void run_for(runner *r, const zi_jinja_node *node)
{
    value list = evaluate(r, node->a);
    entry *outside = r->variables;
    if (r->j->status != ZIMAGE_OK)
        return;
    if (list.kind == UNDEFINED)
        list = (value){.kind = LIST};
    if (list.kind != LIST || node->number) {
        refuse(r, node, node->number ? "a loop with several variables" : "a loop over such a value");
        return;
    }
    if (node->c)
        list = filtered(r, node, &list);
    for (int64_t i = 0; i < list.number && r->j->status == ZIMAGE_OK; i++) {
        put(r, &r->variables, node->text, node->length, list.items[i]);
        define(r, "loop", loop_of(r, &list, i));
        run(r, node->list);
        r->variables = outside;
    }
    if (list.number == 0 && node->b)
        run(r, node->b->list);
    r->variables = outside;
}

static void run_set(runner *r, const zi_jinja_node *node)
{
    value v = evaluate(r, node->a);
    if (!node->b) {
        put(r, &r->variables, node->text, node->length, v);
        return;
    }
    entry *object = find(r->variables, node->text, node->length);
    if (!object || object->value.kind != MAP || !object->value.fields->is_namespace) {
        refuse(r, node, "a field that is set in something else than a namespace");
        return;
    }
    entry *field = find(object->value.fields->first, node->b->text, node->b->length);
    if (field)
        field->value = v;
    else
        put(r, &object->value.fields->first, node->b->text, node->b->length, v);
}

static void run_set_block(runner *r, const zi_jinja_node *node)
{
    output inner = {NULL, 0, 0}, *outer = r->out;
    entry *outside = r->variables;
    r->out = &inner;
    run(r, node->list);
    r->out = outer;
    r->variables = outside;
    const value written = text_of(inner.text ? inner.text : "", inner.length), nothing = text_of("", 0);
    value kept = r->j->status == ZIMAGE_OK ? joined(r, node, &written, &nothing) : undefined();
    free(inner.text);
    put(r, &r->variables, node->text, node->length, kept);
}

static void run_if(runner *r, const zi_jinja_node *node)
{
    value condition = evaluate(r, node->a);
    if (is_true(&condition))
        run(r, node->list);
    else if (node->b)
        run(r, node->b->list);
}

static void run_output(runner *r, const zi_jinja_node *node)
{
    value v = evaluate(r, node->a);
    if (r->j->status == ZIMAGE_OK)
        v = as_text(r, node, &v);
    if (r->j->status == ZIMAGE_OK)
        write(r, node, v.text, v.length);
}

static void run(runner *r, const zi_jinja_node *chain)
{
    for (const zi_jinja_node *node = chain; node && charge(r, node, 0); node = node->next) {
        switch (node->kind) {
        case ZI_JINJA_TEXT:
            write(r, node, node->text, node->length);
            break;
        case ZI_JINJA_OUTPUT:
            run_output(r, node);
            break;
        case ZI_JINJA_IF:
            run_if(r, node);
            break;
        case ZI_JINJA_BLOCK:
            run(r, node->list);
            break;
        case ZI_JINJA_FOR:
            run_for(r, node);
            break;
        case ZI_JINJA_SET:
            run_set(r, node);
            break;
        case ZI_JINJA_SET_BLOCK:
            run_set_block(r, node);
            break;
        case ZI_JINJA_MACRO: /* a function that no call accepts */
            put(r, &r->variables, node->text, node->length, (value){.kind = FUNCTION, .text = "", .length = 0});
            break;
        default:
            refuse(r, node, "an unusual statement");
        }
    }
}

/* The variables that apply_chat_template gives: one message, no tools, no documents, and the names of tokens. */
static void define_variables(runner *r)
{
    const zi_chat *chat = r->j->chat;
    value message = new_map(r), *items, messages = new_list(r, 1, &items);
    if (message.kind != MAP || messages.kind != LIST)
        return;
    put(r, &message.fields->first, "content", 7, text_of(chat->content, chat->length));
    put(r, &message.fields->first, "role", 4, text_of("user", 4));
    items[0] = message;
    for (size_t i = 0; i < chat->token_count; i++)
        if (chat->tokens[i].content)
            define(r, chat->tokens[i].name, text_of(chat->tokens[i].content, strlen(chat->tokens[i].content)));
    define(r, "messages", messages);
    define(r, "tools", (value){.kind = NONE});
    define(r, "documents", (value){.kind = NONE});
    define(r, "add_generation_prompt", boolean(1));
    define(r, "enable_thinking", boolean(chat->thinking));
}

zimage_status zi_jinja_render(const zi_chat *chat, char **text, size_t *length, zimage_error *error)
{
    zi_jinja j = {.chat = chat, .error = error};
    output out = {NULL, 0, 0};
    runner r = {.j = &j, .out = &out};
    *text = NULL;
    *length = 0;
    const zi_jinja_node *tree = zi_jinja_parse(&j);
    define_variables(&r);
    if (j.status == ZIMAGE_OK)
        run(&r, tree);
    if (j.status == ZIMAGE_OK && !out.text && !(out.text = calloc(1, 1)))
        j.status = zi_fail_memory(error, "the prompt", 1);
    zi_jinja_free(&j);
    if (j.status != ZIMAGE_OK) {
        free(out.text);
        return j.status;
    }
    *text = out.text;
    *length = out.length;
    return ZIMAGE_OK;
}
