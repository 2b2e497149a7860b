#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#define WIDTH 28 /* of the bar */

void progress_init(progress_bar *bar, int quiet)
{
    *bar = (progress_bar){.quiet = quiet, .terminal = isatty(STDERR_FILENO), .stage = (zimage_stage)ZIMAGE_STAGE_COUNT};
}

/* "text_encoder" -> "text encoder" */
static void readable(char out[32], const char *name)
{
    int i = 0;
    for (; i < 31 && name[i]; i++)
        out[i] = name[i] == '_' ? ' ' : name[i];
    out[i] = 0;
}

static void show_bar(progress_bar *bar, const zimage_progress *p, const char *stage)
{
    char line[WIDTH * 3 + 1];
    int filled = (int)(p->fraction * WIDTH + 0.5), length = 0;
    for (int i = 0; i < WIDTH; i++)
        length += snprintf(line + length, sizeof line - (size_t)length, "%s", i < filled ? "━" : "─");
    fprintf(stderr, "\r\033[K%s %3.0f%%  %s", line, p->fraction * 100, stage);
    if (p->steps > 1)
        fprintf(stderr, " %d/%d", p->step, p->steps);
    if (p->fraction > 0.02 && p->elapsed > 0.5)
        fprintf(stderr, "  %.0f s left", p->elapsed * (1 - p->fraction) / p->fraction);
    fflush(stderr);
    bar->shown = 1;
}

void progress_show(progress_bar *bar, const zimage_progress *p)
{
    if (bar->quiet)
        return;
    char stage[32];
    readable(stage, zimage_stage_name(p->stage));
    if (bar->terminal) {
        show_bar(bar, p, stage);
        return;
    }
    if (p->stage == bar->stage && p->step == bar->step)
        return;
    bar->stage = p->stage;
    bar->step = p->step;
    if (p->steps > 1)
        fprintf(stderr, "%s, step %d of %d (%.1f s)\n", stage, p->step, p->steps, p->elapsed);
    else
        fprintf(stderr, "%s (%.1f s)\n", stage, p->elapsed);
}

void progress_interrupt(void)
{
}

void progress_end(progress_bar *bar)
{
    if (bar->shown)
        fprintf(stderr, "\r\033[K");
}
