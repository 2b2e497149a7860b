#include "sixel.h"

#include <stdlib.h>
#include <string.h>

/* The colours: levels of red, green and blue. The eye tells most shades of green. */
#define REDS    6
#define GREENS  7
#define BLUES   6
#define COLOURS (REDS * GREENS * BLUES)

#define BAND      6   /* rows of pixels that a line holds */
#define FIRST     '?' /* the character of no pixel; bit i of what is added: row i has the colour */
#define SHORT_RUN 3   /* equal characters up to which none is counted */

static const int levels[3] = {REDS, GREENS, BLUES};

/* ---- colours ----------------------------------------------------------------------------------------------------- */

/* The level nearest to a number of 0 to 255; *shown: the number that it stands for. */
static int level_of(int value, int count, int *shown)
{
    value = value < 0 ? 0 : value > 255 ? 255 : value;
    int level = (value * (count - 1) + 127) / 255;
    *shown = level * 255 / (count - 1);
    return level;
}

/*
 * Floyd and Steinberg's error diffusion (1976): what a pixel's colour lacks is added to its neighbours, 7/16 to the
 * right, 3/16, 5/16 and 1/16 below. errors: of this row and of the next, [2][width + 2][3].
 */
static void dither_row(const uint8_t *rgb, int width, int *const errors[2], uint8_t *colours)
{
    for (int x = 0; x < width; x++) {
        int colour = 0;
        for (int c = 0; c < 3; c++) {
            int *here = errors[0] + 3 * (x + 1) + c, *below = errors[1] + 3 * (x + 1) + c, shown;
            int wanted = rgb[3 * x + c] + *here / 16;
            wanted = wanted < 0 ? 0 : wanted > 255 ? 255 : wanted;
            colour = colour * levels[c] + level_of(wanted, levels[c], &shown);
            int error = wanted - shown;
            here[3] += 7 * error;
            below[-3] += 3 * error;
            below[0] += 5 * error;
            below[3] += error;
        }
        colours[x] = (uint8_t)colour;
    }
}

/* The number of each pixel's colour, [height][width], released with free. NULL: no memory. */
static uint8_t *dither(const uint8_t *rgb, int width, int height)
{
    size_t row = 3 * ((size_t)width + 2);
    uint8_t *colours = calloc((size_t)width * (size_t)height, 1);
    int *memory = calloc(2 * row, sizeof *memory);
    for (int y = 0; colours && memory && y < height; y++) {
        int *const errors[2] = {memory + (size_t)(y & 1) * row, memory + (size_t)(~y & 1) * row};
        memset(errors[1], 0, row * sizeof **errors);
        dither_row(rgb + 3 * (size_t)y * (size_t)width, width, errors, colours + (size_t)y * (size_t)width);
    }
    if (!memory) {
        free(colours);
        colours = NULL;
    }
    free(memory);
    return colours;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* The colours in percent. */
static void write_palette(FILE *file)
{
    for (int i = 0; i < COLOURS; i++)
        fprintf(file, "#%d;2;%d;%d;%d", i, 100 * (i / (GREENS * BLUES)) / (REDS - 1),
                100 * (i / BLUES % GREENS) / (GREENS - 1), 100 * (i % BLUES) / (BLUES - 1));
}

static void write_run(FILE *file, int character, int count)
{
    if (count > SHORT_RUN)
        fprintf(file, "!%d%c", count, character);
    for (int i = 0; count <= SHORT_RUN && i < count; i++)
        fputc(character, file);
}

/* The pixels of one colour in a band: a character for each column. */
static void write_colour(FILE *file, const uint8_t *colours, int width, int rows, int colour)
{
    int last = FIRST, count = 0;
    fprintf(file, "#%d", colour);
    for (int x = 0; x < width; x++) {
        int bits = 0;
        for (int y = 0; y < rows; y++)
            bits |= (colours[(size_t)y * (size_t)width + (size_t)x] == colour) << y;
        if (FIRST + bits != last) {
            write_run(file, last, count);
            count = 0;
        }
        last = FIRST + bits;
        count++;
    }
    if (last != FIRST)
        write_run(file, last, count);
}

static void write_band(FILE *file, const uint8_t *colours, int width, int rows)
{
    uint8_t used[COLOURS] = {0};
    const char *back = "";
    for (size_t i = 0; i < (size_t)width * (size_t)rows; i++)
        used[colours[i]] = 1;
    for (int colour = 0; colour < COLOURS; colour++) {
        if (!used[colour])
            continue;
        fputs(back, file);
        write_colour(file, colours, width, rows, colour);
        back = "$"; /* to the begin of the line, for the next colour */
    }
}

int sixel_write(FILE *file, const uint8_t *rgb, int width, int height)
{
    uint8_t *colours = dither(rgb, width, height);
    if (!colours)
        return 0;
    fprintf(file, "\033P0;1q\"1;1;%d;%d", width, height); /* square pixels; what is not drawn stays as it is */
    write_palette(file);
    for (int y = 0; y < height; y += BAND) {
        if (y > 0)
            fputc('-', file); /* the next line; none behind the last one, which could scroll */
        write_band(file, colours + (size_t)y * (size_t)width, width, height - y < BAND ? height - y : BAND);
    }
    fputs("\033\\", file);
    free(colours);
    return 1;
}
