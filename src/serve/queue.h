/*
 * Who is next: a queue that is fair between callers. It is data only: no lock, no thread, no clock; its owner locks.
 *
 * An item is one job of some units (images), which are made one after the other. Items of a higher class go first.
 * Within a class the callers take turns, a unit each, and a caller's items are served in order of arrival. So a caller
 * with 500 items delays another by one unit.
 */
#ifndef ZI_SERVE_QUEUE_H
#define ZI_SERVE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

typedef enum queue_class { QUEUE_INTERACTIVE, QUEUE_BATCH, QUEUE_CLASSES } queue_class;

typedef struct queue_item {
    uint64_t caller;   /* who asks: items with one number take turns as one */
    queue_class class; /* QUEUE_CLASSES is no class */
    int units;         /* that are still to be made, at least 1 */
    double seconds;    /* predicted, of each unit */
    /* the queue's own */
    struct queue_item *next;
    struct queue_caller *line;
} queue_item;

/* The items of one caller in one class. */
typedef struct queue_caller {
    uint64_t caller;
    queue_item *first, *last;
    struct queue_caller *next; /* of the ring, in the order of turns */
} queue_caller;

typedef struct queue {
    queue_caller *turn[QUEUE_CLASSES]; /* whose turn is next; NULL: the class is empty */
    size_t count[QUEUE_CLASSES];       /* items */
} queue;

/* Puts an item behind the caller's others. The item stays the caller's. 0: no memory. */
int queue_push(queue *q, queue_item *item);
/* Puts an item back whose unit is done, before the caller's others: the other callers have their turn first. */
int queue_push_again(queue *q, queue_item *item);
/* The next item, which stays; NULL: the queue is empty. */
queue_item *queue_next(const queue *q);
/* Takes the next item; NULL: the queue is empty. */
queue_item *queue_take(queue *q);
/* Puts an item back that was taken: it is the next one again. 0: no memory. */
int queue_return(queue *q, queue_item *item);
/* Takes an item out that waits. */
void queue_remove(queue *q, queue_item *item);
size_t queue_length(const queue *q);

/* Units that are made before the first of this item, which waits, and their predicted seconds. */
typedef struct queue_wait {
    size_t units;
    double seconds;
} queue_wait;
queue_wait queue_before(const queue *q, const queue_item *item);
/* The same for an item that would be pushed now. */
queue_wait queue_before_new(const queue *q, uint64_t caller, queue_class class);

#endif
