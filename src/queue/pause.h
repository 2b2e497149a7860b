/* Pauses, and the chance in them: what waits in many processes for the same thing shall not try it again at once. */
#ifndef ZI_QUEUE_PAUSE_H
#define ZI_QUEUE_PAUSE_H

/* Sleeps, or until a signal comes. */
void ledger_sleep(double seconds);
double ledger_random(void); /* from 0 to 1 */

#endif
