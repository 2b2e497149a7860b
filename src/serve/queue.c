#include "queue.h"

#include <stdlib.h>

/* The caller's line in a class; NULL: there is none. *last: the line whose turn is last. */
static queue_caller *find_line(const queue *q, queue_class class, uint64_t caller, queue_caller **last)
{
    queue_caller *first = q->turn[class], *line = first, *found = NULL;
    *last = NULL;
    if (!first)
        return NULL;
    do {
        if (line->caller == caller)
            found = line;
        *last = line;
        line = line->next;
    } while (line != first);
    return found;
}

/* A new line's turn comes last. NULL: no memory. */
static queue_caller *line_of(queue *q, const queue_item *item)
{
    queue_caller *last, *line = find_line(q, item->class, item->caller, &last);
    if (line)
        return line;
    line = calloc(1, sizeof *line);
    if (!line)
        return NULL;
    line->caller = item->caller;
    line->next = last ? last->next : line;
    if (last)
        last->next = line;
    else
        q->turn[item->class] = line;
    return line;
}

int queue_push(queue *q, queue_item *item)
{
    queue_caller *line = line_of(q, item);
    if (!line)
        return 0;
    item->line = line;
    item->next = NULL;
    if (line->last)
        line->last->next = item;
    else
        line->first = item;
    line->last = item;
    q->count[item->class]++;
    return 1;
}

int queue_push_again(queue *q, queue_item *item)
{
    queue_caller *line = line_of(q, item);
    if (!line)
        return 0;
    item->line = line;
    item->next = line->first;
    line->first = item;
    if (!line->last)
        line->last = item;
    q->count[item->class]++;
    return 1;
}

/* Frees a line without items. */
static void drop_line(queue *q, queue_class class, queue_caller *line)
{
    queue_caller *before = line;
    while (before->next != line)
        before = before->next;
    before->next = line->next;
    if (q->turn[class] == line)
        q->turn[class] = before == line ? NULL : line->next;
    free(line);
}

void queue_remove(queue *q, queue_item *item)
{
    queue_caller *line = item->line;
    queue_item *before = NULL;
    for (queue_item *i = line->first; i != item; i = i->next)
        before = i;
    if (before)
        before->next = item->next;
    else
        line->first = item->next;
    if (line->last == item)
        line->last = before;
    item->next = NULL;
    item->line = NULL;
    q->count[item->class]--;
    if (!line->first)
        drop_line(q, item->class, line);
}

queue_item *queue_next(const queue *q)
{
    for (int class = 0; class < QUEUE_CLASSES; class ++)
        if (q->turn[class])
            return q->turn[class]->first;
    return NULL;
}

queue_item *queue_take(queue *q)
{
    queue_item *item = queue_next(q);
    if (item) {
        q->turn[item->class] = item->line->next;
        queue_remove(q, item);
    }
    return item;
}

int queue_return(queue *q, queue_item *item)
{
    if (!queue_push_again(q, item))
        return 0;
    q->turn[item->class] = item->line;
    return 1;
}

size_t queue_length(const queue *q)
{
    size_t length = 0;
    for (int class = 0; class < QUEUE_CLASSES; class ++)
        length += q->count[class];
    return length;
}

/* Adds the first units of a line, at most so many. */
static void add_units(queue_wait *wait, const queue_caller *line, size_t most)
{
    for (const queue_item *i = line->first; i && most > 0; i = i->next) {
        size_t units = (size_t)i->units < most ? (size_t)i->units : most;
        wait->units += units;
        wait->seconds += (double)units * i->seconds;
        most -= units;
    }
}

/* What is made before a unit of a class that has `own` other units of its caller before it: each caller that has its
 * turn before this one adds one more than those behind it. */
static queue_wait wait_behind(const queue *q, queue_class class, uint64_t caller, queue_wait own)
{
    queue_wait wait = own;
    int is_before = 1;
    for (int higher = 0; higher <= (int)class; higher++) {
        const queue_caller *first = q->turn[higher], *line = first;
        if (!first)
            continue;
        do {
            if (higher < (int)class)
                add_units(&wait, line, SIZE_MAX);
            else if (line->caller == caller)
                is_before = 0;
            else
                add_units(&wait, line, own.units + (size_t)is_before);
            line = line->next;
        } while (line != first);
    }
    return wait;
}

queue_wait queue_before(const queue *q, const queue_item *item)
{
    queue_wait own = {0};
    for (const queue_item *i = item->line->first; i != item; i = i->next) {
        own.units += (size_t)i->units;
        own.seconds += i->units * i->seconds;
    }
    return wait_behind(q, item->class, item->caller, own);
}

queue_wait queue_before_new(const queue *q, uint64_t caller, queue_class class)
{
    queue_caller *last, *line = find_line(q, class, caller, &last);
    queue_wait own = {0};
    if (line)
        add_units(&own, line, SIZE_MAX);
    return wait_behind(q, class, caller, own);
}
