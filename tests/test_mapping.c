/* Mapped files, and what happens when a part of one is lost. */
#include <fcntl.h>
#include <signal.h>

#include "base/mapping.h"
#include "base/pool.h"
#include "base/system.h"
#include "files.h"

static zimage_status map(const char *path, zi_mapping *mapping, zimage_error *error)
{
    zi_file file;
    zimage_status status = zi_file_open(path, &file, error);
    if (status != ZIMAGE_OK)
        return status;
    status = zi_map_file(&file, mapping, error);
    zi_file_close(&file);
    return status;
}

static void files_are_mapped(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_mapping mapping;
    write_text(temporary("plain"), "hello");
    assert_int_equal(map(temporary("plain"), &mapping, &error), ZIMAGE_OK);
    assert_int_equal(mapping.size, 5);
    assert_memory_equal(mapping.data, "hello", 5);
    zi_unmap(&mapping);
    zi_unmap(&mapping);
    write_text(temporary("plain"), "");
    assert_int_equal(map(temporary("plain"), &mapping, &error), ZIMAGE_OK);
    assert_null(mapping.data);
    assert_int_equal(mapping.size, 0);
    zi_unmap(&mapping);

    assert_error(&error, map(temporary("absent"), &mapping, &error), ZIMAGE_ERROR_FILE, "absent", "No such file", NULL);
    assert_error(&error, map(temporary_folder, &mapping, &error), ZIMAGE_ERROR_FILE, temporary_folder, "a folder",
                 NULL);
    assert_int_equal(mkfifo(temporary("fifo"), 0600), 0);
    assert_error(&error, map(temporary("fifo"), &mapping, &error), ZIMAGE_ERROR_FILE, "fifo", "regular file", NULL);
}

/* Reading does not go through a mapping: a file that became shorter is an error. */
static void files_that_shrink_are_read_as_errors(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    char bytes[8];
    zi_file file;
    write_text(temporary("read"), "01234567");
    assert_int_equal(zi_file_open(temporary("read"), &file, &error), ZIMAGE_OK);
    assert_int_equal(file.size, 8);
    assert_int_equal(zi_file_read(&file, 2, bytes, 6, &error), ZIMAGE_OK);
    assert_memory_equal(bytes, "234567", 6);
    assert_int_equal(truncate(temporary("read"), 5), 0);
    assert_error(&error, zi_file_read(&file, 2, bytes, 6, &error), ZIMAGE_ERROR_FILE, "/read: ", "shorter",
                 "after byte 5");
    zi_file_close(&file);
}

#define PAGES 8

static const char *volatile named; /* what the handler learned */
static volatile sig_atomic_t signals;

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    signals++;
    named = zi_mapping_repair(info->si_addr);
    if (!named)
        _exit(1);
}

static void catch_bus_errors(struct sigaction *before)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    assert_int_equal(sigaction(SIGBUS, &action, before), 0);
    signals = 0;
    named = NULL;
}

/* A mapped file of PAGES pages of ones. */
static size_t map_pages(const char *path, zi_mapping *mapping)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *ones = malloc(PAGES * page);
    memset(ones, 1, PAGES * page);
    write_bytes(path, ones, PAGES * page);
    free(ones);
    assert_int_equal(map(path, mapping, NULL), ZIMAGE_OK);
    return page;
}

static void read_page(void *arg, int64_t task, int worker)
{
    const zi_mapping *mapping = arg;
    const volatile uint8_t *data = mapping->data + mapping->size / PAGES * (size_t)task;
    assert_int_equal(*data, task < PAGES / 2);
}

