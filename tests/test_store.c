/* Folders of weights (a single file or shards), and binding of a network, by name and shape, to its weights. */
#include "files.h"
#include "weights/store.h"

#define TENSOR(name, begin, end) "\"" name "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[" #begin "," #end "]}"

typedef struct warnings {
    int count;
    char text[2000];
} warnings;

static void keep_warning(zimage_log_level level, const char *message, void *user)
{
    warnings *kept = user;
    kept->count++;
    snprintf(kept->text, sizeof kept->text, "%s", message);
}

static void new_folder(const char *name)
{
    assert_int_equal(mkdir(temporary(name), 0777), 0);
}

static void shards_make_one_store(void **state)
{
    new_folder("sharded");
    write_safetensors(temporary("sharded/m-1.safetensors"), "{" TENSOR("d", 0, 4) "," TENSOR("a", 4, 8) "}", 8);
    write_safetensors(temporary("sharded/m-2.safetensors"), "{" TENSOR("c", 0, 4) "," TENSOR("b", 4, 8) "}", 8);
    write_text(temporary("sharded/m.safetensors.index.json"),
               "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-2.safetensors\","
               "\"d\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    warnings kept = {0};
    zi_log log = {keep_warning, &kept};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store;
    assert_int_equal(zi_store_open(temporary("sharded"), "m", &store, &log, &error), ZIMAGE_OK);
    assert_int_equal(kept.count, 0);
    assert_int_equal(zi_store_count(store), 4);
    assert_int_equal(zi_store_bytes(store), 16);
    assert_string_equal(zi_store_path(store), temporary("sharded/m.safetensors.index.json"));
    for (size_t i = 0; i < 4; i++) {
        const char name[2] = {(char)('a' + i), 0};
        assert_string_equal(zi_store_at(store, i)->name, name);
        assert_ptr_equal(zi_store_find(store, name), zi_store_at(store, i));
    }
    assert_string_equal(zi_store_file_of(store, 1), temporary("sharded/m-2.safetensors"));
    assert_string_equal(zi_store_dtype_of(store, 1), "F32");
    assert_int_equal(zi_store_find(store, "b")->data[0], 4);
    zi_store_free(store);

    /* Of tensors that the index does not name, or not there, the last shard's count, as in the reference. */
    write_safetensors(temporary("sharded/m-2.safetensors"),
                      "{" TENSOR("c", 0, 4) "," TENSOR("b", 4, 8) "," TENSOR("a", 8, 12) "," TENSOR("e", 12, 16) "}",
                      16);
    assert_int_equal(zi_store_open(temporary("sharded"), "m", &store, &log, &error), ZIMAGE_OK);
    assert_int_equal(kept.count, 1);
    assert_contains(kept.text, "sharded/m.safetensors.index.json: ");
    assert_contains(kept.text, "2 tensors");
    assert_contains(kept.text, "a in m-2.safetensors, e in m-2.safetensors");
    assert_int_equal(zi_store_count(store), 5);
    assert_int_equal(zi_store_bytes(store), 20);
    assert_non_null(zi_store_find(store, "e"));
    assert_string_equal(zi_store_file_of(store, 0), temporary("sharded/m-2.safetensors"));
    assert_int_equal(zi_store_find(store, "a")->data[0], 8);
    zi_store_free(store);
    assert_int_equal(zi_store_open(temporary("sharded"), "m", &store, NULL, &error), ZIMAGE_OK);
    zi_store_free(store);
}

/* diffusers reads the index. transformers, whose files are called "model", reads the single file. */
static void index_or_single_file(void **state)
{
    static const struct {
        const char *base, *read, *left;
    } cases[] = {{"diffusion_pytorch_model", ".safetensors.index.json", ".safetensors"},
                 {"model", ".safetensors", ".safetensors.index.json"}};
    new_folder("both");
    write_safetensors(temporary("both/s.safetensors"), "{" TENSOR("a", 0, 4) "}", 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[100];
        warnings kept = {0};
        zi_log log = {keep_warning, &kept};
        zi_store *store;
        snprintf(name, sizeof name, "both/%s.safetensors", cases[i].base);
        write_safetensors(temporary(name), "{" TENSOR("b", 0, 4) "}", 4);
        snprintf(name, sizeof name, "both/%s.safetensors.index.json", cases[i].base);
        write_text(temporary(name), "{\"weight_map\":{\"a\":\"s.safetensors\"}}");
        assert_int_equal(zi_store_open(temporary("both"), cases[i].base, &store, &log, NULL), ZIMAGE_OK);
        snprintf(name, sizeof name, "both/%s%s", cases[i].base, cases[i].read);
        assert_string_equal(zi_store_path(store), temporary(name));
        assert_string_equal(zi_store_at(store, 0)->name, i == 0 ? "a" : "b");
        assert_int_equal(kept.count, 1);
        snprintf(name, sizeof name, "both/%s%s: not used: ", cases[i].base, cases[i].left);
        assert_contains(kept.text, name);
        zi_store_free(store);
    }
}

static void absent_weights_are_named(void **state)
{
    new_folder("nothing");
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store;
    assert_error(&error, zi_store_open(temporary("nothing"), "m", &store, NULL, &error), ZIMAGE_ERROR_FILE,
                 "/nothing: ", "neither m.safetensors nor m.safetensors.index.json", NULL);
    assert_null(store);
    assert_error(&error, zi_store_open(temporary("nowhere"), "m", &store, NULL, &error), ZIMAGE_ERROR_FILE,
                 "/nowhere: ", "no such folder", NULL);
}

/* What lies in a folder without readable weights, and what the message says of it. */
static void absent_weights_have_a_way_out(void **state)
{
    static const struct {
        const char *files[3], *says, *also;
    } cases[] = {
        {{NULL}, "the folder is empty", NULL},
        {{"m.safetensors:Zone.Identifier", ".DS_Store"}, "the folder is empty", NULL},
        {{"m.fp16.safetensors"}, "m.fp16.safetensors is a variant", "rename the file"},
        {{"m.safetensors.index.fp16.json", "m-00001-of-00002.fp16.safetensors"},
         "is a variant",
         "save the model again"},
        {{"m.fp16-00001-of-00002.safetensors", "m.fp16.safetensors.index.json"}, "is a variant", "variant=..."},
        {{"m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"}, "2 of the shards", "without the index"},
        {{"m.bin"}, "m.bin", "pickled"},
        {{"pytorch_model.bin"}, "pytorch_model.bin", "safe_serialization"},
        {{"flux.ckpt"}, "flux.ckpt", "pickled"},
        {{"x.pt"}, "x.pt", "pickled"},
        {{"x-Q4.gguf"}, "x-Q4.gguf", "GGUF"},
        {{"model.onnx"}, "model.onnx", "ONNX"},
        {{"flax_model.msgpack"}, "flax_model.msgpack", "Flax"},
        {{"m.safetensors.incomplete"}, "m.safetensors.incomplete", "not complete"},
        {{"other.safetensors"}, "other.safetensors", "rename"},
        {{"config.json"}, "neither", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[100], folder[40];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_store *store;
        snprintf(folder, sizeof folder, "absent-%zu", i);
        new_folder(folder);
        for (int f = 0; f < 3 && cases[i].files[f]; f++) {
            snprintf(name, sizeof name, "%s/%s", folder, cases[i].files[f]);
            write_text(temporary(name), "x");
        }
        assert_error(&error, zi_store_open(temporary(folder), "m", &store, NULL, &error), ZIMAGE_ERROR_FILE,
                     "neither m.safetensors nor m.safetensors.index.json", cases[i].says, cases[i].also);
    }
}

/* Files that lie in place of weights: each has a sentence of its own. */
static void stand_ins_are_named(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9999\n", "git lfs pull"},
        {"<!DOCTYPE html><html><head>", "web page"},
        {"<html><body>Not found", "web page"},
        {"PK\3\4\x14 archive/data.pkl", "zip archive"},
        {"GGUF\3 and so on", "GGUF"},
    };
    new_folder("stand-in");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_store *store;
        write_text(temporary("stand-in/m.safetensors"), cases[i].text);
        assert_error(&error, zi_store_open(temporary("stand-in"), "m", &store, NULL, &error), ZIMAGE_ERROR_FORMAT,
                     "stand-in/m.safetensors: ", cases[i].says, NULL);
    }
    /* Links that lead nowhere: the file, the index, a shard, the folder. */
    static const char *const places[] = {"m.safetensors", "m.safetensors.index.json", "s.safetensors", ""};
    write_text(temporary("stand-in/m.safetensors.index.json"), "{\"weight_map\":{\"a\":\"s.safetensors\"}}");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char name[64];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_store *store;
        new_folder("links");
        if (i == 2)
            write_text(temporary("links/m.safetensors.index.json"), "{\"weight_map\":{\"a\":\"s.safetensors\"}}");
        if (i == 3)
            rmdir(temporary("links"));
        snprintf(name, sizeof name, "links%s%s", i == 3 ? "" : "/", places[i]);
        assert_int_equal(symlink("../blobs/0123abcd", temporary(name)), 0);
        assert_error(&error, zi_store_open(temporary("links"), "m", &store, NULL, &error), ZIMAGE_ERROR_FILE, name,
                     "the link leads to ../blobs/0123abcd, which does not exist", NULL);
        unlink(temporary(name));
        unlink(temporary("links/m.safetensors.index.json"));
        rmdir(temporary("links"));
    }
}

