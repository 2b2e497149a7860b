#include "route.h"

#include <stdio.h>
#include <string.h>

#include "handlers.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

#define SMALL  (64 * KIB)
#define JSON   (256 * KIB)
#define INFO   (16 * MIB)  /* read by the daemon's thread */
#define IMAGES (64 * MIB)  /* in base64 */
#define FORM   (420 * MIB) /* eight images of 50 MiB, and texts */

#define NONE   (1u << BODY_NONE)
#define A_JSON (1u << BODY_JSON)
#define A_FORM (1u << BODY_FORM)
#define BYTES  (1u << BODY_BYTES)

#define TYPE_JSON "application/json"

#define GET(path, handler, flags, text)                                                                                \
    {                                                                                                                  \
        "GET", path, handler, flags, NONE, SMALL, -1, TYPE_JSON, text                                                  \
    }

const endpoint route_table[] = {
    /* ---- operations ---- */
    GET("/health", handle_health, ROUTE_PUBLIC, "Whether the server takes requests."),
    GET("/v1/health", handle_health, ROUTE_PUBLIC, "The same."),
    {"GET", "/metrics", handle_metrics, 0, NONE, SMALL, -1, "text/plain; version=0.0.4", "Counters, for Prometheus."},
    GET("/slots", handle_slots, 0, "What each worker does."),
    GET("/props", handle_props, 0, "Version, limits and models of the server."),
    GET("/openapi.json", handle_openapi, ROUTE_PUBLIC, "This description."),
    {"GET", "/", handle_page, ROUTE_PUBLIC, NONE, SMALL, -1, "text/html; charset=utf-8", "The web page."},
    {"GET", "/assets/{name}", handle_page_file, ROUTE_PUBLIC, NONE, SMALL, -1, "text/javascript; charset=utf-8",
     "A file of the page."},
    /* ---- OpenAI ---- */
    GET("/v1/models", handle_models, 0, "The models."),
    GET("/v1/models/{id}", handle_model, 0, "One model."),
    {"POST", "/v1/images/generations", handle_make_images, 0, A_JSON, JSON, DIALECT_GENERATE, TYPE_JSON,
     "Makes images from a prompt; with stream a text/event-stream."},
    {"POST", "/v1/images/edits", handle_make_images, 0, A_FORM, FORM, DIALECT_EDIT, TYPE_JSON,
     "Makes images from a prompt and images; with stream a text/event-stream."},
    {"GET", "/v1/files/{name}", handle_file, ROUTE_PUBLIC | ROUTE_ASKS_JOB, NONE, SMALL, -1, "image/png",
     "An image that an answer named by its address, which only its client knows."},
    /* ---- AUTOMATIC1111 ---- */
    {"POST", "/sdapi/v1/txt2img", handle_sdapi_images, ROUTE_SDAPI, A_JSON, JSON, DIALECT_TXT2IMG, TYPE_JSON,
     "Makes images from a prompt."},
    {"POST", "/sdapi/v1/img2img", handle_sdapi_images, ROUTE_SDAPI, A_JSON, IMAGES, DIALECT_IMG2IMG, TYPE_JSON,
     "Makes images from a prompt and an image."},
    GET("/sdapi/v1/progress", handle_progress, ROUTE_SDAPI | ROUTE_ASKS_OPEN, "How far the caller's job is."),
    {"POST", "/sdapi/v1/interrupt", handle_interrupt, ROUTE_SDAPI | ROUTE_ASKS_OPEN, NONE, SMALL, -1, TYPE_JSON,
     "Cancels the caller's job."},
    {"POST", "/sdapi/v1/skip", handle_interrupt, ROUTE_SDAPI | ROUTE_ASKS_OPEN, NONE, SMALL, -1, TYPE_JSON,
     "The same."},
    GET("/sdapi/v1/options", handle_options, ROUTE_SDAPI, "The settings."),
    {"POST", "/sdapi/v1/options", handle_set_options, ROUTE_SDAPI, A_JSON, JSON, DIALECT_OPTIONS, TYPE_JSON,
     "Chooses the default model."},
    GET("/sdapi/v1/sd-models", handle_sd_models, ROUTE_SDAPI, "The models."),
    GET("/sdapi/v1/samplers", handle_samplers, ROUTE_SDAPI, "The one sampler."),
    GET("/sdapi/v1/schedulers", handle_schedulers, ROUTE_SDAPI, "The one scheduler."),
    GET("/sdapi/v1/upscalers", handle_upscalers, ROUTE_SDAPI, "That there is no upscaler."),
    GET("/sdapi/v1/latent-upscale-modes", handle_empty_list, ROUTE_SDAPI, "None."),
    GET("/sdapi/v1/sd-vae", handle_empty_list, ROUTE_SDAPI, "None."),
    GET("/sdapi/v1/sd-modules", handle_empty_list, ROUTE_SDAPI, "None."),
    GET("/sdapi/v1/loras", handle_empty_list, ROUTE_SDAPI, "None."),
    GET("/sdapi/v1/prompt-styles", handle_empty_list, ROUTE_SDAPI, "None."),
    GET("/sdapi/v1/embeddings", handle_embeddings, ROUTE_SDAPI, "None."),
    {"POST", "/sdapi/v1/png-info", handle_png_info, ROUTE_SDAPI, A_JSON, INFO, -1, TYPE_JSON,
     "What the texts in an image's file say of how it was made."},
    GET("/sdapi/v1/memory", handle_memory, ROUTE_SDAPI, "Memory of the machine and of the server."),
    GET("/sdapi/v1/cmd-flags", handle_empty_object, ROUTE_SDAPI, "None."),
    /* ---- zimage's own ---- */
    {"POST", "/zimage/v1/jobs", handle_job_create, 0, A_JSON | A_FORM, FORM, DIALECT_JOB, TYPE_JSON, "Queues a job."},
    GET("/zimage/v1/jobs", handle_jobs, ROUTE_ASKS_ALL, "The caller's jobs, newest first."),
    GET("/zimage/v1/jobs/{id}", handle_job, ROUTE_ASKS_JOB,
        "A job; with ?wait=SECONDS after it is over, or that time."),
    {"DELETE", "/zimage/v1/jobs/{id}", handle_job_cancel, ROUTE_ASKS_JOB, NONE, SMALL, -1, TYPE_JSON, "Cancels a job."},
    {"GET", "/zimage/v1/jobs/{id}/events", handle_job_events, ROUTE_ASKS_JOB, NONE, SMALL, -1, "text/event-stream",
     "What happens to a job; goes on behind the header Last-Event-ID."},
    {"GET", "/zimage/v1/jobs/{id}/pictures/{n}", handle_job_picture, ROUTE_UNCOUNTED | ROUTE_ASKS_JOB, NONE, SMALL, -1,
     "image/png", "An image of a job, counted from 0."},
    GET("/zimage/v1/gallery", handle_gallery, 0, "The newest images of the gallery; ?before=ID, ?limit=N."),
    {"GET", "/zimage/v1/gallery/{id}", handle_gallery_image, ROUTE_UNCOUNTED, NONE, SMALL, -1, "image/png",
     "An image of the gallery; with ?thumb=256 its thumbnail."},
    {"DELETE", "/zimage/v1/gallery/{id}", handle_gallery_remove, 0, NONE, SMALL, -1, TYPE_JSON,
     "Removes an image from the gallery."},
    {"POST", "/zimage/v1/plan", handle_plan, 0, A_JSON | A_FORM, FORM, DIALECT_JOB, TYPE_JSON,
     "What a job would take, or why it would be refused."},
    {"POST", "/zimage/v1/recipe", handle_recipe, 0, BYTES, IMAGES, -1, TYPE_JSON,
     "The request that made an image, from the texts in its file."},
    GET("/zimage/v1/capabilities", handle_props, 0, "Version, limits and models of the server."),
};

