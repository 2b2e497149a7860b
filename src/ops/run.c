/* What model code calls between the blocks of a network. */
#include <stdio.h>

#include "ops/ops.h"

zimage_status zi_fail_not_finite(zimage_error *error, const char *block)
{
    return zi_fail(error, ZIMAGE_ERROR_NOT_FINITE, "the output of %s holds a NaN or an infinity", block);
}

static zimage_status name_block(zi_run *run, int finite, const char *format, va_list arguments)
{
    char name[160];
    vsnprintf(name, sizeof(name), format, arguments);
    return finite ? zi_table(run)->name_check(run, name) : zi_fail_not_finite(run->error, name);
}

static zimage_status check_block(zi_run *run, const zi_tensor *x, const char *format, va_list arguments)
{
    int finite = 1;
    ZI_TRY(zi_table(run)->check_finite(run, x, &finite));
    return name_block(run, finite, format, arguments);
}

zimage_status zi_block_done(zi_run *run)
{
    run->blocks++;
    if (run->block_done != NULL && run->block_done(run->user) != 0)
        return zi_fail(run->error, ZIMAGE_ERROR_CANCELLED, "cancelled");
    return ZIMAGE_OK;
}

zimage_status zi_check_block(zi_run *run, const zi_tensor *x, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    zimage_status status = check_block(run, x, format, arguments);
    va_end(arguments);
    return status;
}

zimage_status zi_end_block(zi_run *run, const zi_tensor *x, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    zimage_status status = check_block(run, x, format, arguments);
    va_end(arguments);
    return status == ZIMAGE_OK ? zi_block_done(run) : status;
}

zimage_status zi_end_block_known(zi_run *run, int finite, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    zimage_status status = name_block(run, finite, format, arguments);
    va_end(arguments);
    return status == ZIMAGE_OK ? zi_block_done(run) : status;
}
