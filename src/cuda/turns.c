#include "cuda/turns.h"

#include <pthread.h>
#include <stddef.h>

/* Turns that were asked for and not yet given back, in this order. */
static zi_turn *line;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static int share_a_device(const zi_turn *a, const zi_turn *b)
{
    for (int i = 0; i < a->count; i++)
        for (int k = 0; k < b->count; k++)
            if (a->devices[i] == b->devices[k])
                return 1;
    return 0;
}

static int must_wait(const zi_turn *turn)
{
    const zi_turn *before = line;
    while (before != turn && !share_a_device(before, turn))
        before = before->next;
    return before != turn;
}

void zi_turn_take(zi_turn *turn, const int *devices, int count)
{
    zi_turn **end = &line;
    *turn = (zi_turn){devices, count, NULL};
    pthread_mutex_lock(&lock);
    while (*end != NULL)
        end = &(*end)->next;
    *end = turn;
    while (must_wait(turn))
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

void zi_turn_give(zi_turn *turn)
{
    zi_turn **at = &line;
    pthread_mutex_lock(&lock);
    while (*at != turn)
        at = &(*at)->next;
    *at = turn->next;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}
