/* DEC's sixel graphics (VT330/VT340 Programmer Reference Manual, volume 2, chapter 14): six rows of pixels a line of
 * text, with at most 256 colours. */
#ifndef ZI_CLI_SIXEL_H
#define ZI_CLI_SIXEL_H

#include <stdint.h>
#include <stdio.h>

/* Writes pixels [height][width][3], dithered to 252 colours. 0: no memory. */
int sixel_write(FILE *file, const uint8_t *rgb, int width, int height);

#endif
