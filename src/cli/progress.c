#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "signals.h"

#define BAR_MOST      30   /* columns of the bar with its brackets */
#define BAR_LEAST     8    /* a shorter one says nothing */
#define NARROW        60   /* columns; on a narrower terminal one space is between the parts, else two */
#define PART_MAX      48   /* bytes of a part, */
#define TIME_MAX      32   /* and of a time in it */
#define LINE_SECONDS  1.0  /* least time between two lines of steps where stderr is no terminal */
#define QUIET_SECONDS 60.0 /* most time there without a line while a step goes on */
#define BYTES_SECONDS 10.0 /* between two lines of a download there, */
#define BYTES_COLUMNS 70   /* which have no room for the bar */

/* An estimate needs some time and some work behind it. */
#define ESTIMATE_SECONDS  0.5
#define ESTIMATE_FRACTION 0.02

static progress_bar *drawn; /* the bar that has drawn last; NULL: none */

void progress_init(progress_bar *bar, int quiet, int32_t image, int32_t images, show *shown)
{
    *bar = (progress_bar){
        .quiet = quiet,
        .terminal = terminal_is_one(STDERR_FILENO),
        .show = shown,
        .image = image,
        .images = images,
        .stage = (zimage_stage)ZIMAGE_STAGE_COUNT,
        .last_print = -1,
    };
}

/* ---- texts ---- */

/* "text_encoder" -> "text encoder" */
static void write_stage(char text[PART_MAX], zimage_stage stage)
{
    snprintf(text, PART_MAX, "%s", zimage_stage_name(stage));
    for (char *c = text; *c; c++)
        if (*c == '_')
            *c = ' ';
}

