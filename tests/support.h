/* Shared by the tests: temporary folders, fixtures, comparing floats, running the program. */
#ifndef ZI_TESTS_SUPPORT_H
#define ZI_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zimage.h"

/* Whether tests leave out what takes long and what quicker builds test: under the sanitizers, in an emulator. */
static inline int is_brief(void)
{
    return getenv("ZIMAGE_BRIEF_TESTS") != NULL;
}

/*
 * Largest error relative to the reference's scale: max |a - b| / max(|b|max, tiny). The parity table's figure.
 * NaN counts as infinite.
 */
static inline double relative_error(const float *a, const float *b, size_t count)
{
    double worst = 0, scale = 1e-30;
    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - b[i]);
        if (!(difference <= worst))
            worst = isnan(difference) ? INFINITY : difference;
        if (fabs(b[i]) > scale)
            scale = fabs(b[i]);
    }
    return worst / scale;
}

/*
 * One line of the parity table, and the assertion. name: "BACKEND: STAGE: CASE"; tools/parity.sh prints the worst case
 * of each stage on each backend. note: more about the case, or "".
 */
static inline void parity_line(const char *name, double error, double tolerance, const char *note)
{
    printf("parity | %-56s | %8.3g | %8.3g | %s%s\n", name, error, tolerance, error <= tolerance ? "ok" : "FAIL", note);
    if (!(error <= tolerance))
        fail_msg("%s: error %g exceeds %g", name, error, tolerance);
}

/* The same, of the largest error relative to the reference's scale. */
static inline void parity(const char *name, const float *ours, const float *reference, size_t count, double tolerance)
{
    parity_line(name, relative_error(ours, reference, count), tolerance, "");
}

/* The same for the bytes of an image: at most 1 off, and few. name: the case. */
static inline void parity_bytes(const char *backend, const char *name, const uint8_t *ours, const uint8_t *reference,
                                size_t count)
{
    size_t off = 0;
    int worst = 0;
    for (size_t i = 0; i < count; i++) {
        int difference = abs((int)ours[i] - reference[i]);
        off += difference > 0;
        if (difference > worst)
            worst = difference;
    }
    char line[192], note[64];
    snprintf(line, sizeof line, "%s: image, pixels: %s", backend, name);
    snprintf(note, sizeof note, " (%zu of %zu bytes off)", off, count);
    parity_line(line, worst, 1, note);
    assert_true(off * 1000 <= count);
}

#endif
