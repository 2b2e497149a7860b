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
    zimage_open_params params;
    zimage_open_params_init(&params);

    zimage_context *context = NULL;
    if (zimage_open(argv[1], &params, &context, &error) != ZIMAGE_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    zimage_request request;
    zimage_request_init(context, &request);
    request.prompt = argv[2];
    request.seed = 42;
    request.progress = on_progress;

    zimage_image *image = NULL;
    zimage_status status = zimage_generate(context, &request, &image, &error);
    if (status == ZIMAGE_OK)
        status = zimage_image_write_png(image, argv[3], NULL, 0, &error);
    if (status != ZIMAGE_OK)
        fprintf(stderr, "%s\n", error.message);
    zimage_image_free(image);
    zimage_close(context);
    return status == ZIMAGE_OK ? 0 : 1;
}