/* "12 s", "1:15", "2:03:59" */
static void write_seconds(char text[TIME_MAX], double seconds)
{
    long long whole = (long long)(seconds + 0.5);
    if (whole < 60)
        snprintf(text, TIME_MAX, "%lld s", whole);
    else if (whole < 3600)
        snprintf(text, TIME_MAX, "%lld:%02lld", whole / 60, whole % 60);
    else
        snprintf(text, TIME_MAX, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
}

/* "1.3 s/step" or "4.2 steps/s", measured since the first step began; empty before the first step is done. */
static void write_rate(char text[PART_MAX], const progress_bar *bar, const zimage_progress *p)
{
    double steps = p->step - 1 + (p->blocks > 0 ? (double)p->block / p->blocks : 0);
    double seconds = p->elapsed - bar->begin_seconds;
    *text = 0;
    if (p->steps <= 1 || steps < 1 || seconds <= 0)
        return;
    if (seconds >= steps)
        snprintf(text, PART_MAX, "%.1f s/step", seconds / steps);
    else
        snprintf(text, PART_MAX, "%.1f steps/s", steps / seconds);
}

/* Seconds until the image is there; 0: not known. Stages do their work at different rates, so the rate is that of the
 * present stage where it has one. */
static double seconds_left(const progress_bar *bar, const zimage_progress *p)
{
    double seconds = p->elapsed - bar->begin_seconds, done = p->fraction - bar->begin_fraction;
    if (seconds < ESTIMATE_SECONDS || done <= 0) {
        seconds = p->elapsed;
        done = p->fraction;
    }
    return seconds >= ESTIMATE_SECONDS && p->fraction >= ESTIMATE_FRACTION ? seconds * (1 - p->fraction) / done : 0;
}

/* ---- the line on a terminal ---- */

/* The parts, in the order of the line. */
enum { BAR, PERCENT, IMAGE, STAGE, RATE, ELAPSED, LEFT, PARTS };

/* The part of the bar that is done is filled. */
static void write_bar(char text[PART_MAX], int columns, double fraction)
{
    int inside = columns - 2, filled = (int)(fraction * inside + 0.5);
    memset(text, '-', (size_t)columns);
    memset(text + 1, '#', (size_t)filled);
    text[0] = '[';
    text[columns - 1] = ']';
    text[columns] = 0;
}

static void write_parts(const progress_bar *bar, const zimage_progress *p, char parts[PARTS][PART_MAX])
{
    char seconds[TIME_MAX];
    double left = seconds_left(bar, p);
    memset(parts, 0, PARTS * sizeof *parts);
    snprintf(parts[PERCENT], PART_MAX, "%.0f%%", p->fraction * 100);
    if (bar->images > 1)
        snprintf(parts[IMAGE], PART_MAX, "image %d/%d", (int)bar->image, (int)bar->images);
    write_stage(parts[STAGE], p->stage);
    if (p->steps > 1)
        snprintf(parts[STAGE] + strlen(parts[STAGE]), PART_MAX - strlen(parts[STAGE]), " %d/%d", (int)p->step,
                 (int)p->steps);
    write_rate(parts[RATE], bar, p);
    write_seconds(seconds, p->elapsed);
    snprintf(parts[ELAPSED], PART_MAX, "%s elapsed", seconds);
    if (left >= 1) {
        write_seconds(seconds, left);
        snprintf(parts[LEFT], PART_MAX, "%s left", seconds);
    }
}

static void lay_out(char parts[PARTS][PART_MAX], double fraction, int columns, char line[PROGRESS_LINE_MAX])
{
    static const int by_importance[] = {PERCENT, STAGE, LEFT, IMAGE, RATE, ELAPSED};
    int fits[PARTS] = {0}, used = 0, length = 0, gap = columns < NARROW ? 1 : 2;
    columns--; /* many terminals go to the next line when the last column is written */
    for (size_t i = 0; i < sizeof by_importance / sizeof *by_importance; i++) {
        const char *part = parts[by_importance[i]];
        int more = (int)strlen(part) + (used ? gap : 0);
        fits[by_importance[i]] = *part && used + more <= columns;
        used += fits[by_importance[i]] ? more : 0;
    }
    int room = columns - used - gap < BAR_MOST ? columns - used - gap : BAR_MOST;
    fits[BAR] = room >= BAR_LEAST;
    if (fits[BAR])
        write_bar(parts[BAR], room, fraction);
    *line = 0;
    for (int i = 0; i < PARTS; i++)
        if (fits[i])
            length +=
                snprintf(line + length, PROGRESS_LINE_MAX - (size_t)length, "%*s%s", length ? gap : 0, "", parts[i]);
}

void progress_line(const progress_bar *bar, const zimage_progress *p, int columns, char line[PROGRESS_LINE_MAX])
{
    char parts[PARTS][PART_MAX];
    write_parts(bar, p, parts);
    lay_out(parts, p->fraction, columns, line);
}

static int may_draw(const progress_bar *bar, double elapsed)
{
    return bar->last_print < 0 || elapsed >= bar->last_print + PROGRESS_DRAW_SECONDS;
}

static void draw(progress_bar *bar, const char *line, double elapsed)
{
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    bar->last_print = elapsed;
    bar->shown = 1;
    drawn = bar;
}

/* ---- lines where there is no terminal ---- */

static void print_line(progress_bar *bar, const zimage_progress *p, int next_step)
{
    char image[PART_MAX] = "", stage[PART_MAX], step[PART_MAX] = "", rate[PART_MAX];
    double since = p->elapsed - bar->last_print;
    int worth = next_step && (p->step == 1 || p->step == p->steps || since >= LINE_SECONDS);
    if (!worth && since < QUIET_SECONDS)
        return;
    if (bar->images > 1)
        snprintf(image, sizeof image, "image %d of %d, ", (int)bar->image, (int)bar->images);
    write_stage(stage, p->stage);
    if (p->steps > 1)
        snprintf(step, sizeof step, ", step %d of %d", (int)p->step, (int)p->steps);
    write_rate(rate, bar, p);
    fprintf(stderr, "%s%s%s (%.1f s%s%s)\n", image, stage, step, p->elapsed, *rate ? ", " : "", rate);
    bar->last_print = p->elapsed;
}

/* ---- what happens ---- */

void progress_show(progress_bar *bar, const zimage_progress *p)
{
    if (bar->quiet)
        return;
    int next_stage = p->stage != bar->stage, next_step = next_stage || p->step != bar->step;
    if (next_stage) {
        bar->begin_seconds = p->elapsed;
        bar->begin_fraction = p->fraction;
    }
    bar->stage = p->stage;
    bar->step = p->step;
    if (!bar->terminal) {
        print_line(bar, p, next_step);
    } else if (may_draw(bar, p->elapsed)) {
        char line[PROGRESS_LINE_MAX];
        progress_line(bar, p, terminal_get_size(STDERR_FILENO).columns, line);
        draw(bar, line, p->elapsed);
    }
    if (p->preview && bar->show)
        show_preview(bar->show, p->preview, p->preview_width, p->preview_height);
}

/* ---- downloads ---- */

/* The rate since the first report: what an earlier run brought does not count. 0: not known. */
static double bytes_rate(const progress_bar *bar, const progress_bytes *b)
{
    double seconds = b->elapsed - bar->begin_seconds, bytes = (double)b->bytes - bar->begin_fraction;
    return seconds >= ESTIMATE_SECONDS && bytes > 0 ? bytes / seconds : 0;
}

static double bytes_fraction(const progress_bytes *b)
{
    double fraction = b->total ? (double)b->bytes / (double)b->total : 1;
    return fraction < 1 ? fraction : 1;
}

static void write_bytes_rate(char text[PART_MAX], double rate)
{
    if (rate > 0)
        snprintf(text, PART_MAX, rate >= 1e6 ? "%.1f MB/s" : "%.1f kB/s", rate * (rate >= 1e6 ? 1e-6 : 1e-3));
}

static void write_bytes_left(char text[PART_MAX], const progress_bytes *b, double rate)
{
    char seconds[TIME_MAX];
    if (rate <= 0 || b->bytes >= b->total)
        return;
    write_seconds(seconds, (double)(b->total - b->bytes) / rate);
    snprintf(text, PART_MAX, "%s left", seconds);
}

void progress_bytes_line(const progress_bar *bar, const progress_bytes *b, int columns, char line[PROGRESS_LINE_MAX])
{
    char parts[PARTS][PART_MAX], seconds[TIME_MAX];
    double rate = bytes_rate(bar, b), unit = b->total >= 1000000000 ? 1e-9 : 1e-6;
    memset(parts, 0, sizeof parts);
    snprintf(parts[PERCENT], PART_MAX, "%.0f%%", bytes_fraction(b) * 100);
    snprintf(parts[IMAGE], PART_MAX, "file %d/%d", b->files, b->files_total);
    snprintf(parts[STAGE], PART_MAX, "%.1f/%.1f %s", (double)b->bytes * unit, (double)b->total * unit,
             b->total >= 1000000000 ? "GB" : "MB");
    write_bytes_rate(parts[RATE], rate);
    write_seconds(seconds, b->elapsed);
    snprintf(parts[ELAPSED], PART_MAX, "%s elapsed", seconds);
    write_bytes_left(parts[LEFT], b, rate);
    lay_out(parts, bytes_fraction(b), columns, line);
}

void progress_show_bytes(progress_bar *bar, const progress_bytes *b)
{
    char line[PROGRESS_LINE_MAX];
    if (bar->quiet)
        return;
    if (bar->begin_seconds <= 0) {
        bar->begin_seconds = b->elapsed;
        bar->begin_fraction = (double)b->bytes;
        bar->last_print = bar->terminal ? -1 : b->elapsed;
    }
    if (bar->terminal && may_draw(bar, b->elapsed)) {
        progress_bytes_line(bar, b, terminal_get_size(STDERR_FILENO).columns, line);
        draw(bar, line, b->elapsed);
    } else if (!bar->terminal && b->elapsed >= bar->last_print + BYTES_SECONDS) {
        progress_bytes_line(bar, b, BYTES_COLUMNS, line);
        fprintf(stderr, "%s\n", line);
        bar->last_print = b->elapsed;
    }
}

int cli_on_progress(const zimage_progress *p, void *user)
{
    progress_show(user, p);
    return cli_signal_caught() != 0;
}

void progress_interrupt(void)
{
    if (!drawn || !drawn->shown)
        return;
    if (drawn->show)
        show_end_previews(drawn->show);
    fprintf(stderr, "\r\033[K");
    drawn->shown = 0;
    drawn->last_print = -1;
}

void progress_end(progress_bar *bar)
{
    progress_interrupt();
    if (drawn == bar)
        drawn = NULL;
}
