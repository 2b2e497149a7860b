/*
 * Whose turn it is on a set of GPUs. Exchanges of two sessions on the same GPUs could wait for each other for ever,
 * each on another GPU. So one session at a time has work queued there that exchanges rows. Who asked first is first;
 * sets that have no GPU in common do not wait for each other.
 */
#ifndef ZI_CUDA_TURNS_H
#define ZI_CUDA_TURNS_H

typedef struct zi_turn {
    const int *devices;
    int count;
    struct zi_turn *next;
} zi_turn;

/* Waits for the turn. *turn and the numbers of the GPUs must stay until it is given back. */
void zi_turn_take(zi_turn *turn, const int *devices, int count);
/* All work that exchanges rows has been done. */
void zi_turn_give(zi_turn *turn);

#endif
