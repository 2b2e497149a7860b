/* What the files of a front share: front.c has its thread. */
#ifndef ZI_SERVE_FRONT_INTERNAL_H
#define ZI_SERVE_FRONT_INTERNAL_H

#include "ask.h"
#include "front.h"

#define LOAD_SECONDS 1 /* between two looks at all that wait */

/* What is known of a model's workers. */
typedef struct crew {
    int workers, announced, running;
} crew;

typedef struct line {
    const model_entry *model;
    char caller[FRONT_CALLER_TEXT];
    queue_class class;
    size_t waiting;
} line;

/* Who works and who waits, of all fronts. */
typedef struct front_load {
    crew crews[SERVE_MODELS_MAX];
    line *lines;
    size_t line_count;
    size_t waiting; /* images */
} front_load;

struct front {
    server *server;
    const service_ledger *ledger;
    pthread_t thread;
    zimage_session *sessions[SERVE_MODELS_MAX]; /* that keep the models open */
    /* with the server's lock */
    struct task *first, *last;
    int is_stopping, is_lost, is_loaded;
    front_load load;
    size_t added; /* images that came since the load was counted */
    const struct policy *policy;
    /* the thread's own */
    double placed, loaded, pause, ends;
};

/* By the front's thread, without the lock: */

/* front_keep.c: keeps an admitted job in the ledger. */
service_answer front_keep(struct front *f, job *j, zimage_error *error);
/* Jobs of this id, or of this owner, become jobs here, and are looked at. */
service_answer front_find(struct front *f, front_asking *asking, zimage_error *error);

/* front_look.c: looks at all jobs that are open here. */
service_answer front_look(struct front *f, zimage_error *error);
/* Looks at these jobs. places: also at how many images are made before theirs. */
service_answer front_look_at(struct front *f, const char *const *ids, size_t count, int places, zimage_error *error);

/* front_room.c: counts who works and who waits. */
service_answer front_count(struct front *f, zimage_error *error);

#endif
