/* Pictures in the terminal at standard output (--show): each finished image, and while it is made its previews. */
#ifndef ZI_CLI_SHOW_H
#define ZI_CLI_SHOW_H

#include "options.h"
#include "terminal.h"
#include "zimage.h"

typedef struct show {
    terminal_protocol protocol; /* TERMINAL_NONE: nothing is shown */
    int has_previews;           /* 1: standard output and error are terminals, so previews can be drawn over */
    int rows;                   /* reserved below the line of progress for previews; 0: none yet */
} show;

/* What --show asks for. Prints a warning where the terminal shows no pictures. */
void show_begin(show *s, const char *command, const cli_options *options);
/* Draws a preview of pixels [height][width][3] below the line of progress, in place of the one before. */
void show_preview(show *s, const uint8_t *rgb, int width, int height);
/* Removes the preview. */
void show_end_previews(show *s);
/* Draws a finished image, no larger than the terminal, and a newline. */
void show_image(show *s, const zimage_image *image);

/* The data alone, without a newline, in the image's own size. 0: no memory. */
int show_write(FILE *file, terminal_protocol protocol, const zimage_image *image);

#endif
