/*
 * Tar files (POSIX ustar) that grow. libarchive writes tar files, too, but its writer has no place to go on at, no way
 * to say where an entry begins, and buffers of its own between an entry and fsync; a ustar header is 40 lines.
 *
 * The ledger says how many bytes of a file count. Behind them may be what a killed worker wrote last: it is cut, or
 * overwritten. A file belongs to the process that has locked it (flock). A process that is only stopped still has its
 * lock, so nobody cuts what it may go on to write.
 */
#include "queue/pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

#define BLOCK        ((size_t)512)
#define END_BYTES    (2 * BLOCK)         /* zeros that end an archive; the next image overwrites them */
#define SHARD_BYTES  ((uint64_t)1 << 30) /* a file that has so many gets no more images */
#define NAME_BEGIN   "zimage-"
#define NAME_END     ".tar"
#define FILE_MODE    0666
#define WAIT_SECONDS 60.0
#define NUMBER_TEXT  32

static ledger_result fail(const ledger_pack *pack, const char *name, int code, zimage_error *error)
{
    zi_fail_errno(error, ZIMAGE_ERROR_FILE, code, "%s/%s: can't be written", pack->folder, name);
    return LEDGER_FAILED;
}

/* ---- ustar (POSIX.1-2017, pax: ustar Interchange Format) ---- */

typedef struct buffer {
    uint8_t *data;
    size_t size;
} buffer;

/* Offsets of a header's fields, and their sizes. Numbers are octal digits with a zero behind them. */
static void write_header(uint8_t header[BLOCK], const char *name, size_t size)
{
    unsigned sum = 0;
    memset(header, 0, BLOCK);
    snprintf((char *)header, 100, "%s", name);
    snprintf((char *)header + 100, 8, "%07o", 0644);
    snprintf((char *)header + 108, 8, "%07o", 0);
    snprintf((char *)header + 116, 8, "%07o", 0);
    snprintf((char *)header + 124, 12, "%011llo", (unsigned long long)size);
    snprintf((char *)header + 136, 12, "%011llo", (unsigned long long)time(NULL));
    memset(header + 148, ' ', 8); /* the checksum counts as spaces */
    header[156] = '0';
    snprintf((char *)header + 257, 6, "ustar");
    header[263] = header[264] = '0'; /* its version */
    for (size_t i = 0; i < BLOCK; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum);
}

/* Where the content of the entry that is appended next begins. */
static size_t next_content(const buffer *b)
{
    return b->size + BLOCK;
}

static int append(buffer *b, const char *name, const void *data, size_t size)
{
    size_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    uint8_t *larger = realloc(b->data, b->size + BLOCK + padded + END_BYTES);
    if (!larger)
        return 0;
    b->data = larger;
    write_header(b->data + b->size, name, size);
    memcpy(b->data + b->size + BLOCK, data, size);
    memset(b->data + b->size + BLOCK + size, 0, padded - size + END_BYTES);
    b->size += BLOCK + padded;
    return 1;
}

/* ---- files ---- */

static int write_all(int file, const uint8_t *data, size_t size, uint64_t place)
{
    while (size > 0) {
        ssize_t put = pwrite(file, data, size, (off_t)place);
        if (put < 0 && errno != EINTR)
            return errno;
        put = put < 0 ? 0 : put;
        data += put;
        size -= (size_t)put;
        place += (uint64_t)put;
    }
    return 0;
}

/* Cuts what is behind the bytes that count, and ends the archive there. Returns 0 or an errno value. */
static int cut(int file, uint64_t bytes)
{
    static const uint8_t end[END_BYTES];
    struct stat st;
    if (fstat(file, &st) != 0)
        return errno;
    if ((uint64_t)st.st_size == bytes + END_BYTES)
        return 0;
    if (ftruncate(file, (off_t)bytes) != 0)
        return errno;
    int code = write_all(file, end, sizeof end, bytes);
    return code ? code : fsync(file) == 0 ? 0 : errno;
}

/* *bytes of a file of this name, by the ledger; -1: it is none of its files. */
static ledger_result read_bytes(ledger *l, const char *name, int64_t *bytes, zimage_error *error)
{
    PGresult *result;
    const char *values[] = {name};
    ledger_result answer =
        ledger_ask(l, "select bytes from zimage.shard where name = $1 for update", 1, values, &result, error);
    *bytes = answer == LEDGER_OK && PQntuples(result) == 1 ? strtoll(PQgetvalue(result, 0, 0), NULL, 10) : -1;
    PQclear(result);
    return answer;
}

