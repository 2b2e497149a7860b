/* /openapi.json, from the tables of endpoints, of fields and of faults. */
#include <ctype.h>
#include <string.h>

#include "handlers.h"

static json_t *parameters_of(const endpoint *e)
{
    json_t *list = json_array();
    for (const char *c = e->path; (c = strchr(c, '{')); c++) {
        size_t length = strcspn(c + 1, "}");
        json_array_append_new(list, json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", c + 1, length, "in", "path",
                                              "required", 1, "schema", "type", "string"));
    }
    return list;
}

static json_t *body_of(const endpoint *e)
{
    static const char *const types[] = {[BODY_JSON] = "application/json", [BODY_FORM] = "multipart/form-data"};
    json_t *content = json_object();
    for (body_kind kind = BODY_JSON; kind <= BODY_FORM; kind++)
        if (e->bodies & 1u << kind)
            json_object_set_new(content, types[kind],
                                json_pack("{s:o?}", "schema", serve_request_schema((serve_dialect)e->dialect)));
    return json_pack("{s:b, s:o?}", "required", 1, "content", content);
}

/* The answer that is meant, and one for all faults. */
static json_t *responses_of(const endpoint *e)
{
    size_t length = strcspn(e->type, ";");
    json_t *type = json_stringn(e->type, length), *content = json_object();
    if (type)
        json_object_set_new(content, json_string_value(type), json_object());
    json_decref(type);
    return json_pack("{s:{s:s, s:o?}, s:{s:s, s:{s:{s:{s:s}}}}}", "2XX", "description", e->summary, "content", content,
                     "default", "description", "A fault.", "content", "application/json", "schema", "$ref",
                     e->flags & ROUTE_SDAPI ? "#/components/schemas/sdapi_error" : "#/components/schemas/error");
}

static json_t *operation_of(const endpoint *e)
{
    json_t *operation = json_pack("{s:s, s:o?, s:o?}", "summary", e->summary, "parameters", parameters_of(e),
                                  "responses", responses_of(e));
    if (e->dialect >= 0)
        json_object_set_new(operation, "requestBody", body_of(e));
    if (!(e->flags & ROUTE_PUBLIC))
        json_object_set_new(operation, "security", json_pack("[{s:[]}, {}]", "key"));
    return operation;
}

static json_t *paths(void)
{
    json_t *all = json_object();
    for (const endpoint *e = route_table; e < route_table + route_table_size; e++) {
        char method[16];
        size_t length = 0;
        for (; length < sizeof method - 1 && e->method[length]; length++)
            method[length] = (char)tolower((unsigned char)e->method[length]);
        method[length] = 0;
        json_t *path = json_object_get(all, e->path);
        if (!path)
            json_object_set_new(all, e->path, path = json_object());
        json_object_set_new(path, method, operation_of(e));
    }
    return all;
}

static json_t *components(void)
{
    json_t *codes = json_array();
    for (int code = FAULT_NONE + 1; code < FAULT_CODES; code++)
        json_array_append_new(codes, json_string(fault_kind_of((fault_code)code)->code));
    json_t *error = json_pack("{s:s, s:{s:{s:s}, s:{s:s}, s:{s:[s,s]}, s:{s:s, s:o?}}}", "type", "object", "properties",
                              "message", "type", "string", "type", "type", "string", "param", "type", "string", "null",
                              "code", "type", "string", "enum", codes);
    json_t *sdapi =
        json_pack("{s:s, s:{s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}}}", "type", "object", "properties", "error", "type",
                  "string", "detail", "type", "string", "body", "type", "string", "errors", "type", "string");
    json_t *schemas = json_pack("{s:{s:s, s:{s:o?}}, s:o?}", "error", "type", "object", "properties", "error", error,
                                "sdapi_error", sdapi);
    return json_pack("{s:o?, s:{s:{s:s, s:s}}}", "schemas", schemas, "securitySchemes", "key", "type", "http", "scheme",
                     "bearer");
}

/* It takes milliseconds to make and never changes: it is made once. Only the daemon's thread is here. */
enum MHD_Result handle_openapi(exchange *x)
{
    struct MHD_Response *response = NULL;
    char **text = &x->http->description;
    if (!*text) {
        json_t *all = json_pack("{s:s, s:{s:s, s:s}, s:o?, s:o?}", "openapi", "3.1.0", "info", "title", "zimage",
                                "version", zimage_version(), "paths", paths(), "components", components());
        *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
        json_decref(all);
    }
    if (*text)
        response = MHD_create_response_from_buffer(strlen(*text), *text, MHD_RESPMEM_PERSISTENT);
    if (response)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    return exchange_send(x, MHD_HTTP_OK, response);
}
