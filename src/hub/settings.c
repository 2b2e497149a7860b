#include "hub/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "shared/own_cache.h"

#define HUGGING_FACE    "https://huggingface.co"
#define MODELSCOPE      "https://modelscope.cn"
#define ANSWER_SECONDS  10 /* the defaults of huggingface_hub, */
#define SILENCE_SECONDS 10 /* HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT */
#define SECONDS_MAX     86400

/* A variable's value; NULL: it is not set, or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* Python's client takes these words for true. */
static int is_true(const char *name)
{
    static const char *const words[] = {"1", "ON", "YES", "TRUE"};
    const char *value = variable(name);
    for (size_t i = 0; value && i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(value, words[i]))
            return 1;
    return 0;
}

/* BASE/NAME; a "~" at the beginning of BASE is the home folder. 0: it does not fit, or there is no home. */
static int join(const char *base, const char *name, char path[PATH_MAX])
{
    const char *home = variable("HOME");
    int is_home = base[0] == '~' && (base[1] == '/' || !base[1]);
    if (is_home && !home)
        return 0;
    int length = snprintf(path, PATH_MAX, "%s%s%s%s", is_home ? home : "", base + is_home, *name ? "/" : "", name);
    return length > 0 && length < PATH_MAX;
}

/* $HF_HOME, $XDG_CACHE_HOME/huggingface or ~/.cache/huggingface. */
static int hugging_face_home(char path[PATH_MAX])
{
    const char *home = variable("HF_HOME"), *cache = variable("XDG_CACHE_HOME");
    if (home)
        return join(home, "", path);
    return cache ? join(cache, "huggingface", path) : join("~/.cache", "huggingface", path);
}

/* $ZIMAGE_HOME/modelscope; ZIMAGE_HOME is by default the folder of the program's other caches. */
static int modelscope_folder(char path[PATH_MAX])
{
    const char *home = variable("ZIMAGE_HOME");
    char own[PATH_MAX];
    if (home)
        return join(home, "modelscope", path);
    return own_cache_folder(own) && join(own, "modelscope", path);
}

int hub_cache_folder(hub_protocol protocol, char folder[PATH_MAX])
{
    const char *named = variable("HF_HUB_CACHE");
    char home[PATH_MAX];
    named = named ? named : variable("HUGGINGFACE_HUB_CACHE");
    if (protocol == HUB_MODELSCOPE)
        return modelscope_folder(folder);
    return named ? join(named, "", folder) : hugging_face_home(home) && join(home, "hub", folder);
}

const char *hub_default_revision(hub_protocol protocol)
{
    return protocol == HUB_MODELSCOPE ? "master" : "main";
}

static hub_result read_seconds(const char *name, double fallback, double *seconds, zimage_error *error)
{
    const char *text = variable(name);
    char *end = NULL;
    *seconds = text ? strtod(text, &end) : fallback;
    if (text && (*end || !(*seconds > 0 && *seconds <= SECONDS_MAX)))
        return hub_fail(error, HUB_USAGE, "%s: %s, expected a number of seconds from above 0 to %d", name, text,
                        SECONDS_MAX);
    return HUB_OK;
}

/* A header may hold no control characters: a token with a newline would be a header of its own. */
static hub_result take_token(const char *name, const char *text, char token[HUB_TOKEN_MAX], zimage_error *error)
{
    size_t begin = strspn(text, " \t\r\n"), length = strcspn(text + begin, " \t\r\n");
    const char *behind = text + begin + length;
    int is_printable = 1;
    for (size_t i = 0; i < length; i++)
        is_printable &= text[begin + i] > ' ' && text[begin + i] < 0x7f;
    if (length >= HUB_TOKEN_MAX || !is_printable || behind[strspn(behind, " \t\r\n")])
        return hub_fail(error, HUB_USAGE, "%s: expected one token of at most %d letters and digits", name,
                        HUB_TOKEN_MAX - 1);
    memcpy(token, text + begin, length);
    token[length] = 0;
    return HUB_OK;
}