/* A file that a worker before this one has made: cut, and taken if there is room in it. */
static ledger_result adopt(ledger_pack *pack, ledger *l, const char *name, zimage_error *error)
{
    char path[PATH_MAX];
    struct stat st;
    int64_t bytes;
    snprintf(path, sizeof path, "%s/%s", pack->folder, name);
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0)
        return errno == ENOENT || errno == ELOOP ? LEDGER_OK : fail(pack, name, errno, error);
    if (flock(file, LOCK_EX | LOCK_NB) != 0) { /* its worker lives */
        close(file);
        return LEDGER_OK;
    }
    ledger_result answer = read_bytes(l, name, &bytes, error);
    if (answer == LEDGER_OK && bytes >= 0 && (fstat(file, &st) != 0 || st.st_size < bytes)) {
        zi_fail(error, ZIMAGE_ERROR_FILE, "%s: has fewer bytes than the %lld of the ledger: images are lost", path,
                (long long)bytes);
        answer = LEDGER_FAILED;
    }
    int code = answer == LEDGER_OK && bytes >= 0 ? cut(file, (uint64_t)bytes) : 0;
    if (answer == LEDGER_OK && bytes >= 0 && code == 0 && !*pack->name && (uint64_t)bytes < SHARD_BYTES) {
        snprintf(pack->name, sizeof pack->name, "%s", name);
        pack->file = file;
        pack->bytes = (uint64_t)bytes;
        return LEDGER_OK;
    }
    close(file);
    return code ? fail(pack, name, code, error) : answer;
}

static int is_shard(const char *name)
{
    size_t length = strlen(name), begin = strlen(NAME_BEGIN), end = strlen(NAME_END);
    return length > begin + end && length < sizeof((ledger_pack *)0)->name && !strncmp(name, NAME_BEGIN, begin) &&
           !strcmp(name + length - end, NAME_END);
}

/* The row comes first: a file without one is nobody's. */
static ledger_result begin_file(ledger_pack *pack, ledger *l, zimage_error *error)
{
    char path[PATH_MAX];
    uint64_t number;
    if (getentropy(&number, sizeof number) != 0)
        number = (uint64_t)(1e9 * zi_now()) ^ (uint64_t)getpid();
    snprintf(pack->name, sizeof pack->name, NAME_BEGIN "%016llx" NAME_END, (unsigned long long)number);
    snprintf(path, sizeof path, "%s/%s", pack->folder, pack->name);
    const char *values[] = {pack->name};
    ledger_result answer = ledger_do(l, "insert into zimage.shard (name) values ($1)", 1, values, NULL, error);
    if (answer != LEDGER_OK) {
        *pack->name = 0;
        return answer;
    }
    pack->bytes = 0;
    pack->file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (pack->file >= 0 && flock(pack->file, LOCK_EX | LOCK_NB) == 0)
        return LEDGER_OK;
    int code = errno;
    if (pack->file >= 0)
        close(pack->file);
    pack->file = -1;
    answer = fail(pack, pack->name, code, error);
    *pack->name = 0;
    return answer;
}

ledger_result ledger_pack_open(ledger_pack *pack, ledger *l, const char *folder, zimage_error *error)
{
    *pack = (ledger_pack){.folder = folder, .file = -1};
    ledger_result answer = LEDGER_OK;
    DIR *directory = opendir(folder);
    if (!directory)
        return fail(pack, "", errno, error);
    for (struct dirent *entry; answer == LEDGER_OK && (entry = readdir(directory));)
        if (is_shard(entry->d_name))
            answer = adopt(pack, l, entry->d_name, error);
    closedir(directory);
    return answer;
}

static void close_file(ledger_pack *pack)
{
    if (pack->file >= 0)
        close(pack->file); /* and unlocks it */
    pack->file = -1;
    *pack->name = 0;
}

/* ---- waiting images ---- */

static void free_packed(ledger_packed *packed)
{
    packed->picture.release(packed->picture.data);
    json_decref(packed->picture.facts);
    free(packed->request);
    *packed = (ledger_packed){.hold = {.id = 0}};
}

void ledger_pack_forget(ledger_pack *pack)
{
    for (size_t i = 0; i < pack->count; i++)
        free_packed(&pack->waiting[i]);
    pack->count = pack->waiting_bytes = 0;
}

void ledger_pack_close(ledger_pack *pack)
{
    ledger_pack_forget(pack);
    close_file(pack);
}

