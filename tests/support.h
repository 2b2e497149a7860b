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

/* One line of the parity table, and the assertion. */
static inline void parity(const char *stage, const float *ours, const float *reference, size_t count, double tolerance)
{
    double error = relative_error(ours, reference, count);
    printf("parity | %-44s | %9.2e | %9.2e | %s\n", stage, error, tolerance, error <= tolerance ? "ok" : "FAIL");
    if (!(error <= tolerance))
        fail_msg("%s: relative error %g exceeds %g", stage, error, tolerance);
}

#endif