/* HF_TOKEN, else the file HF_TOKEN_PATH, else $HF_HOME/token, which `hf auth login` writes. */
static hub_result read_token(hub_settings *settings, zimage_error *error)
{
    const char *token = variable("HF_TOKEN"), *named = variable("HF_TOKEN_PATH");
    char home[PATH_MAX], path[PATH_MAX], *text = NULL;
    size_t length = 0;
    if (settings->protocol == HUB_MODELSCOPE) {
        token = variable("MODELSCOPE_API_TOKEN");
        return token ? take_token("MODELSCOPE_API_TOKEN", token, settings->token, error) : HUB_OK;
    }
    if (token)
        return take_token("HF_TOKEN", token, settings->token, error);
    if (is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
        return HUB_OK;
    if (!(named ? join(named, "", path) : hugging_face_home(home) && join(home, "token", path)))
        return HUB_OK;
    if (!zi_file_exists(path))
        return HUB_OK;
    if (zi_read_file(path, HUB_TOKEN_MAX, &text, &length, error) != ZIMAGE_OK)
        return HUB_FAILED;
    hub_result result = take_token(path, text, settings->token, error);
    free(text);
    return result;
}

static hub_result take_endpoint(const char *name, const char *address, char endpoint[HUB_URL_MAX], zimage_error *error)
{
    size_t length = strlen(address);
    while (length > 0 && address[length - 1] == '/')
        length--;
    if ((strncmp(address, "https://", 8) != 0 && strncmp(address, "http://", 7) != 0) || length >= HUB_URL_MAX / 2)
        return hub_fail(error, HUB_USAGE, "%s: \"%s\", expected an address such as https://hf-mirror.com", name,
                        address);
    snprintf(endpoint, HUB_URL_MAX, "%.*s", (int)length, address);
    return HUB_OK;
}

static hub_result read_modelscope(hub_settings *settings, zimage_error *error)
{
    const char *endpoint = variable("MODELSCOPE_ENDPOINT"), *domain = variable("MODELSCOPE_DOMAIN");
    char address[HUB_URL_MAX / 2];
    settings->protocol = HUB_MODELSCOPE;
    if (endpoint)
        return take_endpoint("MODELSCOPE_ENDPOINT", endpoint, settings->endpoint, error);
    snprintf(address, sizeof address, "%s%s", domain ? "https://" : "", domain ? domain : MODELSCOPE);
    return take_endpoint("MODELSCOPE_DOMAIN", address, settings->endpoint, error);
}

static hub_result read_source(const char *source, hub_settings *settings, zimage_error *error)
{
    const char *endpoint = variable("HF_ENDPOINT");
    if (source && !strcmp(source, "modelscope"))
        return read_modelscope(settings, error);
    if (!source || !strcmp(source, "hf"))
        return take_endpoint("HF_ENDPOINT", endpoint ? endpoint : HUGGING_FACE, settings->endpoint, error);
    if (!strstr(source, "://"))
        return hub_fail(error, HUB_USAGE,
                        "source: \"%s\", expected hf, modelscope or an address that begins with "
                        "https://",
                        source);
    return take_endpoint("source", source, settings->endpoint, error);
}

hub_result hub_settings_read(const char *source, hub_settings *settings, zimage_error *error)
{
    *settings = (hub_settings){.offline = is_true("HF_HUB_OFFLINE")};
    settings->ca_file = variable("CURL_CA_BUNDLE");
    settings->ca_file = settings->ca_file ? settings->ca_file : variable("SSL_CERT_FILE");
    HUB_TRY(read_source(source, settings, error));
    HUB_TRY(read_token(settings, error));
    HUB_TRY(read_seconds("HF_HUB_ETAG_TIMEOUT", ANSWER_SECONDS, &settings->answer_seconds, error));
    return read_seconds("HF_HUB_DOWNLOAD_TIMEOUT", SILENCE_SECONDS, &settings->silence_seconds, error);
}
