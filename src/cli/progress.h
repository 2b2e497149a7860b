/* Progress on stderr: a bar on a terminal, a line a stage or step otherwise. */
#ifndef ZI_CLI_PROGRESS_H
#define ZI_CLI_PROGRESS_H

#include "zimage.h"

typedef struct progress_bar {
    int quiet, terminal, shown;
    zimage_stage stage; /* last shown */
    int32_t step;
} progress_bar;

void progress_init(progress_bar *bar, int quiet);
void progress_show(progress_bar *bar, const zimage_progress *progress);
void progress_end(progress_bar *bar); /* clears the bar */
/* Clears a bar that is shown, before something else is printed; the next progress draws it again. */
void progress_interrupt(void);

#endif