const size_t route_table_size = sizeof route_table / sizeof *route_table;

_Static_assert(sizeof route_table / sizeof *route_table < METRIC_ROUTES, "the last route counts unknown paths");

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *found = c ? strchr(digits, c | 0x20) : NULL;
    return found && (c >= 'A' || c <= '9') ? (int)(found - digits) : -1;
}

/* Decodes "%2F". 0: it is malformed, too long, or holds a zero byte. */
static int decode(const char *text, size_t length, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        int high = 0, low = 0;
        char c = text[i];
        if (c == '%') {
            if (i + 2 >= length || (high = hex_digit(text[i + 1])) < 0 || (low = hex_digit(text[i + 2])) < 0)
                return 0;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (!c || used + 1 >= ROUTE_PARAMETER_SIZE)
            return 0;
        out[used++] = c;
    }
    out[used] = 0;
    return 1;
}

/* 1: the path is the pattern's; 0: it is not; -1: it is, but a part is malformed. */
static int fits(const char *pattern, const char *path, route_match *match)
{
    int parameters = 0, is_good = 1;
    while (*pattern && *path) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return 0;
            continue;
        }
        size_t length = strcspn(path, "/");
        if (length == 0)
            return 0;
        is_good &= decode(path, length, match->parameters[parameters++]);
        path += length;
        pattern += strcspn(pattern, "}") + 1;
    }
    return *pattern || *path ? 0 : is_good ? 1 : -1;
}

int route_find(const char *method, const char *path, route_match *match)
{
    *match = (route_match){0};
    for (size_t i = 0; i < route_table_size && !match->endpoint; i++) {
        const endpoint *e = &route_table[i];
        int fit = fits(e->path, path, match);
        if (fit < 0)
            return 0;
        if (fit == 0)
            continue;
        size_t used = strlen(match->allow);
        snprintf(match->allow + used, sizeof match->allow - used, "%s%s", used ? ", " : "", e->method);
        if (!strcmp(e->method, method) || (!strcmp(e->method, "GET") && !strcmp(method, "HEAD")))
            match->endpoint = e;
    }
    return 1;
}
