/* The gallery over HTTP: its list, its images, their removal. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handlers.h"
#include "thumb.h"

#define LIMIT_MAX   100 /* images of a list */
#define LIMIT_USUAL 24
#define ABOUT_MAX   (1 << 20) /* bytes of what is known of an image */

/* 0: the server keeps none, which is answered. */
static int has_gallery(exchange *x)
{
    return x->server->gallery || fault_set(&x->fault, FAULT_UNSUPPORTED_ENDPOINT, NULL, "the server keeps no gallery");
}

static const char *owner_of(const exchange *x)
{
    const policy_key *key = policy_key_of(&x->http->policy, x->owner);
    return key ? key->name : "";
}

/* The request that made an image; an empty object: it is not known. NULL: no memory. */
static json_t *about(exchange *x, const gallery_image *image)
{
    zimage_format format;
    int fd = gallery_file(x->server->gallery, owner_of(x), image->id, GALLERY_ABOUT, &format);
    struct stat status;
    json_t *value = NULL;
    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size < ABOUT_MAX)
        value = json_loadfd(fd, 0, NULL);
    if (fd >= 0)
        close(fd);
    if (json_is_object(value))
        return value;
    json_decref(value);
    return json_object();
}

static json_t *image_json(exchange *x, const gallery_image *image)
{
    return json_pack("{s:s, s:o?, s:o?, s:s, s:o?}", "id", image->id, "url",
                     json_sprintf("/zimage/v1/gallery/%s", image->id), "thumb_url",
                     json_sprintf("/zimage/v1/gallery/%s?thumb=" THUMB_NAME, image->id), "format",
                     zimage_format_name(image->format), "request", about(x, image));
}

enum MHD_Result handle_gallery(exchange *x)
{
    const char *limit_text = exchange_argument(x, "limit"), *before = exchange_argument(x, "before");
    long limit = limit_text ? strtol(limit_text, NULL, 10) : LIMIT_USUAL;
    gallery_image images[LIMIT_MAX];
    int has_more = 0;
    if (!has_gallery(x))
        return answer_fault(x);
    limit = limit < 1 ? 1 : limit > LIMIT_MAX ? LIMIT_MAX : limit;
    size_t count = gallery_list(x->server->gallery, owner_of(x), before, (size_t)limit, images, &has_more);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, image_json(x, &images[i]));
    return answer_json(x, MHD_HTTP_OK, json_pack("{s:o?, s:b}", "images", list, "has_more", has_more));
}

static enum MHD_Result answer_missing(exchange *x)
{
    fault_set(&x->fault, FAULT_FILE_NOT_FOUND, NULL, "the gallery has no such image");
    return answer_fault(x);
}

enum MHD_Result handle_gallery_image(exchange *x)
{
    zimage_format format;
    struct stat status;
    int is_thumb = 0;
    if (!has_gallery(x) || !exchange_wants_thumb(x, &is_thumb))
        return answer_fault(x);
    gallery *g = x->server->gallery;
    const char *id = x->match.parameters[0];
    int fd = gallery_file(g, owner_of(x), id, is_thumb ? GALLERY_THUMB : GALLERY_IMAGE, &format);
    const char *type = is_thumb && fd >= 0 ? "image/jpeg" : NULL;
    if (is_thumb && fd < 0) /* a file that was copied into the folder has no thumbnail */
        fd = gallery_file(g, owner_of(x), id, GALLERY_IMAGE, &format);
    if (fd < 0 || fstat(fd, &status) != 0)
        return answer_missing(x);
    struct MHD_Response *response = MHD_create_response_from_fd((size_t)status.st_size, fd);
    if (!response) {
        close(fd);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type ? type : format_type(format));
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "private, no-store");
    return exchange_send(x, MHD_HTTP_OK, response);
}

enum MHD_Result handle_gallery_remove(exchange *x)
{
    if (!has_gallery(x))
        return answer_fault(x);
    if (!gallery_remove(x->server->gallery, owner_of(x), x->match.parameters[0]))
        return answer_missing(x);
    return answer_json(x, MHD_HTTP_OK, json_pack("{s:s, s:b}", "id", x->match.parameters[0], "deleted", 1));
}
