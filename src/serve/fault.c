#include "fault.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define INVALID "invalid_request_error"

static const fault_kind kinds[FAULT_CODES] = {
    [FAULT_NONE] = {"none", "none", 200, 0},
    [FAULT_INVALID_JSON] = {"invalid_json", INVALID, 400, 0},
    [FAULT_INVALID_VALUE] = {"invalid_value", INVALID, 400, 0},
    [FAULT_UNKNOWN_PARAMETER] = {"unknown_parameter", INVALID, 400, 0},
    [FAULT_UNSUPPORTED_VALUE] = {"unsupported_value", INVALID, 400, 0},
    [FAULT_UNSUPPORTED_PARAMETER] = {"unsupported_parameter", INVALID, 400, 0},
    [FAULT_MISSING_PARAMETER] = {"missing_required_parameter", INVALID, 400, 0},
    [FAULT_STRING_TOO_LONG] = {"string_too_long", INVALID, 400, 0},
    [FAULT_INVALID_IMAGE] = {"invalid_image", INVALID, 400, 0},
    [FAULT_UNSUPPORTED_MODEL] = {"unsupported_model", INVALID, 400, 0},
    [FAULT_INVALID_API_KEY] = {"invalid_api_key", "authentication_error", 401, 0},
    [FAULT_HOST_NOT_ALLOWED] = {"host_not_allowed", "permission_error", 403, 0},
    [FAULT_ORIGIN_NOT_ALLOWED] = {"origin_not_allowed", "permission_error", 403, 0},
    [FAULT_SWITCH_NOT_ALLOWED] = {"switch_not_allowed", "permission_error", 403, 0},
    [FAULT_MODEL_NOT_FOUND] = {"model_not_found", "not_found_error", 404, 0},
    [FAULT_JOB_NOT_FOUND] = {"job_not_found", "not_found_error", 404, 0},
    [FAULT_RECIPE_NOT_FOUND] = {"recipe_not_found", "not_found_error", 404, 0},
    [FAULT_FILE_NOT_FOUND] = {"file_not_found", "not_found_error", 404, 0},
    [FAULT_UNSUPPORTED_ENDPOINT] = {"unsupported_endpoint", "not_found_error", 404, 0},
    [FAULT_METHOD_NOT_ALLOWED] = {"method_not_allowed", INVALID, 405, 0},
    [FAULT_BODY_TIMEOUT] = {"body_timeout", "timeout_error", 408, 0},
    [FAULT_JOB_FINISHED] = {"job_finished", "conflict_error", 409, 1},
    [FAULT_IDEMPOTENCY_MISMATCH] = {"idempotency_mismatch", "conflict_error", 409, 1},
    [FAULT_REQUEST_TOO_LARGE] = {"request_too_large", INVALID, 413, 0},
    [FAULT_UNSUPPORTED_MEDIA_TYPE] = {"unsupported_media_type", INVALID, 415, 0},
    [FAULT_QUEUE_FULL] = {"queue_full", "rate_limit_error", 429, 0},
    [FAULT_RATE_LIMIT] = {"rate_limit_exceeded", "rate_limit_error", 429, 0},
    [FAULT_WAIT_EXCEEDS_TIMEOUT] = {"wait_exceeds_timeout", "rate_limit_error", 429, 0},
    [FAULT_INTERNAL] = {"internal_error", "server_error", 500, 1},
    [FAULT_NOT_FINITE] = {"not_finite", "server_error", 500, 1},
    [FAULT_CANCELLED] = {"cancelled", "conflict_error", 409, 1},
    [FAULT_MODEL_LOADING] = {"model_loading", "server_error", 503, 0},
    [FAULT_MODEL_FAILED] = {"model_failed", "server_error", 503, 1},
    [FAULT_SHUTTING_DOWN] = {"shutting_down", "server_error", 503, 0},
    [FAULT_NO_WORKER] = {"no_worker", "server_error", 503, 0},
    [FAULT_LEDGER_LOST] = {"ledger_lost", "server_error", 503, 0},
    [FAULT_INSUFFICIENT_MEMORY] = {"insufficient_memory", "server_error", 503, 1},
};

const fault_kind *fault_kind_of(fault_code code)
{
    return &kinds[(unsigned)code < FAULT_CODES ? code : FAULT_INTERNAL];
}

int fault_set(fault *f, fault_code code, const char *param, const char *format, ...)
{
    char text[sizeof f->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    f->code = code;
    f->retry_after = 0;
    snprintf(f->param, sizeof f->param, "%s", param ? param : "");
    zimage_printable(text, f->message, sizeof f->message);
    return 0;
}

/* The library's sentences about a request begin with the name of its field: "steps: 0, expected 1 to 1000". */
static void field_of(const char *message, char *field, size_t size)
{
    size_t length = 0;
    while (islower((unsigned char)message[length]) || message[length] == '_')
        length++;
    int is_field = length > 0 && (message[length] == ':' || message[length] == '[' || message[length] == ' ');
    snprintf(field, size, "%.*s", is_field ? (int)length : 0, message);
}

int fault_of_error(fault *f, const zimage_error *error)
{
    char field[sizeof f->param];
    field_of(error->message, field, sizeof field);
    switch (error->status) {
    case ZIMAGE_ERROR_ARGUMENT:
        return fault_set(f, FAULT_INVALID_VALUE, field, "%s", error->message);
    case ZIMAGE_ERROR_UNSUPPORTED:
        return fault_set(f, FAULT_UNSUPPORTED_VALUE, field, "%s", error->message);
    case ZIMAGE_ERROR_MEMORY:
        return fault_set(f, FAULT_INSUFFICIENT_MEMORY, NULL, "%s", error->message);
    case ZIMAGE_ERROR_NOT_FINITE:
        return fault_set(f, FAULT_NOT_FINITE, NULL, "%s", error->message);
    case ZIMAGE_ERROR_CANCELLED:
        return fault_set(f, FAULT_CANCELLED, NULL, "the job was cancelled");
    default:
        return fault_set(f, FAULT_INTERNAL, NULL, "the model's files can't be used; the server's log says why");
    }
}

json_t *fault_json(const fault *f)
{
    const fault_kind *kind = fault_kind_of(f->code);
    return json_pack("{s:s, s:s, s:s?, s:s}", "message", f->message, "type", kind->type, "param",
                     f->param[0] ? f->param : NULL, "code", kind->code);
}
