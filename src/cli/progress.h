/* Progress on stderr: one line that is written again and again on a terminal, a line a stage or step otherwise. */
#ifndef ZI_CLI_PROGRESS_H
#define ZI_CLI_PROGRESS_H

#include "show.h"

/* Of one image, or of one download. */
typedef struct progress_bar {
    int quiet, terminal;
    int shown;             /* 1: a line is on the terminal, without a newline behind it */
    int32_t image, images; /* the image is number `image` of `images`, from 1 */
    zimage_stage stage;    /* last seen, with its step */
    int32_t step;
    double begin_seconds;  /* when this stage began: seconds since the image's beginning, */
    double begin_fraction; /* and the part of the work that was done */
    show *show;            /* for previews; NULL: none are drawn */
    double last_print;     /* seconds since the image's beginning; below 0: nothing was printed */
} progress_bar;

/* How far a download is. */
typedef struct progress_bytes {
    uint64_t bytes, total;
    int files, files_total;
    double elapsed; /* seconds */
} progress_bytes;

#define PROGRESS_LINE_MAX     256 /* bytes of a line, which is ASCII */
#define PROGRESS_DRAW_SECONDS 0.1 /* least time between two drawings: more would only flood a slow connection */

/* show: gets the previews; NULL: there are none. */
void progress_init(progress_bar *bar, int quiet, int32_t image, int32_t images, show *show);
void progress_show(progress_bar *bar, const zimage_progress *progress);
/* Of a request: shows the progress on the bar `user`, and stops after a signal. */
int cli_on_progress(const zimage_progress *progress, void *user);
/* The same for a download; without a terminal a line every 10 seconds. */
void progress_show_bytes(progress_bar *bar, const progress_bytes *bytes);
void progress_end(progress_bar *bar); /* clears the line */
/* Clears a line that is on the terminal, before something else is printed; the next progress writes it again. */
void progress_interrupt(void);

/* The line for a terminal of so many columns. It leaves the last column free, and what does not fit away: first the
 * bar, then elapsed time, rate, number of the image, time that is left, stage, percentage. */
void progress_line(const progress_bar *bar, const zimage_progress *progress, int columns, char line[PROGRESS_LINE_MAX]);

/* The same for a download: the files stand for the images, the bytes for the stage. */
void progress_bytes_line(const progress_bar *bar, const progress_bytes *bytes, int columns,
                         char line[PROGRESS_LINE_MAX]);

#endif