int ledger_pack_take(ledger_pack *pack, const ledger_job *job, const ledger_picture *picture)
{
    char *request = strdup(job->request);
    if (!request || pack->count == PACK_IMAGES) {
        free(request);
        return 0;
    }
    ledger_packed *packed = &pack->waiting[pack->count++];
    *packed = (ledger_packed){.hold = {.id = job->id}, .request = request, .picture = *picture};
    memcpy(packed->hold.lease, job->lease, sizeof packed->hold.lease);
    memcpy(packed->key, job->key, sizeof packed->key);
    if (pack->count == 1)
        pack->since = zi_now();
    pack->waiting_bytes += picture->size;
    return 1;
}

int ledger_pack_is_due(const ledger_pack *pack)
{
    return pack->count == PACK_IMAGES || pack->waiting_bytes >= PACK_BYTES ||
           (pack->count > 0 && zi_now() - pack->since > WAIT_SECONDS);
}

/* ---- storing ---- */

/* Appends an image and its request, as WebDataset names them, and writes its result. */
static int append_packed(ledger_pack *pack, ledger_packed *packed, buffer *b, char **result)
{
    char name[JOB_KEY + 16], hash[HASH_TEXT];
    json_t *facts = packed->picture.facts;
    if (!hash_sha256(&(hash_piece){packed->picture.data, packed->picture.size}, 1, hash))
        return 0;
    snprintf(name, sizeof name, "%s%s", packed->key, packed->picture.suffix);
    json_object_set_new(facts, "file", json_string(pack->name));
    json_object_set_new(facts, "entry", json_string(name));
    json_object_set_new(facts, "offset", json_integer((json_int_t)pack->bytes + (json_int_t)next_content(b)));
    json_object_set_new(facts, "bytes", json_integer((json_int_t)packed->picture.size));
    json_object_set_new(facts, "sha256", json_string(hash));
    *result = json_dumps(facts, JSON_COMPACT);
    if (!*result || !append(b, name, packed->picture.data, packed->picture.size))
        return 0;
    snprintf(name, sizeof name, "%s.json", packed->key);
    return append(b, name, packed->request, strlen(packed->request));
}

/* Locks the rows of the waiting images that are still this worker's. */
static ledger_result lock_rows(ledger_pack *pack, ledger *l, int *is_mine, zimage_error *error)
{
    ledger_hold held[PACK_IMAGES];
    PGresult *result;
    for (size_t i = 0; i < pack->count; i++)
        held[i] = pack->waiting[i].hold;
    char *ids = ledger_ids(held, pack->count), *leases = ledger_leases(held, pack->count);
    const char *values[] = {ids, leases};
    ledger_result answer = LEDGER_FAILED;
    if (ids && leases)
        answer = ledger_ask(l,
                            "select j.id from zimage.job j, unnest($1::bigint[], $2::uuid[]) as m(id, lease)"
                            " where j.id = m.id and j.lease = m.lease and j.state = 'running' order by j.id"
                            " for update of j",
                            2, values, &result, error);
    else
        zi_fail_memory(error, "jobs of the ledger", 0);
    free(ids);
    free(leases);
    if (answer != LEDGER_OK)
        return answer;
    for (size_t i = 0; i < pack->count; i++) {
        is_mine[i] = 0;
        for (int row = 0; row < PQntuples(result); row++)
            is_mine[i] |= strtoll(PQgetvalue(result, row, 0), NULL, 10) == held[i].id;
    }
    PQclear(result);
    return LEDGER_OK;
}

/* Writes the images that are this worker's behind those that count, and syncs the file. */
static ledger_result write_images(ledger_pack *pack, const int *is_mine, buffer *b, char **results, zimage_error *error)
{
    for (size_t i = 0; i < pack->count; i++)
        if (is_mine[i] && !append_packed(pack, &pack->waiting[i], b, &results[i])) {
            zi_fail_memory(error, "images of a tar file", b->size);
            return LEDGER_FAILED;
        }
    if (b->size == 0)
        return LEDGER_OK;
    int code = write_all(pack->file, b->data, b->size + END_BYTES, pack->bytes);
    if (code == 0 && fsync(pack->file) != 0)
        code = errno;
    return code ? fail(pack, pack->name, code, error) : LEDGER_OK;
}

