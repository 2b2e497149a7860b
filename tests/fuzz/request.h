/* What the targets of bodies share: a body that was read becomes a request, which is checked by the table of fields. */
#ifndef ZI_TESTS_FUZZ_REQUEST_H
#define ZI_TESTS_FUZZ_REQUEST_H

#include <math.h>
#include <string.h>

#include "fuzz.h"
#include "serve/request.h"
#include "serve/resolve.h"

static const zimage_model_info some_model = {
    .struct_size = sizeof some_model,
    .max_prompt_tokens = 512,
    .default_width = 64,
    .default_height = 64,
    .max_width = 2048,
    .max_height = 2048,
    .size_multiple = 16,
    .default_steps = 8,
    .distilled = 1,
    .has_image_encoder = 1,
};

/* Values are those that the table says, whatever the body says. */
static void check_values(const serve_request *r)
{
    for (const request_field *f = field_table; f < field_table + field_table_size; f++) {
        const void *place = (const char *)r + f->offset;
        int is_given = row_set_has(&r->given, (size_t)(f - field_table)), words = 0;
        if (f->kind >= FIELD_OBJECT || !is_given || !(f->dialects & 1u << r->dialect))
            continue;
        while (f->words && f->words[words])
            words++;
        int64_t integer = f->kind == FIELD_INT ? *(const int64_t *)place : (int64_t)f->low;
        double number = f->kind == FIELD_NUMBER ? *(const double *)place : f->low;
        int word = f->kind == FIELD_WORD || f->kind == FIELD_BOOL ? *(const int *)place : 0;
        const char *text = f->kind == FIELD_TEXT ? *(char *const *)place : "";
        if ((double)integer < f->low || (double)integer > f->high || !(number >= f->low && number <= f->high) ||
            word < 0 || word >= (words ? words : 2) || !text || (double)strlen(text) > 4 * f->high + 1)
            zi_fuzz_fail("%s: a value out of its range", f->name);
    }
}

static void check_resolved(const resolved_request *resolved)
{
    const zimage_model_info *m = &some_model;
    int is_size = resolved->width > 0 && resolved->height > 0 && resolved->width <= m->max_width &&
                  resolved->height <= m->max_height && resolved->width % m->size_multiple == 0 &&
                  resolved->height % m->size_multiple == 0;
    if (!is_size || resolved->steps < 1 || resolved->steps > 4 * m->default_steps || resolved->guidance < 0 ||
        !isfinite(resolved->guidance) || !(resolved->strength >= 0 && resolved->strength <= 1))
        zi_fuzz_fail("%dx%d, %d steps, guidance %g, strength %g", resolved->width, resolved->height, resolved->steps,
                     resolved->guidance, resolved->strength);
}

/* Returns whether the body is a request. */
static int check_request(const form *body, serve_dialect dialect)
{
    static const serve_params params = {.max_images = 10};
    static const image_limits limits = {.bytes = 1 << 20, .pixels = 1 << 16};
    serve_request request;
    resolved_request resolved;
    fault f = {0};
    int ok = serve_request_read(body, dialect, &limits, &request, &f);
    if (ok)
        check_values(&request);
    int is_resolved =
        ok && resolve_early(&request, &params, &f) && resolve_request(&request, &some_model, &params, &resolved, &f);
    if (is_resolved)
        check_resolved(&resolved);
    else if (f.code == FAULT_NONE || !f.message[0] || fault_kind_of(f.code)->status < 400)
        zi_fuzz_fail("refused without a sentence");
    zi_fuzz_note(is_resolved ? "a request" : f.message);
    serve_request_free(&request);
    return ok;
}

#endif
