#include "show.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "shared/base64.h"
#include "sixel.h"

#define PREVIEW_ROWS 12   /* of the terminal */
#define KITTY_CHUNK  4096 /* characters of base64 that one of Kitty's sequences may hold */
#define ITERM2_CHUNK 3072
#define CELL_WIDTH   8 /* pixels of a character where the terminal does not say */
#define CELL_HEIGHT  16
#define ROWS_KEPT    2      /* for the line behind the image, and the next one */
#define PREVIEW_ID   0x7a69 /* Kitty's number of the preview, which is replaced again and again */
#define SAVE_CURSOR  "\0337"
#define PUT_CURSOR   "\0338"

/* ---- protocols --------------------------------------------------------------------------------------------------- */

/*
 * https://sw.kovidgoyal.net/kitty/graphics-protocol/: a PNG file (f=100) is transmitted and displayed (a=T), without an
 * answer (q=2), in pieces, of which all but the last have m=1. A picture with a number replaces the one before, and the
 * cursor stays (C=1).
 */
static void write_kitty(FILE *file, const uint8_t *png, size_t size, int id)
{
    char text[KITTY_CHUNK];
    size_t length = base64_length(size);
    for (size_t at = 0; at < length; at += KITTY_CHUNK) {
        size_t count = length - at < KITTY_CHUNK ? length - at : KITTY_CHUNK;
        fputs("\033_G", file);
        if (at == 0)
            fputs("a=T,f=100,q=2,", file);
        if (at == 0 && id)
            fprintf(file, "i=%d,p=1,C=1,", id);
        base64_write(png, size, at, text, count);
        fprintf(file, "m=%d;%.*s\033\\", at + count < length, (int)count, text);
    }
}

/* https://iterm2.com/documentation-images.html: a file of any format. */
static void write_iterm2(FILE *file, const uint8_t *png, size_t size)
{
    char text[ITERM2_CHUNK];
    size_t length = base64_length(size);
    fprintf(file, "\033]1337;File=inline=1;size=%zu;preserveAspectRatio=1:", size);
    for (size_t at = 0; at < length; at += ITERM2_CHUNK) {
        size_t count = length - at < ITERM2_CHUNK ? length - at : ITERM2_CHUNK;
        base64_write(png, size, at, text, count);
        fwrite(text, 1, count, file);
    }
    fputc('\a', file);
}

static int write_picture(FILE *file, terminal_protocol protocol, const zimage_image *image, int id)
{
    uint8_t *png = NULL;
    size_t size;
    if (protocol == TERMINAL_SIXEL)
        return sixel_write(file, zimage_image_pixels(image), zimage_image_width(image), zimage_image_height(image));
    if (zimage_image_encode(image, ZIMAGE_FORMAT_PNG, NULL, 0, &png, &size, NULL) != ZIMAGE_OK)
        return 0;
    if (protocol == TERMINAL_KITTY)
        write_kitty(file, png, size, id);
    else
        write_iterm2(file, png, size);
    zimage_free(png);
    return 1;
}

int show_write(FILE *file, terminal_protocol protocol, const zimage_image *image)
{
    return write_picture(file, protocol, image, 0);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

/* A smaller copy: each pixel is the mean of those that it stands for. NULL: no memory. */
static zimage_image *shrink(const zimage_image *image, int width, int height)
{
    int from_width = zimage_image_width(image), from_height = zimage_image_height(image);
    const uint8_t *from = zimage_image_pixels(image);
    uint8_t *rgb = malloc((size_t)width * (size_t)height * 3);
    zimage_image *small = NULL;
    for (int i = 0; rgb && i < width * height; i++) {
        int64_t x = i % width, y = i / width, sums[3] = {0};
        int left = (int)(x * from_width / width), right = (int)((x + 1) * from_width / width);
        int top = (int)(y * from_height / height), bottom = (int)((y + 1) * from_height / height);
        for (int v = top; v < bottom; v++)
            for (int u = left; u < right; u++)
                for (int c = 0; c < 3; c++)
                    sums[c] += from[3 * ((size_t)v * (size_t)from_width + (size_t)u) + (size_t)c];
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] = (uint8_t)(sums[c] / ((int64_t)(right - left) * (bottom - top)));
    }
    if (rgb)
        zimage_image_from_pixels(rgb, width, height, (size_t)width * 3, 3, &small, NULL);
    free(rgb);
    return small;
}