/* The attempts of images that are stored count. */
static ledger_result count_attempts(ledger_pack *pack, ledger *l, const int *is_mine, zimage_error *error)
{
    ledger_hold held[PACK_IMAGES];
    size_t count = 0;
    for (size_t i = 0; i < pack->count; i++)
        if (is_mine[i] && pack->waiting[i].is_uncounted)
            held[count++] = pack->waiting[i].hold;
    char *ids = ledger_ids(held, count);
    const char *values[] = {ids};
    ledger_result answer = LEDGER_FAILED;
    if (ids)
        answer = ledger_do(l, "update zimage.job set attempts = attempts + 1 where id = any($1::bigint[])", 1, values,
                           NULL, error);
    else
        zi_fail_memory(error, "jobs of the ledger", 0);
    free(ids);
    return answer;
}

static ledger_result finish_rows(ledger_pack *pack, ledger *l, const int *is_mine, char **results, size_t *count,
                                 zimage_error *error)
{
    ledger_hold held[PACK_IMAGES];
    const char *texts[PACK_IMAGES];
    int finished[PACK_IMAGES];
    *count = 0;
    for (size_t i = 0; i < pack->count; i++)
        if (is_mine[i]) {
            held[*count] = pack->waiting[i].hold;
            texts[(*count)++] = results[i];
        }
    if (*count == 0)
        return LEDGER_OK;
    ledger_result answer = count_attempts(pack, l, is_mine, error);
    return answer == LEDGER_OK ? ledger_finish(l, held, texts, *count, finished, error) : answer;
}

static ledger_result commit_rows(ledger_pack *pack, ledger *l, const int *is_mine, uint64_t bytes, char **results,
                                 zimage_error *error)
{
    char size[NUMBER_TEXT], images[NUMBER_TEXT];
    size_t count;
    ledger_result answer = finish_rows(pack, l, is_mine, results, &count, error);
    snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
    snprintf(images, sizeof images, "%zu", count);
    const char *values[] = {pack->name, size, images};
    if (answer == LEDGER_OK && count)
        answer = ledger_do(l,
                           "update zimage.shard set bytes = $2::bigint, images = images + $3::bigint,"
                           " changed_at = now() where name = $1",
                           3, values, NULL, error);
    return answer == LEDGER_OK ? ledger_do(l, "commit", 0, NULL, NULL, error) : answer;
}

/* In a transaction. The rows are locked before the first byte is written, so what is in the file is in the ledger. */
static ledger_result store(ledger_pack *pack, ledger *l, int *is_mine, zimage_error *error)
{
    buffer b = {0};
    char *results[PACK_IMAGES] = {0};
    int64_t bytes;
    ledger_result answer = read_bytes(l, pack->name, &bytes, error);
    if (answer == LEDGER_OK && bytes < 0) {
        zi_fail(error, ZIMAGE_ERROR_FILE, "%s/%s: the ledger does not know this file any more", pack->folder,
                pack->name);
        answer = LEDGER_FAILED;
    }
    int is_stored = answer == LEDGER_OK && (uint64_t)bytes != pack->bytes; /* a commit whose answer was lost */
    if (answer == LEDGER_OK && !is_stored)
        answer = lock_rows(pack, l, is_mine, error);
    if (answer == LEDGER_OK && !is_stored)
        answer = write_images(pack, is_mine, &b, results, error);
    if (answer == LEDGER_OK)
        answer = is_stored ? ledger_do(l, "rollback", 0, NULL, NULL, error)
                           : commit_rows(pack, l, is_mine, pack->bytes + b.size, results, error);
    if (answer == LEDGER_OK)
        pack->bytes = is_stored ? (uint64_t)bytes : pack->bytes + b.size;
    for (size_t i = 0; i < pack->count; i++)
        free(results[i]);
    free(b.data);
    return answer;
}

ledger_result ledger_pack_store(ledger_pack *pack, ledger *l, int *is_mine, zimage_error *error)
{
    ledger_result answer = LEDGER_OK;
    if (pack->count == 0)
        return LEDGER_OK;
    if (*pack->name && pack->bytes >= SHARD_BYTES)
        close_file(pack);
    if (!*pack->name)
        answer = begin_file(pack, l, error);
    if (answer == LEDGER_OK)
        answer = ledger_do(l, "begin", 0, NULL, NULL, error);
    if (answer == LEDGER_OK)
        answer = store(pack, l, is_mine, error);
    if (answer == LEDGER_FAILED)
        ledger_do(l, "rollback", 0, NULL, NULL, NULL);
    if (answer == LEDGER_OK)
        ledger_pack_forget(pack);
    return answer;
}
