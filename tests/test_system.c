/* What the operating system reports: CPU quotas, memory, the CPU's model. */
#include "base/cpu_count.h"
#include "base/free_memory.h"
#include "base/system.h"
#include "files.h"

static void cpu_quotas_are_read(void **state)
{
    char root[PATH_MAX];
    snprintf(root, sizeof root, "%s", temporary("cgroup"));
    const char *folders[] = {"cgroup", "cgroup/a", "cgroup/a/b", "cgroup/cpu", "cgroup/cpu/old"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(mkdir(temporary(folders[i]), 0777), 0);
    write_text(temporary("cgroup/a/cpu.max"), "250000 100000\n");
    write_text(temporary("cgroup/a/b/cpu.max"), "max 100000\n");
    write_text(temporary("cgroup/cpu/cpu.cfs_quota_us"), "-1\n");
    write_text(temporary("cgroup/cpu/cpu.cfs_period_us"), "100000\n");
    write_text(temporary("cgroup/cpu/old/cpu.cfs_quota_us"), "50000\n");
    write_text(temporary("cgroup/cpu/old/cpu.cfs_period_us"), "100000\n");
    const struct {
        const char *membership;
        int cpus;
    } cases[] = {
        {"0::/a/b\n", 3}, /* the quota of the parent, 2.5, rounded up */
        {"0::/\n", 0},
        {"0::/elsewhere/deep\n", 0},
        {"5:cpuset:/old\n4:cpu,cpuacct:/old\n", 1},
        {"4:cpuacct,cpu:/old/gone\n", 1},
        {"4:cpuset:/old\n", 0},
        {"4:cpu:/\n0::/a\n", 3},
        {"nonsense\n\n:\n", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(temporary("membership"), cases[i].membership);
        assert_int_equal(zi_cgroup_cpus(temporary("membership"), root), cases[i].cpus);
    }
    assert_int_equal(zi_cgroup_cpus(temporary("absent"), root), 0);
    assert_true(zi_cpu_count() >= 1);
}

static void free_memory_is_read(void **state)
{
    char root[PATH_MAX];
    snprintf(root, sizeof root, "%s", temporary("groups"));
    const char *folders[] = {"groups", "groups/a", "groups/a/b", "groups/memory", "groups/memory/old"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(mkdir(temporary(folders[i]), 0777), 0);
    write_text(temporary("meminfo"), "MemTotal:  9000 kB\nMemFree: 10 kB\nMemAvailable:   1000 kB\nCached: 7 kB\n");
    write_text(temporary("groups/a/memory.max"), "500000\n");
    write_text(temporary("groups/a/memory.current"), "450000\n");
    write_text(temporary("groups/a/memory.stat"), "anon 400000\nfile 50000\ninactive_file 20000\nactive_file 10000\n");
    write_text(temporary("groups/a/b/memory.max"), "max\n");
    write_text(temporary("groups/a/b/memory.current"), "450000\n");
    write_text(temporary("groups/memory/memory.limit_in_bytes"), "9223372036854771712\n");
    write_text(temporary("groups/memory/memory.usage_in_bytes"), "9000000000\n");
    write_text(temporary("groups/memory/old/memory.limit_in_bytes"), "300000\n");
    write_text(temporary("groups/memory/old/memory.usage_in_bytes"), "400000\n");
    const struct {
        const char *membership;
        uint64_t bytes;
    } cases[] = {
        {"0::/a/b\n", 80000}, /* of the parent: what is left, and the copies of files */
        {"0::/\n", 1024000},       {"4:memory:/old\n", 0}, {"4:memory:/\n", 1024000}, {"4:memory:/\n0::/a\n", 80000},
        {"3:cpu:/old\n", 1024000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(temporary("groups/member"), cases[i].membership);
        assert_int_equal(zi_free_memory_of(temporary("meminfo"), temporary("groups/member"), root), cases[i].bytes);
    }
    assert_true(zi_free_memory_of(temporary("absent"), temporary("absent"), root) == ZI_NO_LIMIT);
    assert_true(zi_free_memory() > (1 << 20) && zi_free_memory() < zi_physical_bytes());
}

static void resident_bytes_follow_the_memory_in_use(void **state)
{
    const size_t size = (size_t)64 << 20, tolerance = (size_t)8 << 20;
    size_t before = zi_resident_bytes();
    char *block = malloc(size);
    assert_non_null(block);
    memset(block, 1, size);
    size_t during = zi_resident_bytes();
    assert_true(before > 0);
    assert_true(during + tolerance >= before + size);
    assert_int_equal(((volatile char *)block)[size - 1], 1); /* the compiler must keep the block */
    free(block);
    assert_true(zi_peak_resident_bytes() + tolerance >= during);
    assert_true(zi_physical_bytes() > during);
}

static void cpu_has_a_model(void **state)
{
    char model[200] = "", cut[4] = "";
    zi_cpu_model(model, sizeof model);
    assert_true(strlen(model) > 0);
    assert_null(strchr(model, '\n'));
    zi_cpu_model(cut, sizeof cut);
    assert_memory_equal(cut, model, strlen(cut));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_quotas_are_read),
        cmocka_unit_test(free_memory_is_read),
        cmocka_unit_test(resident_bytes_follow_the_memory_in_use),
        cmocka_unit_test(cpu_has_a_model),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
