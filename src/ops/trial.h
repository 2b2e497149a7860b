/*
 * One run of a case on one backend: random inputs between guards, and the results. Only cases.c, cases_*.c and trial.c
 * include this header. What the lists of cases repeat on each line therefore has names without a prefix.
 */
#ifndef ZI_OPS_TRIAL_H
#define ZI_OPS_TRIAL_H

#include "ops/cases.h"

/* How exactly a backend computes: each has a bound of its own. */
typedef enum zi_precision {
    ZI_PRECISION_F32,    /* everything in float32 */
    ZI_PRECISION_BF16,   /* operands of products rounded to bf16, all else in float32 */
    ZI_PRECISION_INT8,   /* operands of linear layers rounded to int8, all else in float32 */
    ZI_PRECISION_STORED, /* activations stored in bf16, too */
    ZI_PRECISION_FP8,    /* the same, and operands of linear layers rounded to fp8 */
    ZI_PRECISIONS,
} zi_precision;

/*
 * Largest errors as shares of the largest value: in float32, with bf16 operands, with int8 operands, stored in bf16, in
 * fp8. 0: no such case, mostly because that precision computes the operation as another one does.
 */
typedef struct zi_bound {
    double allowed[ZI_PRECISIONS];
} zi_bound;

/* What weights are stored in: bits of a set. Groups have scales and biases in bf16 unless their name says otherwise. */
typedef enum zi_stored {
    F32 = 1,
    F16 = 2,
    BF16 = 4,
    Q4 = 8, /* 4 bits, groups of 32 */
    Q4_64 = 16,
    Q8 = 32,
    Q6_128_F16 = 64,
    Q3_64_F32 = 128,
    DENSE = 7,
    ALL = 8 * 32 - 1,
} zi_stored;

enum { ZI_TRIAL_TENSORS = 24, ZI_TRIAL_RESULTS = 40, ZI_TRIAL_ANSWERS = 256 };

/* A tensor between guards: rows of `left` guards, `columns` elements and `right` guards, more guards around them. */
typedef struct zi_trial_tensor {
    zi_tensor whole; /* [elements and guards] */
    void *data;
    int64_t offset; /* of the view */
    int64_t rows, columns, left, right;
    float *uploaded; /* the elements [rows][columns] */
    int written;     /* 0: must still hold what was uploaded at the end */
} zi_trial_tensor;

typedef struct zi_trial_result {
    const float *values;
    int64_t count;
    const zi_bound *bound;
    double scale; /* that errors are shares of; 0: the largest value */
    int average;  /* errors are root mean squares */
} zi_trial_result;

typedef struct zi_trial {
    zi_run run;
    const zi_cases_options *options;
    zi_precision precision; /* of the backend under test */
    int reference;          /* this is the reference's run: operands are rounded for it */
    zi_arena *host;         /* memory of weights and of what is uploaded and downloaded */
    uint64_t random;
    zi_trial_tensor tensors[ZI_TRIAL_TENSORS];
    zi_trial_result results[ZI_TRIAL_RESULTS];
    float answers[ZI_TRIAL_ANSWERS]; /* of yes and no; the last result */
    int tensor_count, result_count, answer_count;
    zimage_error error;
} zi_trial;

/* How a tensor is made. */
typedef struct zi_input {
    float magnitude; /* elements lie in [-magnitude, magnitude) + mean */
    float mean;
    int exact;           /* from alloc_f32, instead of alloc */
    int operand;         /* the reference's elements are rounded as operands of a product are */
    int written;         /* the case may write to it */
    int64_t left, right; /* columns beside the view of a matrix */
} zi_input;

/* Columns beside a matrix, for the flags VIEWS and ODD_VIEWS. */
void zi_trial_view(zi_input *input, int flags);

/* Ready for the next case: no tensors, no results, the same random numbers again. */
void zi_trial_begin(zi_trial *t);

/* Random numbers in [-1, 1). */
float zi_trial_random(zi_trial *t);
/* Cleared host memory. */
zimage_status zi_trial_memory(zi_trial *t, int64_t bytes, void **data);
/* `count` random floats for a tensor with rows of n elements. */
zimage_status zi_trial_floats(zi_trial *t, const zi_input *input, int64_t count, int64_t n, float **values);
/* A tensor of random elements. */
zimage_status zi_trial_input(zi_trial *t, zi_tensor *x, const zi_input *input, int dims, const int64_t *shape);
/* The same of these values, which are kept and may be rounded. */
zimage_status zi_trial_input_of(zi_trial *t, zi_tensor *x, const zi_input *input, float *values, int dims,
                                const int64_t *shape);
