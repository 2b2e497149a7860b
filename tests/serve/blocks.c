/*
 * The longest time between two looks at whether an image is wanted: blocks MODEL SIDE STEPS PROMPT
 *
 * Prints a line for each stage, "STAGE SECONDS": a job that is cancelled at any moment ends within this time. The tests
 * of the server compare it with what they see.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "zimage.h"

typedef struct watch {
    double last;
    zimage_stage stage; /* of the last look */
    double longest[ZIMAGE_STAGE_COUNT];
} watch;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void look(watch *w, zimage_stage next)
{
    double time = now();
    if (time - w->last > w->longest[w->stage])
        w->longest[w->stage] = time - w->last;
    w->last = time;
    w->stage = next;
}

static int on_progress(const zimage_progress *p, void *user)
{
    look(user, p->stage);
    return 0;
}

static zimage_status measure(zimage_session *session, int32_t side, int32_t steps, const char *prompt, watch *w,
                             zimage_error *error)
{
    zimage_image *image = NULL;
    const zimage_request request = {.struct_size = sizeof request,
                                    .prompt = prompt,
                                    .width = side,
                                    .height = side,
                                    .steps = steps,
                                    .preview = 1,
                                    .progress = on_progress,
                                    .progress_user = w};
    w->last = now();
    w->stage = ZIMAGE_STAGE_TEXT;
    zimage_status status = zimage_generate(session, &request, &image, error);
    look(w, ZIMAGE_STAGE_TEXT);
    zimage_image_free(image);
    return status;
}

int main(int argc, char **argv)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_session *session = NULL;
    watch w = {0};
    if (argc != 5) {
        fprintf(stderr, "usage: blocks MODEL SIDE STEPS PROMPT\n");
        return 2;
    }
    zimage_status status = zimage_model_open(argv[1], NULL, &model, &error);
    if (status == ZIMAGE_OK)
        status = zimage_session_open(model, NULL, &session, &error);
    if (status == ZIMAGE_OK)
        status = measure(session, atoi(argv[2]), atoi(argv[3]), argv[4], &w, &error);
    zimage_session_close(session);
    zimage_model_close(model);
    if (status != ZIMAGE_OK) {
        fprintf(stderr, "blocks: %s\n", error.message);
        return 1;
    }
    for (int stage = 0; stage < ZIMAGE_STAGE_COUNT; stage++)
        if (w.longest[stage] > 0)
            printf("%s %.6f\n", zimage_stage_name((zimage_stage)stage), w.longest[stage]);
    return 0;
}
