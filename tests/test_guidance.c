/*
 * The two forward passes of a step with guidance, as a batch and one after the other: the same bytes on every backend
 * of the CPU; and which of the two a plan chooses.
 */
#include "base/cgroup.h"
#include "guidance.h"
#include "klein.h"

static const struct {
    const char *name;
    int reference;
    zimage_compute compute;
    const char *mask;
} backends[] = {
    {"reference", 1, ZIMAGE_COMPUTE_F32, NULL},
    {"generic", 0, ZIMAGE_COMPUTE_F32, "generic"},
    {"f32", 0, ZIMAGE_COMPUTE_F32, NULL},
    {"bf16", 0, ZIMAGE_COMPUTE_BF16, NULL},
    {"int8", 0, ZIMAGE_COMPUTE_INT8, NULL},
    {"generic bf16", 0, ZIMAGE_COMPUTE_BF16, "generic"},
    {"generic int8", 0, ZIMAGE_COMPUTE_INT8, "generic"},
};

static zimage_session *open_on(const char *folder, int backend)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_session_params params = {.struct_size = sizeof params,
                                          .compute = backends[backend].compute,
                                          .reference = backends[backend].reference,
                                          .cpu_mask = backends[backend].mask,
                                          .threads = 1};
    zimage_session *session = NULL;
    if (session_on(folder, NULL, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static void compare_forms(zimage_session *session, int backend, const guided_step *step)
{
    zi_memory_plan memory;
    zi_job serial = guided_job(session, step, 0), batch = guided_job(session, step, 1);
    guided_run(session, &serial, &memory);
    guided_run(session, &batch, &memory);
    guided_compare(backends[backend].name, &serial, &batch, guided_count(&serial), step->name);
    guided_free(&serial);
    guided_free(&batch);
}

static void a_batch_has_the_same_bytes(void **state)
{
    const char *base = klein_base();
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        zimage_session *zimage = open_on(ZIMAGE_TEST_DATA "/tiny", (int)i), *klein = open_on(base, (int)i);
        for (size_t k = 0; k < sizeof guided_zimage / sizeof *guided_zimage; k++)
            compare_forms(zimage, (int)i, &guided_zimage[k]);
        for (size_t k = 0; k < sizeof guided_klein / sizeof *guided_klein; k++)
            compare_forms(klein, (int)i, &guided_klein[k]);
        zimage_session_close(zimage);
        zimage_session_close(klein);
    }
}

static zi_job_plan plan_within(const zimage_session *session, const zi_job *job, uint64_t memory)
{
    const zi_plan_limits limits = {.memory = memory, .free = ZI_NO_LIMIT, .releases = 1};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_job_plan plan;
    if (zi_plan_job(session, job, &limits, &plan, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return plan;
}

/* Passes run one after the other where a batch would exceed the limit, and only there. */
static void a_limit_decides(void **state)
{
    static const guided_step step = {"large", 40, 40, {40, 7}, 0};
    zimage_session *session = open_on(ZIMAGE_TEST_DATA "/tiny", 2);
    zi_job job = guided_job(session, &step, 0);
    zi_job_plan batch = plan_within(session, &job, 0);
    uint64_t enough = batch.most + ZI_MIB; /* a limit leaves room for what a plan may be wrong by */
    assert_true(batch.batched);
    assert_true(plan_within(session, &job, enough).batched);
    zi_job_plan serial = plan_within(session, &job, enough - 1);
    assert_false(serial.batched);
    assert_true(serial.most < batch.most);
    assert_int_equal(serial.least, batch.least);
    assert_true(serial.counts[ZIMAGE_STAGE_DENOISE].unpacked > 1.9 * batch.counts[ZIMAGE_STAGE_DENOISE].unpacked);
    job.prompts = 1;
    assert_false(plan_within(session, &job, 0).batched);
    job.prompts = 2;
    guided_free(&job);
    zimage_session_close(session);
}

/* Where few rows add up in another order, a batch with more of them would change the bytes. */
static void few_rows_are_no_batch(void **state)
{
    static const guided_step steps[] = {{"four tokens of an image", 2, 2, {20, 17}, 0},
                                        {"four tokens of text", 4, 4, {20, 4}, 0},
                                        {"one token of text", 4, 4, {1, 1}, 0},
                                        {"five of each", 5, 1, {5, 5}, 0}};
    zimage_session *session = open_on(klein_base(), 2);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        zi_job job = guided_job(session, &steps[i], 0);
        assert_int_equal(plan_within(session, &job, 0).batched, i == 3);
        guided_free(&job);
    }
    zimage_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_has_the_same_bytes),
        cmocka_unit_test(a_limit_decides),
        cmocka_unit_test(few_rows_are_no_batch),
    };
    return cmocka_run_group_tests(tests, klein_begin, klein_end);
}
