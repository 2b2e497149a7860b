/* Reading and writing of one safetensors file: what is accepted, and the sentence for everything that is refused. */
#include "files.h"
#include "weights/store.h"
#include "weights/write.h"

#define PATH temporary("model.safetensors")

static zi_store *open_good(void)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = NULL;
    if (zi_store_open_file(PATH, &store, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return store;
}

/* Expects that the file at PATH is refused as malformed, with a message that holds PATH and the two parts. */
static void assert_refused(const char *part1, const char *part2)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = (zi_store *)&error;
    zimage_status status = zi_store_open_file(PATH, &store, &error);
    assert_error(&error, status, ZIMAGE_ERROR_FORMAT, "/model.safetensors: ", part1, part2);
    assert_null(store);
}

static void good_file_is_read(void **state)
{
    /* The header length is odd, so no tensor is aligned; and the offsets have another order than the names. */
    write_safetensors(PATH,
                      "{\"__metadata__\":{\"format\":\"pt\",\"\":\"\"},"
                      "\"w.weight\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]},"
                      "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                      "\"count\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[4,12]},"
                      "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,9007199254740992],\"data_offsets\":[12,12]},"
                      "\"odd\":{\"dtype\":\"F4\",\"shape\":[7],\"data_offsets\":[12,16],\"extra\":[null]},"
                      "\"five\":{\"dtype\":\"F16\",\"shape\":[1,2,1,2,3],\"data_offsets\":[28,52]}} ",
                      52);
    zi_store *store = open_good();
    const char *names[] = {"count", "empty", "five", "odd", "scalar", "w.weight"};
    const char *dtypes[] = {"I64", "F16", "F16", "F4", "F32", "BF16"};
    assert_int_equal(zi_store_count(store), 6);
    assert_int_equal(zi_store_bytes(store), 52);
    assert_string_equal(zi_store_path(store), PATH);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(zi_store_at(store, i)->name, names[i]);
        assert_string_equal(zi_store_dtype_of(store, i), dtypes[i]);
        assert_string_equal(zi_store_file_of(store, i), PATH);
        assert_ptr_equal(zi_store_find(store, names[i]), zi_store_at(store, i));
    }
    assert_null(zi_store_find(store, "absent"));
    assert_null(zi_store_find(store, ""));

    const zi_weight *weight = zi_store_find(store, "w.weight");
    assert_int_equal(weight->dtype, ZI_BF16);
    assert_int_equal(weight->dims, 2);
    assert_int_equal(weight->shape[0], 2);
    assert_int_equal(weight->shape[1], 3);
    assert_int_equal(weight->bytes, 12);
    assert_int_equal(weight->data[0], 16);
    float value;
    zi_weight_unpack(weight, 5, 1, &value);
    assert_true(value == zi_bf16_to_f32(27 << 8 | 26));

    assert_int_equal(zi_store_find(store, "scalar")->dims, 0);
    assert_int_equal(zi_weight_count(zi_store_find(store, "scalar")), 1);
    zi_weight_unpack(zi_store_find(store, "scalar"), 0, 1, &value);
    assert_int_equal(zi_weight_count(zi_store_find(store, "empty")), 0);
    assert_int_equal(zi_store_find(store, "count")->dtype, ZI_DTYPE_OTHER);
    assert_int_equal(zi_store_find(store, "odd")->dtype, ZI_DTYPE_OTHER);
    assert_int_equal(zi_store_find(store, "five")->dtype, ZI_DTYPE_OTHER);
    assert_int_equal(zi_store_find(store, "five")->dims, 4);
    assert_int_equal(zi_weight_count(zi_store_find(store, "five")), 12);
    zi_store_free(store);
}

static void file_without_tensors_is_read(void **state)
{
    write_safetensors(PATH, "{}", 0);
    zi_store *store = open_good();
    assert_int_equal(zi_store_count(store), 0);
    assert_null(zi_store_find(store, "x"));
    zi_store_free(store);
    zi_store_free(NULL);
}