/* How much smaller an image has to become to fit the terminal; 1: it fits. */
static double scale_to_fit(const zimage_image *image, const terminal_size *t, int rows)
{
    int cell_width = t->width ? t->width / t->columns : CELL_WIDTH;
    int cell_height = t->height ? t->height / t->rows : CELL_HEIGHT;
    double across = (double)t->columns * cell_width / zimage_image_width(image);
    double down = (double)(rows > 1 ? rows : 1) * cell_height / zimage_image_height(image);
    double least = across < down ? across : down;
    return least < 1 ? least : 1;
}

/* Draws an image in at most so many rows. */
static int draw(terminal_protocol protocol, const zimage_image *image, int rows, int id)
{
    terminal_size t = terminal_get_size(STDOUT_FILENO);
    double scale = scale_to_fit(image, &t, rows);
    if (scale == 1)
        return write_picture(stdout, protocol, image, id);
    int width = (int)(scale * zimage_image_width(image)), height = (int)(scale * zimage_image_height(image));
    zimage_image *small = shrink(image, width > 0 ? width : 1, height > 0 ? height : 1);
    int drawn = small && write_picture(stdout, protocol, small, id);
    zimage_image_free(small);
    return drawn;
}

/* ---- what is shown ----------------------------------------------------------------------------------------------- */

void show_begin(show *s, const char *command, const cli_options *o)
{
    *s = (show){.protocol = TERMINAL_NONE};
    if (!CLI_IS_GIVEN(o, show))
        return;
    s->protocol = (terminal_protocol)o->show;
    if (s->protocol == TERMINAL_AUTO)
        s->protocol = terminal_find(STDOUT_FILENO);
    s->has_previews = s->protocol != TERMINAL_NONE && terminal_is_one(STDOUT_FILENO) && terminal_is_one(STDERR_FILENO);
    if (s->protocol == TERMINAL_NONE && !isatty(STDOUT_FILENO))
        cli_line(stderr, "zimage %s: warning: --show: standard output is no terminal, so nothing is shown", command);
    else if (s->protocol == TERMINAL_NONE)
        cli_line(stderr,
                 "zimage %s: warning: --show: this terminal has no graphics of Kitty, iTerm2 or Sixel, so nothing is "
                 "shown",
                 command);
}

/* Below the line of progress, where the cursor is: rows are made once, by newlines, so that nothing scrolls later. */
static void begin_previews(show *s)
{
    s->rows = PREVIEW_ROWS;
    for (int i = 0; i < s->rows; i++)
        fputs("\n", stdout);
    printf("\r\033[%dA", s->rows);
}

void show_preview(show *s, const uint8_t *rgb, int width, int height)
{
    zimage_image *image = NULL;
    terminal_size t = terminal_get_size(STDOUT_FILENO);
    if (!s->has_previews || t.rows <= PREVIEW_ROWS + ROWS_KEPT ||
        zimage_image_from_pixels(rgb, width, height, (size_t)width * 3, 3, &image, NULL) != ZIMAGE_OK)
        return;
    if (s->rows == 0)
        begin_previews(s);
    fputs(SAVE_CURSOR "\r\033[1B", stdout);
    /* One row stays free: some terminals move the cursor below a picture, and would scroll. */
    draw(s->protocol, image, s->rows - 1, s->protocol == TERMINAL_KITTY ? PREVIEW_ID : 0);
    fputs(PUT_CURSOR, stdout);
    fflush(stdout);
    zimage_image_free(image);
}

void show_end_previews(show *s)
{
    if (s->rows == 0)
        return;
    if (s->protocol == TERMINAL_KITTY)
        printf("\033_Ga=d,d=I,i=%d,q=2\033\\", PREVIEW_ID);
    fputs(SAVE_CURSOR "\r\033[1B\033[J" PUT_CURSOR, stdout);
    fflush(stdout);
    s->rows = 0;
}

void show_image(show *s, const zimage_image *image)
{
    if (s->protocol == TERMINAL_NONE)
        return;
    int rows = terminal_is_one(STDOUT_FILENO) ? terminal_get_size(STDOUT_FILENO).rows - ROWS_KEPT : 0;
    int drawn = rows ? draw(s->protocol, image, rows, 0) : show_write(stdout, s->protocol, image);
    if (drawn)
        fputs("\n", stdout);
    cli_flush_output();
}
