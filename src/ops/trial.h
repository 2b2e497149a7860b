/* One run of a case on one backend: random inputs between guards, and the results. For cases.c and cases_list.c. */
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
    ZI_STORED_F32 = 1,
    ZI_STORED_F16 = 2,
    ZI_STORED_BF16 = 4,
    ZI_STORED_Q4 = 8, /* 4 bits, groups of 32 */
    ZI_STORED_Q4_64 = 16,
    ZI_STORED_Q8 = 32,
    ZI_STORED_Q6_128_F16 = 64,
    ZI_STORED_Q3_64_F32 = 128,
    ZI_STORED_DENSE = 7,
    ZI_STORED_ALL = 8 * 32 - 1,
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

#define ZI_SHAPE(...)                                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                       \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

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

enum { ZI_WEIGHT_UNALIGNED = 1, ZI_WEIGHT_SHORT = 2 };
/*
 * A random weight; `stored` is one bit of zi_stored, and a vector is stored in BF16 where that means groups. Flags: at
 * an odd address; with elements that bf16 holds exactly.
 */
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

/* What a case adds to its operation. What a flag means to an operation is said where the operation's cases are. */
enum {
    ZI_CASE_SLOW = 1 << 0,      /* left out where the caller is in a hurry */
    ZI_CASE_UNALIGNED = 1 << 1, /* weights at an odd address */
    ZI_CASE_SHORT = 1 << 2,     /* weights with elements that bf16 holds exactly */
    ZI_CASE_VIEWS = 1 << 3,     /* column views at whole 16 bytes */
    ZI_CASE_ODD_VIEWS = 1 << 4, /* column views at odd places */
    ZI_CASE_BIAS = 1 << 5,
    ZI_CASE_ADD = 1 << 6, /* y += ... */
    ZI_CASE_IN_PLACE = 1 << 7,
    ZI_CASE_EXACT = 1 << 8, /* inputs and outputs from alloc_f32 */
    ZI_CASE_WIDE = 1 << 9,  /* the output from alloc_f32 */
    ZI_CASE_WEIGHT = 1 << 10,
    ZI_CASE_SCALE = 1 << 11,
    ZI_CASE_SHIFT = 1 << 12,
    ZI_CASE_LAYER = 1 << 13,
    ZI_CASE_GATE = 1 << 14,
    ZI_CASE_PLAIN = 1 << 15,
    ZI_CASE_LAST = 1 << 16,
    ZI_CASE_OTHER = 1 << 17, /* the operation's other form: each operation has two at most */
    ZI_CASE_LARGE = 1 << 18, /* large numbers */
    ZI_CASE_CAUSAL = 1 << 19,
    ZI_CASE_DOUBLED = 1 << 20,
    ZI_CASE_AFFINE = 1 << 21,
    ZI_CASE_STRIDE = 1 << 22,
    ZI_CASE_LOPSIDED = 1 << 23,
    ZI_CASE_BANDS = 1 << 24,
    ZI_CASE_POST_SCALE = 1 << 25,
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