static void beginning_is_checked(void **state)
{
    write_bytes(PATH, "", 0);
    assert_refused("0 bytes", NULL);
    write_bytes(PATH, "\2\0\0\0\0\0\0", 7);
    assert_refused("7 bytes", NULL);
    write_bytes(PATH, "\0\0\0\0\0\0\0\0{}", 10);
    assert_refused("header length is 0", NULL);
    write_bytes(PATH, "\3\0\0\0\0\0\0\0{}", 10);
    assert_refused("header length is 3", "only 2 bytes");
    write_bytes(PATH, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    assert_refused("header length is 18446744073709551615", "only 2 bytes");
    write_text(PATH, "This is not a safetensors file at all.");
    assert_refused("truncated or not a safetensors file", NULL);
    write_bytes(PATH, "\x01\0\0\x02\0\0\0\0{}", 10); /* 32 MiB and a byte */
    assert_int_equal(truncate(PATH, 33554500), 0);
    assert_refused("header length is 33554433", "at most 33554432");
}

/* BEFORE, then `count` times a comma and ENTRY, then AFTER. */
static void write_repeated(const char *before, const char *entry, size_t count, const char *after)
{
    size_t each = strlen(entry), size = strlen(before) + count * (each + 1) + strlen(after);
    char *header = malloc(size + 1), *end = header + sprintf(header, "%s", before);
    for (size_t i = 0; i < count; i++) {
        *end++ = ',';
        memcpy(end, entry, each);
        end += each;
    }
    strcpy(end, after);
    write_safetensors(PATH, header, 0);
    free(header);
}

/* Small files whose trees would take gigabytes are refused before a tree is built. */
static void headers_are_limited(void **state)
{
    write_repeated("{\"a\":[1", "[]", 10000000, "]}");
    assert_refused("the header holds 20000002 values", "expected at most 700000");
    write_repeated("{\"a\":1", "\"t\":{\"shape\":[]}", 1000000, "}");
    assert_refused("the header holds 1000001 entries", "expected at most 65537");
    write_repeated("{\"a\":[[[[[[[[1", "2", 3, "]]]]]]]]}");
    assert_refused("depth of 9", "expected at most 8");
}

static void header_must_be_json(void **state)
{
    const struct {
        const char *header, *says;
    } cases[] = {
        {" {}", "does not begin with '{'"},
        {"[]", "does not begin with '{'"},
        {"{", "not valid JSON: line 1, column 1"},
        {"{} x", "not valid JSON"},
        {"{\"a\xff\":{}}", "unable to decode byte 0xff"},
        {"{\"a\xed\xa0\x80\":{}}", "unable to decode byte 0xed"},
        {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", "not valid JSON"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551617],\"data_offsets\":[0,1]}}", "too big integer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_safetensors(PATH, cases[i].header, 1);
        assert_refused(cases[i].says, NULL);
    }
    char deep[200001] = "{\"a\":";
    memset(deep + 5, '[', sizeof deep - 6);
    write_safetensors(PATH, deep, 0);
    assert_refused("depth", NULL);
}

#define ENTRY(name, shape, begin, end)                                                                                 \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void tensors_are_checked(void **state)
{
    const struct {
        const char *header;
        size_t data_size;
        const char *tensor, *says;
    } cases[] = {
        /* duplicate keys */
        {"{" ENTRY("a", "[1]", 0, 4) "," ENTRY("a", "[1]", 4, 8) "}", 8, "duplicate", "\"a\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "duplicate", "\"shape\""},
        /* the entry's fields */
        {"{\"a\":3}", 0, "tensor \"a\"", ": 3, expected an object"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor \"a\"", "\"dtype\": missing"},
        {"{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor \"a\"", "\"dtype\": 5"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "tensor \"a\"", "\"shape\": missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,4]}}", 4, "tensor \"a\"", "\"shape\": an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "tensor \"a\"", "\"data_offsets\": missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "tensor \"a\"", "an array of 2 integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "tensor \"a\"", "of 2 integers"},
        /* numbers */
        {"{" ENTRY("a", "[-1]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "holds -1"},
        {"{" ENTRY("a", "[1.0]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "holds 1.0"},
        {"{" ENTRY("a", "[\"1\"]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "holds \"1\""},
        {"{" ENTRY("a", "[9007199254740993]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "holds 9007199254740993"},
        {"{" ENTRY("a", "[1]", -4, 0) "}", 4, "tensor \"a\": \"data_offsets\"", "holds -4"},
        {"{" ENTRY("a", "[1]", 0, 9007199254740993) "}", 4, "tensor \"a\": \"data_offsets\"", "9007199254740993"},
        {"{" ENTRY("a", "[1]", 0, 9223372036854775807) "}", 4, "\"data_offsets\"", "9223372036854775807"},
        {"{" ENTRY("a", "[1]", null, 4) "}", 4, "tensor \"a\": \"data_offsets\"", "holds null"},
        /* products */
        {"{" ENTRY("a", "[4294967296,4294967296]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "beyond 64 bits"},
        {"{" ENTRY("a", "[0,4294967296,4294967296]", 0, 0) "}", 0, "tensor \"a\": \"shape\"", "beyond 64 bits"},
        {"{" ENTRY("a", "[4611686018427387904]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "4611686018427387904"},
        {"{" ENTRY("a", "[4503599627370496,1024]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "\"data_offsets\" span 4"},
        {"{" ENTRY("a", "[2]", 0, 4) "}", 4, "tensor \"a\": \"shape\"", "make 8 bytes, but \"data_offsets\" span 4"},
        {"{" ENTRY("a", "[1,1]", 0, 8) "}", 8, "tensor \"a\": \"shape\"", "make 4 bytes, but \"data_offsets\" span 8"},
        /* places */
        {"{" ENTRY("a", "[1]", 4, 0) "}", 4, "tensor \"a\": \"data_offsets\"", "begin at 4, after their end 0"},
        {"{" ENTRY("a", "[2]", 0, 8) "}", 4, "tensor \"a\": \"data_offsets\"", "end at 8, but the file has only 4"},
        {"{" ENTRY("a", "[2]", 0, 8) "," ENTRY("b", "[2]", 4, 12) "}", 12, "tensor \"b\"", "overlap tensor \"a\""},
        {"{" ENTRY("a", "[1]", 0, 4) "," ENTRY("b", "[1]", 0, 4) "}", 4, "\"data_offsets\"", "overlap tensor"},
        {"{" ENTRY("a", "[2]", 0, 8) "," ENTRY("b", "[0]", 4, 4) "}", 8, "tensor \"b\"", "overlap tensor \"a\""},
        {"{" ENTRY("a", "[1]", 4, 8) "}", 8, "tensor \"a\"", "bytes 0 to 4 belong to no tensor"},
        {"{" ENTRY("a", "[1]", 0, 4) "," ENTRY("b", "[1]", 8, 12) "}", 12, "tensor \"b\"", "bytes 4 to 8"},
        {"{" ENTRY("a", "[1]", 0, 4) "}", 5, "end at 4, but the file has 5 bytes", "\"data_offsets\""},
        {"{}", 1, "end at 0, but the file has 1 bytes", NULL},
        /* metadata */
        {"{\"__metadata__\":[]}", 0, "\"__metadata__\"", "\": an array, expected an object of strings"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "\"__metadata__\": \"k\"", ": 1, expected a string"},
        /* names that must not reach a terminal as they are */
        {"{\"a\\n\\u001b[2J\":3}", 0, "tensor \"a\\x0a\\x1b[2J\"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_safetensors(PATH, cases[i].header, cases[i].data_size);
        assert_refused(cases[i].tensor, cases[i].says);
    }
}

static void long_names_do_not_hide_the_reason(void **state)
{
    char header[10100] = "{\"";
    memset(header + 2, 'n', 10000);
    strcpy(header + 10002, "\":3}");
    write_safetensors(PATH, header, 0);
    assert_refused("nnnn\": 3, expected an object", NULL);
}

static size_t read_good(uint8_t *bytes, size_t capacity)
{
    write_safetensors(
        PATH,
        "{\"__metadata__\":{\"k\":\"v\"}," ENTRY("a", "[2,1]", 0, 8) "," ENTRY(
            "b\\u00e9", "[]", 8, 12) ",\"c\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[12,14]}}",
        14);
    FILE *file = fopen(PATH, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, capacity, file);
    fclose(file);
    return size;
}

static void every_truncation_is_refused(void **state)
{
    uint8_t bytes[1000];
    size_t size = read_good(bytes, sizeof bytes);
    zi_store_free(open_good());
    for (size_t length = 0; length < size; length++) {
        write_bytes(PATH, bytes, length);
        assert_refused("", NULL);
    }
}

/* With any byte changed to some others: the file is refused, or it is read and all data lies in the file. */
static void every_changed_byte_is_survived(void **state)
{
    uint8_t bytes[1000];
    size_t size = read_good(bytes, sizeof bytes);
    const char values[] = "0129-.,:\"\\[]{}eau \xff\x80\x7f";
    for (size_t at = 0; at < size - 14; at++) {
        for (size_t v = 0; v < sizeof values; v++) { /* the last is 0 */
            uint8_t before = bytes[at];
            zi_store *store = NULL;
            zimage_error error = ZIMAGE_ERROR_INIT;
            bytes[at] = (uint8_t)values[v];
            write_bytes(PATH, bytes, size);
            bytes[at] = before;
            zimage_status status = zi_store_open_file(PATH, &store, &error);
            if (status == ZIMAGE_OK) {
                assert_int_equal(zi_store_bytes(store), 14);
                zi_store_free(store);
            } else {
                assert_error(&error, status, ZIMAGE_ERROR_FORMAT, "model.safetensors", NULL, NULL);
            }
        }
    }
}

static void files_that_can_not_be_read_are_named(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store;
    assert_error(&error, zi_store_open_file(temporary("absent.safetensors"), &store, &error), ZIMAGE_ERROR_FILE,
                 "absent.safetensors: ", "No such file", NULL);
    assert_null(store);
    assert_error(&error, zi_store_open_file(temporary_folder, &store, &error), ZIMAGE_ERROR_FILE, temporary_folder,
                 "a folder", NULL);
}

static void written_tensor_is_read_back(void **state)
{
    const float data[6] = {0, 1, -2, 3e30f, 4, 5};
    const struct {
        const char *name;
        int dims;
        int64_t shape[4];
        size_t count;
    } cases[] = {
        {"latents", 4, {1, 3, 2, 1}, 6},
        {"scalar", 0, {0}, 1},
        {"empty", 2, {3, 0}, 0},
        {"\"quoted\\\" \xf0\x9f\x8d\x8e", 1, {5}, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        assert_int_equal(zi_safetensors_write(PATH, cases[i].name, data, cases[i].shape, cases[i].dims, &error),
                         ZIMAGE_OK);
        zi_store *store = open_good();
        const zi_weight *weight = zi_store_find(store, cases[i].name);
        assert_int_equal(zi_store_count(store), 1);
        assert_non_null(weight);
        assert_int_equal(weight->dtype, ZI_F32);
        assert_int_equal(weight->dims, cases[i].dims);
        assert_memory_equal(weight->shape, cases[i].shape, 4 * sizeof(int64_t));
        assert_int_equal(weight->bytes, cases[i].count * sizeof(float));
        assert_int_equal((uintptr_t)weight->data % 8, 0);
        assert_memory_equal(weight->data, data, weight->bytes);
        zi_store_free(store);
    }
}

static void writing_checks_its_arguments(void **state)
{
    const float data[1] = {0};
    const int64_t one[5] = {1, 1, 1, 1, 1}, negative[1] = {-1}, huge[2] = {INT64_MAX / 2, 4};
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(mkdir(temporary("empty"), 0777), 0);
    const char *path = temporary("empty/x.safetensors");
    const zimage_status refused = ZIMAGE_ERROR_ARGUMENT;
    assert_error(&error, zi_safetensors_write(path, "a", data, one, 5, &error), refused, "x.safetensors", NULL, NULL);
    assert_error(&error, zi_safetensors_write(path, "a", data, one, -1, &error), refused, "\"a\"", NULL, NULL);
    assert_error(&error, zi_safetensors_write(path, "a", data, negative, 1, &error), refused, "\"a\"", NULL, NULL);
    assert_error(&error, zi_safetensors_write(path, "a", data, huge, 2, &error), refused, "\"a\"", NULL, NULL);
    assert_error(&error, zi_safetensors_write(path, "a\xff", data, one, 1, &error), refused, "UTF-8", NULL, NULL);
    assert_error(&error, zi_safetensors_write(path, "__metadata__", data, one, 1, &error), refused, "__metadata__",
                 NULL, NULL);
    assert_error(&error, zi_safetensors_write(temporary("no/x"), "a", data, one, 1, &error), ZIMAGE_ERROR_FILE, "no/x",
                 NULL, NULL);
    if (access("/dev/full", W_OK) == 0)
        assert_error(&error, zi_safetensors_write("/dev/full", "a", data, one, 1, &error), ZIMAGE_ERROR_FILE,
                     "/dev/full", "No space left", NULL);
    assert_int_equal(files_in(temporary("empty")), 0);
}

static void public_functions_refuse_null(void **state)
{
    const float data[1] = {2};
    const int64_t shape[1] = {1};
    const zimage_status refused = ZIMAGE_ERROR_ARGUMENT;
    float *read = NULL;
    int64_t sizes[4];
    int32_t dims;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_error(&error, zimage_tensor_write(NULL, "a", data, shape, 1, &error), refused, "NULL", NULL, NULL);
    assert_error(&error, zimage_tensor_write(PATH, NULL, data, shape, 1, &error), refused, "NULL", NULL, NULL);
    assert_error(&error, zimage_tensor_write(PATH, "a", NULL, shape, 1, &error), refused, "NULL", NULL, NULL);
    assert_error(&error, zimage_tensor_write(PATH, "a", data, NULL, 1, &error), refused, "NULL", NULL, NULL);
    assert_int_equal(zimage_tensor_write(PATH, "a", data, shape, 1, NULL), ZIMAGE_OK);
    assert_error(&error, zimage_tensor_read(NULL, "a", &read, sizes, &dims, &error), refused, "NULL", NULL, NULL);
    assert_error(&error, zimage_tensor_read(PATH, NULL, &read, sizes, &dims, &error), refused, "NULL", NULL, NULL);
    assert_error(&error, zimage_tensor_read(PATH, "a", NULL, sizes, &dims, &error), refused, "NULL", NULL, NULL);
    assert_error(&error, zimage_tensor_read(PATH, "a", &read, NULL, &dims, &error), refused, "NULL", NULL, NULL);
    assert_error(&error, zimage_tensor_read(PATH, "a", &read, sizes, NULL, &error), refused, "NULL", NULL, NULL);
    assert_null(read);
    assert_int_equal(zimage_tensor_read(PATH, "a", &read, sizes, &dims, NULL), ZIMAGE_OK);
    assert_int_equal(dims, 1);
    assert_true(read[0] == 2);
    zimage_free(read);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file_is_read),
        cmocka_unit_test(file_without_tensors_is_read),
        cmocka_unit_test(beginning_is_checked),
        cmocka_unit_test(headers_are_limited),
        cmocka_unit_test(header_must_be_json),
        cmocka_unit_test(tensors_are_checked),
        cmocka_unit_test(long_names_do_not_hide_the_reason),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_changed_byte_is_survived),
        cmocka_unit_test(files_that_can_not_be_read_are_named),
        cmocka_unit_test(written_tensor_is_read_back),
        cmocka_unit_test(writing_checks_its_arguments),
        cmocka_unit_test(public_functions_refuse_null),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