/* Threads of a pool and the calling thread meet lost pages; a handler makes them zeros. */
static void lost_pages_become_zeros(void **state)
{
    const char *path = temporary("weights");
    zimage_error error = ZIMAGE_ERROR_INIT;
    struct sigaction before;
    zi_mapping mapping, other;
    zi_pool *pool;
    int written;
    size_t page = map_pages(path, &mapping);
    map_pages(temporary("other"), &other);
    assert_int_equal(zi_mapping_check(&mapping, path, &written, &error), ZIMAGE_OK);
    assert_false(written);
    assert_int_equal(truncate(path, (off_t)(PAGES / 2 * page)), 0);
    assert_error(&error, zi_mapping_check(&mapping, path, &written, &error), ZIMAGE_ERROR_FILE, "/weights: ", "shorter",
                 "bytes, expected");
    catch_bus_errors(&before);
    unsigned repairs = zi_mapping_repairs();
    assert_int_equal(zi_pool_new(4, &pool, NULL), ZIMAGE_OK);
    zi_pool_run(pool, read_page, &mapping, PAGES);
    zi_pool_free(pool);
    assert_true(signals > 0 && zi_mapping_repairs() > repairs);
    assert_string_equal(named, path);
    sigaction(SIGBUS, &before, NULL);

    /* Also when the file has its size again. */
    assert_int_equal(truncate(path, (off_t)(PAGES * page)), 0);
    assert_error(&error, zi_mapping_check(&mapping, path, &written, &error), ZIMAGE_ERROR_FILE,
                 "/weights: ", "could not be read", NULL);
    assert_int_equal(zi_mapping_check(&other, "other", &written, &error), ZIMAGE_OK);
    assert_int_equal(other.data[PAGES * page - 1], 1);
    zi_unmap(&mapping);
    zi_unmap(&other);
}

static void addresses_of_others_are_left_alone(void **state)
{
    zi_mapping mapping;
    int local = 7;
    map_pages(temporary("weights"), &mapping);
    const uint8_t *data = mapping.data;
    assert_null(zi_mapping_repair(&local));
    assert_null(zi_mapping_repair(NULL));
    assert_null(zi_mapping_repair(data + mapping.size));
    assert_null(zi_mapping_repair(data - 1));
    assert_int_equal(local, 7);
    assert_int_equal(data[0], 1);
    zi_unmap(&mapping);
    assert_null(zi_mapping_repair(data));
}

static void files_that_are_written_are_noticed(void **state)
{
    const char *path = temporary("weights");
    const struct timespec times[2] = {{0, UTIME_OMIT}, {1000000000, 0}};
    zi_mapping mapping;
    int written;
    map_pages(path, &mapping);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(zi_mapping_check(&mapping, path, &written, NULL), ZIMAGE_OK);
    assert_true(written);
    zi_unmap(&mapping);

    /* Another file of the same name is no change of this one. */
    map_pages(path, &mapping);
    write_text(temporary("next"), "another");
    assert_int_equal(rename(temporary("next"), path), 0);
    assert_int_equal(zi_mapping_check(&mapping, path, &written, NULL), ZIMAGE_OK);
    assert_false(written);
    zi_unmap(&mapping);
}

static void dropped_pages_are_read_again(void **state)
{
    const size_t size = (size_t)32 << 20, tolerance = (size_t)4 << 20;
    const char *path = temporary("dropped");
    zi_mapping mapping;
    unsigned sum = 0;
    char *ones = malloc(size);
    memset(ones, 1, size);
    write_bytes(path, ones, size);
    free(ones);
    assert_int_equal(map(path, &mapping, NULL), ZIMAGE_OK);
    size_t before = zi_resident_bytes();
    for (size_t i = 0; i < size; i += 4096)
        sum += ((const volatile uint8_t *)mapping.data)[i];
    assert_int_equal(sum, size / 4096);
    assert_true(zi_resident_bytes() + tolerance >= before + size);
    zi_drop_pages(&mapping);
    assert_true(zi_resident_bytes() <= before + tolerance);
    assert_int_equal(mapping.data[0] + mapping.data[size - 1], 2);
    zi_unmap(&mapping);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_mapped),
        cmocka_unit_test(files_that_shrink_are_read_as_errors),
        cmocka_unit_test(lost_pages_become_zeros),
        cmocka_unit_test(addresses_of_others_are_left_alone),
        cmocka_unit_test(files_that_are_written_are_noticed),
        cmocka_unit_test(dropped_pages_are_read_again),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
