/* The tables of the ledger, and how older ones become today's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/connection.h"

/*
 * Each script leads from one version to the next, and is never changed once it was released. Workers of the version
 * before must be able to end their jobs: so a script adds, and removes nothing that they use.
 *
 * No index holds lease_until or attempts, and pages have room: so a heartbeat and the beginning of an attempt change a
 * row in its page, without touching an index (heap-only tuples). A claim and a finish change the state, and therefore
 * the indexes; vacuum has to follow early, whence the scale factors.
 */
static const char *const scripts[] = {
    "create type zimage.job_state as enum ('queued', 'running', 'done', 'failed', 'cancelled');"
    "create table zimage.job ("
    "  id bigint generated always as identity primary key,"
    "  batch text not null check (octet_length(batch) <= 200),"
    "  key bytea not null check (length(key) = 32)," /* SHA-256 of request, model and format */
    "  caller text collate \"C\" not null default '' check (octet_length(caller) <= 200),"
    "  priority smallint not null default 0,"
    "  request jsonb not null,"
    "  output text,"         /* the file that the request names */
    "  model text not null," /* fingerprint: workers claim only jobs of the model that they hold */
    "  state zimage.job_state not null default 'queued',"
    "  attempts smallint not null default 0,"
    "  max_attempts smallint not null default 5,"
    "  lease uuid," /* whoever has another one may not finish the job */
    "  lease_until timestamptz,"
    "  worker text,"
    "  result jsonb,"
    "  error text,"
    "  not_before timestamptz,"
    "  created_at timestamptz not null default now(),"
    "  started_at timestamptz,"
    "  finished_at timestamptz,"
    "  unique (batch, key)"
    ") with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.05,"
    "        autovacuum_vacuum_cost_delay = 0);"
    "create index job_ready on zimage.job (model, priority desc, caller, id) where state = 'queued';"
    "create index job_running on zimage.job (model, caller, id) where state = 'running';"
    "create index job_failed on zimage.job (id) where state = 'failed';"
    "create unique index job_output on zimage.job (batch, output) where output is not null;",

    /* Tar files of workers that pack: how many bytes of each are in the ledger. What is behind them is a torn end. */
    "create table zimage.shard ("
    "  name text primary key,"
    "  bytes bigint not null default 0,"
    "  images bigint not null default 0,"
    "  changed_at timestamptz not null default now());",
    /* Jobs of servers, and which workers are there. An image that is over wakes the servers: not those of batches,
     * because NOTIFY takes a lock of the whole database server when its transaction ends. */
    "create table zimage.service ("
    "  id text primary key check (octet_length(id) <= 32),"
    "  owner text not null check (octet_length(owner) <= 64)," /* hash of an API key */
    "  repeat text check (octet_length(repeat) <= 64),"        /* hash of the client's own name of the request */
    "  about jsonb not null,"
    "  created_at timestamptz not null default now());"
    "create unique index service_repeat on zimage.service (owner, repeat) where repeat is not null;"
    "create index service_owner on zimage.service (owner, created_at);"
    "create index service_age on zimage.service (created_at);"
    "alter table zimage.job add column service text references zimage.service, add column part smallint;"
    "create index job_service on zimage.job (service, part) where service is not null;"
    "create table zimage.worker ("
    "  name text primary key,"
    "  model text not null,"
    "  expected_until timestamptz not null);" /* its lease; it is prolonged by its heart */
    "create function zimage.tell_service() returns trigger language plpgsql as"
    "  'begin perform pg_notify(''zimage_service'', ''''); return null; end';"
    "create trigger job_service_over after update of state on zimage.job for each row"
    "  when (new.service is not null and new.state in ('done', 'failed', 'cancelled')"
    "    and new.state is distinct from old.state) execute function zimage.tell_service();",

    /* Who watches jobs of servers, and what there is to see of the images under way: a row for the progress of an image
     * (number -1), for its newest preview (-2), and for each partial image that a stream has asked for. Nobody has to
     * remember any of it, so the tables are unlogged: a crash of the database empties them. */
    "create unlogged table zimage.watch ("
    "  service text primary key check (octet_length(service) <= 32),"
    "  until timestamptz not null,"
    "  shown_until timestamptz," /* previews are wanted, too */
    "  partials smallint not null);"
    "create sequence zimage.news_serial;"
    "create unlogged table zimage.news ("
    "  job bigint not null,"
    "  number smallint not null,"
    "  serial bigint not null," /* grows with each change */
    "  lease uuid not null,"
    "  stage text not null check (octet_length(stage) <= 32),"
    "  step integer not null,"
    "  steps integer not null,"
    "  fraction double precision not null,"
    "  jpeg bytea check (octet_length(jpeg) <= 262144),"
    "  told_at timestamptz not null default now(),"
    "  primary key (job, number)"
    ") with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);"
    "alter table zimage.news alter column jpeg set storage external;",

    /* Input images: files that are called by their hash (inputs.c). Jobs name them, images and then the mask. */
    "create table zimage.input ("
    "  hash text primary key check (length(hash) = 64)," /* SHA-256 of the file */
    "  kept_until timestamptz not null);"                /* also without a job that needs it */
    "create index input_kept on zimage.input (kept_until);"
    "alter table zimage.job add column inputs text[];"
    "create index job_inputs on zimage.job using gin (inputs) where inputs is not null and state <> 'done';",
};

