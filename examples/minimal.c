#include <stdio.h>
#include <zimage.h>

static int on_progress(const zimage_progress *p, void *user)
{
    (void)user;
    if (p->block == p->blocks)
        fprintf(stderr, "%s: step %d of %d\n", zimage_stage_name(p->stage), p->step, p->steps);
    return 0; // anything else cancels
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: minimal MODEL_FOLDER PROMPT OUT.png\n");
        return 2;
    }
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_session *session = NULL;
    zimage_image *image = NULL;
    zimage_request request = {.struct_size = sizeof request};
    request.prompt = argv[2];
    request.seed = 42;
    request.progress = on_progress;

    zimage_status status = zimage_model_open(argv[1], NULL, &model, &error);
    if (status == ZIMAGE_OK)
        status = zimage_session_open(model, NULL, &session, &error);
    if (status == ZIMAGE_OK)
        status = zimage_generate(session, &request, &image, &error);
    if (status == ZIMAGE_OK)
        status = zimage_image_write(image, argv[3], NULL, 0, &error);
    if (status != ZIMAGE_OK)
        fprintf(stderr, "%s\n", error.message);
    zimage_image_free(image);
    zimage_session_close(session);
    zimage_model_close(model);
    return status == ZIMAGE_OK ? 0 : 1;
}