/* Puts the elements that a tensor began with there again. */
zimage_status zi_trial_restore(zi_trial *t, const zi_tensor *x);

/* A random weight. `stored` is one bit of zi_stored; a vector is stored in BF16 where that bit means groups. Of the
 * flags of a case UNALIGNED and SHORT are read. */
zimage_status zi_trial_weight(zi_trial *t, zi_weight *w, int stored, int flags, int dims, const int64_t *shape);
/* Rounds the reference's weight as an operand of a product. */
zimage_status zi_trial_round_weight(zi_trial *t, zi_weight *w);
/* Rounds the reference's activations as operands of a product. */
zimage_status zi_trial_round(zi_trial *t, zi_tensor *x);

/* Keeps values, which must last, as a result. `scale`: see zi_trial_result. */
void zi_trial_values(zi_trial *t, const float *values, int64_t count, const zi_bound *bound, double scale);
/* Keeps what a tensor holds now as a result; one that is not dense must be a view of an input. */
zimage_status zi_trial_result_of(zi_trial *t, const zi_tensor *x, const zi_bound *bound, double scale);
/* Keeps an answer that must be the same on both backends. */
void zi_trial_answer(zi_trial *t, int yes);
/* What check_finite says of x, now or when everything has been computed. */
zimage_status zi_trial_finite(zi_trial *t, const zi_tensor *x, int *finite);
/* Closes the results; an operation's output must not have left its tensor, and inputs must be as they were: *fault
 * says what went wrong, or is NULL. */
zimage_status zi_trial_end(zi_trial *t, const char **fault);

/* ---- cases ------------------------------------------------------------------------------------------------------- */

#define EPS   1e-6f /* of norms */
#define SHAPE ZI_SHAPE

/* What a case adds to its operation. The comment of an operation's cases says what a flag means to them. */
enum {
    SLOW = 1 << 0,      /* left out if zi_cases_options.quick */
    UNALIGNED = 1 << 1, /* weights at an odd address */
    SHORT = 1 << 2,     /* weights with elements that bf16 holds exactly */
    VIEWS = 1 << 3,     /* column views at whole 16 bytes */
    ODD_VIEWS = 1 << 4, /* column views at odd places */
    BIAS = 1 << 5,
    ADD = 1 << 6, /* y += ... */
    SUM = BIAS | ADD,
    IN_PLACE = 1 << 7,
    EXACT = 1 << 8, /* inputs and outputs from alloc_f32 */
    WIDE = 1 << 9,  /* the output from alloc_f32 */
    WEIGHT = 1 << 10,
    SCALE = 1 << 11,
    SHIFT = 1 << 12,
    LAYER = 1 << 13,
    GATE = 1 << 14,
    PLAIN = 1 << 15,
    LAST = 1 << 16,
    OTHER = 1 << 17, /* the operation's other form: each operation has two at most */
    LARGE = 1 << 18, /* large numbers */
    CAUSAL = 1 << 19,
    DOUBLED = 1 << 20,
    AFFINE = 1 << 21,
    STRIDE = 1 << 22,
    LOPSIDED = 1 << 23,
    BANDS = 1 << 24,
    POST_SCALE = 1 << 25,
    SEQUENCES = 1 << 26, /* attention of two sequences */
};

typedef struct zi_case_kind zi_case_kind;

typedef struct zi_case {
    const zi_case_kind *kind;
    int size[6];
    int stored; /* set of zi_stored: one case each; 0: no weights */
    int flags;
} zi_case;

struct zi_case_kind {
    const char *group, *operations;
    const char *format; /* of the name, from the sizes */
    zimage_status (*run)(zi_trial *t, const zi_case *c);
    const zi_bound *bound; /* of a result; allowed 0: a precision has no such case */
};

/* Each list ends with a case without kind. */
extern const zi_case zi_cases_products[], zi_cases_rows[], zi_cases_images[];

int zi_trial_rehearses(const zi_trial *t);
/* Whether products read operands that were rounded (not stored so). */
int zi_trial_rounds(const zi_trial *t);

#endif