static void index_is_checked(void **state)
{
    new_folder("bad");
    write_safetensors(temporary("bad/s.safetensors"), "{" TENSOR("a", 0, 4) "}", 4);
    write_safetensors(temporary("bad/broken.safetensors"), "{" TENSOR("a", 0, 8) "}", 4);
    const struct {
        const char *index;
        zimage_status status;
        const char *says, *also;
    } cases[] = {
        {"", ZIMAGE_ERROR_FORMAT, "empty", NULL},
        {"[]", ZIMAGE_ERROR_FORMAT, "an array", NULL},
        {"{}", ZIMAGE_ERROR_FORMAT, "\"weight_map\": missing", NULL},
        {"{\"weight_map\":[]}", ZIMAGE_ERROR_FORMAT, "\"weight_map\": an array", NULL},
        {"{\"weight_map\":{\"a\":1}}", ZIMAGE_ERROR_FORMAT, "\"weight_map\": \"a\": 1, expected", NULL},
        {"{\"weight_map\":{\"a\":\"\"}}", ZIMAGE_ERROR_FORMAT, "\"a\": \"\"", "beside the index"},
        {"{\"weight_map\":{\"a\":\"../bad/s.safetensors\"}}", ZIMAGE_ERROR_FORMAT, "\"../bad/s", "beside the index"},
        {"{\"weight_map\":{\"a\":\"..\"}}", ZIMAGE_ERROR_FORMAT, "\"a\": \"..\"", "beside the index"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", ZIMAGE_ERROR_FORMAT, "\"/etc/passwd\"", "beside the index"},
        {"{\"weight_map\":{\"a\":\"..\\\\s\"}}", ZIMAGE_ERROR_FORMAT, "\"a\": ", "beside the index"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\"}}", ZIMAGE_ERROR_FILE, "bad/x.safetensors", "no such file"},
        {"{\"weight_map\":{\"a\":\".\"}}", ZIMAGE_ERROR_FILE, "bad/.", "no such file"},
        {"{\"weight_map\":{\"b\":\"s.safetensors\"}}", ZIMAGE_ERROR_FORMAT, "tensor \"b\"", "not there"},
        {"{\"weight_map\":{\"a\":\"broken.safetensors\"}}", ZIMAGE_ERROR_FORMAT,
         "bad/broken.safetensors: ", "\"data_offsets\""},
        {"{\"weight_map\":{\"a\":\"s.safetensors\",\"a\":\"s.safetensors\"}}", ZIMAGE_ERROR_FORMAT, "duplicate", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_store *store;
        write_text(temporary("bad/m.safetensors.index.json"), cases[i].index);
        zimage_status status = zi_store_open(temporary("bad"), "m", &store, NULL, &error);
        const char *file = strstr(cases[i].says, "broken") ? "bad/" : "bad/m.safetensors.index.json: ";
        assert_error(&error, status, cases[i].status, file, cases[i].says, cases[i].also);
        assert_null(store);
    }
}

static zi_store *open_text(const char *header, size_t data_size)
{
    zi_store *store = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    write_safetensors(temporary("bind.safetensors"), header, data_size);
    if (zi_store_open_file(temporary("bind.safetensors"), &store, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return store;
}

static const int64_t one[1] = {1};

static void whole_network_binds(void **state)
{
    zi_store *store = open_text(
        "{" TENSOR("layers.0.w", 0, 4) "," TENSOR("layers.1.w", 4, 8) "," TENSOR("lm_head.w", 8, 12) "," TENSOR(
            "lm_header", 12, 16) ",\"s\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[16,18]}}",
        18);
    warnings kept = {0};
    zi_log log = {keep_warning, &kept};
    zi_binder *binder;
    const zi_weight *weights[2], *scalar;
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    for (int i = 0; i < 2; i++)
        zi_bind(binder, &weights[i], 1, one, "layers.%d.%s", i, "w");
    zi_bind(binder, &scalar, 0, NULL, "s");
    zi_bind_ignore(binder, "lm_head");
    zi_bind_ignore(binder, "nothing.");
    assert_int_equal(zi_binder_finish(binder, &log, NULL), ZIMAGE_OK);
    assert_int_equal(kept.count, 0);
    assert_ptr_equal(weights[1], zi_store_find(store, "layers.1.w"));
    assert_ptr_equal(scalar, zi_store_find(store, "s"));

    /* All tensors that were not asked for are in one warning. */
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    zi_bind(binder, &weights[0], 1, one, "layers.0.w");
    zi_bind_ignore(binder, "lm_");
    assert_int_equal(zi_binder_finish(binder, &log, NULL), ZIMAGE_OK);
    assert_int_equal(kept.count, 1);
    assert_contains(kept.text, "/bind.safetensors: 2 tensors are unexpected and not used (layers.1.w, s)");
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    assert_int_equal(zi_binder_finish(binder, NULL, NULL), ZIMAGE_OK);
    zi_store_free(store);
}

static void problems_are_reported_together(void **state)
{
    zi_store *store = open_text("{\"x\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[0,24]},"
                                "\"steps\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[24,32]},"
                                "\"foo\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[32,36]}}",
                                36);
    warnings kept = {0};
    zi_log log = {keep_warning, &kept};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_binder *binder;
    const zi_weight *weight = (const zi_weight *)&error;
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    zi_bind(binder, &weight, 1, one, "layers.%d.w", 0);
    assert_null(weight);
    zi_bind(binder, &weight, 1, one, "layers.%d.w", 1);
    zi_bind(binder, &weight, 2, (const int64_t[]){4, 4}, "x");
    assert_null(weight);
    zi_bind(binder, &weight, 0, NULL, "steps");
    assert_null(weight);
    assert_int_equal(zi_binder_finish(binder, &log, &error), ZIMAGE_ERROR_MODEL);
    assert_contains(error.message, "/bind.safetensors: 2 tensors are missing (layers.0.w, layers.1.w), 1 has the wrong "
                                   "shape (x: [3, 4], expected [4, 4]), 1 is not F32, F16 or BF16 (steps: I64), 1 "
                                   "unexpected (foo)");
    assert_int_equal(kept.count, 0);

    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    zi_bind(binder, &weight, 3, (const int64_t[]){3, 4, 1}, "x");
    assert_int_equal(zi_binder_finish(binder, &log, &error), ZIMAGE_ERROR_MODEL);
    assert_contains(error.message, ": 1 tensor has the wrong shape (x: [3, 4], expected [3, 4, 1]), 2 unexpected (foo, "
                                   "steps)");
    zi_store_free(store);
}

/* A type that the format knows and nothing here computes with is never read as numbers of another type. */
static void only_floats_are_bound(void **state)
{
    const struct {
        const char *dtype, *shape, *message; /* a tensor of 16 bytes */
        int dims;
        int64_t expected[4];
    } cases[] = {
        {"F8_E4M3", "[4,4]", "(x.weight: F8_E4M3)", 2, {4, 4}},
        {"F8_E5M2", "[4,4]", "(x.weight: F8_E5M2)", 2, {4, 4}},
        {"F8_E8M0", "[4,4]", "(x.weight: F8_E8M0)", 2, {4, 4}}, /* unknown to the reader */
        {"BOOL", "[16]", "(x.weight: BOOL)", 1, {16}},
        {"U8", "[16]", "(x.weight: U8)", 1, {16}},
        {"I8", "[16]", "(x.weight: I8)", 1, {16}},
        {"U16", "[8]", "(x.weight: U16)", 1, {8}},
        {"I16", "[8]", "(x.weight: I16)", 1, {8}},
        {"I32", "[2,2]", "(x.weight: I32)", 2, {2, 2}},
        {"U32", "[4]", "(x.weight: U32)", 1, {4}},
        {"U64", "[2]", "(x.weight: U64)", 1, {2}},
        {"I64", "[2]", "(x.weight: I64)", 1, {2}},
        {"F64", "[2]", "(x.weight: F64)", 1, {2}},
        {"F32", "[2,1,1,1,2]", "(x.weight: F32 of more than 4 dimensions)", 4, {2, 1, 1, 2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[200];
        snprintf(header, sizeof header, "{\"x.weight\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[0,16]}}",
                 cases[i].dtype, cases[i].shape);
        zi_store *store = open_text(header, 16);
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_binder *binder;
        const zi_weight *weight = (const zi_weight *)&error;
        assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
        zi_bind(binder, &weight, cases[i].dims, cases[i].expected, "x.weight");
        assert_null(weight);
        assert_error(&error, zi_binder_finish(binder, NULL, &error), ZIMAGE_ERROR_MODEL,
                     "/bind.safetensors: 1 tensor is not F32, F16 or BF16 ", cases[i].message, NULL);
        zi_store_free(store);

        float *values = NULL;
        int64_t shape[4];
        int32_t dims;
        assert_error(&error,
                     zimage_tensor_read(temporary("bind.safetensors"), "x.weight", &values, shape, &dims, &error),
                     ZIMAGE_ERROR_FORMAT, "/bind.safetensors: ", "\"x.weight\"", "F32, F16 or BF16");
        assert_null(values);
    }
}

static void long_lists_are_cut(void **state)
{
    zi_store *store = open_text("{}", 0);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_binder *binder;
    const zi_weight *weight;
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    for (int i = 0; i < 521; i++)
        zi_bind(binder, &weight, 1, one, "w%d", i);
    assert_int_equal(zi_binder_finish(binder, NULL, &error), ZIMAGE_ERROR_MODEL);
    assert_contains(error.message, "521 tensors are missing (w0, w1, w2, w3, w4, w5, w6, w7 and 513 more)");

    char name[2000];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    assert_int_equal(zi_binder_new(store, &binder, NULL), ZIMAGE_OK);
    for (int i = 0; i < 9; i++)
        zi_bind(binder, &weight, 1, one, "%d.%s", i, name);
    assert_int_equal(zi_binder_finish(binder, NULL, &error), ZIMAGE_ERROR_MODEL);
    assert_contains(error.message, "9 tensors are missing (0.nnn");
    assert_contains(error.message, "n, 1.nnn");
    assert_contains(error.message, "n and 7 more)");
    zi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_make_one_store),         cmocka_unit_test(index_or_single_file),
        cmocka_unit_test(absent_weights_have_a_way_out), cmocka_unit_test(stand_ins_are_named),
        cmocka_unit_test(absent_weights_are_named),      cmocka_unit_test(index_is_checked),
        cmocka_unit_test(whole_network_binds),           cmocka_unit_test(problems_are_reported_together),
        cmocka_unit_test(only_floats_are_bound),         cmocka_unit_test(long_lists_are_cut),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