#define VERSION ((int)(sizeof scripts / sizeof *scripts))

/* Two programs that initialise at the same time go one after the other. The number only has to be the same in all. */
#define LOCK "select pg_advisory_xact_lock(8246337208320)"

static const char no_schema[] = "the ledger %s: this database has no jobs yet; zimage queue init makes their tables";

/* 0: there are no tables. */
static ledger_result read_version(ledger *l, int *version, zimage_error *error)
{
    PGresult *result;
    *version = 0;
    ledger_result answer = ledger_ask(l, "select to_regclass('zimage.ledger') is not null", 0, NULL, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    int is_there = *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    if (!is_there)
        return LEDGER_OK;
    answer = ledger_ask(l, "select version from zimage.ledger", 0, NULL, &result, error);
    if (answer == LEDGER_OK && PQntuples(result) > 0)
        *version = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    return answer;
}

static ledger_result too_new(const ledger *l, int version, zimage_error *error)
{
    zi_fail(error, ZIMAGE_ERROR_FILE,
            "the ledger %s: its tables have version %d, and this program knows up to %d; use a newer zimage", l->place,
            version, VERSION);
    return LEDGER_FAILED;
}

ledger_result ledger_check_schema(ledger *l, zimage_error *error)
{
    int version;
    ledger_result answer = read_version(l, &version, error);
    if (answer != LEDGER_OK || version == VERSION)
        return answer;
    if (version > VERSION)
        return too_new(l, version, error);
    if (version == 0)
        zi_fail(error, ZIMAGE_ERROR_FILE, no_schema, l->place);
    else
        zi_fail(
            error, ZIMAGE_ERROR_FILE,
            "the ledger %s: its tables have version %d, and this program needs %d; zimage queue init brings them up "
            "to date",
            l->place, version, VERSION);
    return LEDGER_FAILED;
}

/* A text of several statements, without parameters. */
static ledger_result run_script(ledger *l, const char *script, zimage_error *error)
{
    PGresult *result = PQexec(l->connection, script);
    ledger_result answer =
        PQstatus(l->connection) == CONNECTION_OK ? ledger_judge(l, result, error) : ledger_lost(l, error);
    PQclear(result);
    return answer;
}

/* Inside of a transaction that holds the lock. */
static ledger_result migrate(ledger *l, int *before, zimage_error *error)
{
    char update[80];
    ledger_result answer = run_script(l,
                                      "create schema if not exists zimage;"
                                      "create table if not exists zimage.ledger (version integer not null);",
                                      error);
    if (answer == LEDGER_OK)
        answer = read_version(l, before, error);
    if (answer == LEDGER_OK && *before > VERSION)
        return too_new(l, *before, error);
    for (int i = *before; i < VERSION && answer == LEDGER_OK; i++)
        answer = run_script(l, scripts[i], error);
    snprintf(update, sizeof update, "delete from zimage.ledger; insert into zimage.ledger values (%d)", VERSION);
    return answer == LEDGER_OK && *before < VERSION ? run_script(l, update, error) : answer;
}

ledger_result ledger_init(ledger *l, int *before, int *after, zimage_error *error)
{
    *before = 0;
    *after = VERSION;
    ledger_result answer = run_script(l, "begin; " LOCK, error);
    if (answer == LEDGER_OK)
        answer = migrate(l, before, error);
    if (answer == LEDGER_OK)
        return run_script(l, "commit", error);
    run_script(l, "rollback", NULL);
    return answer;
}
