/* What the program prints on a terminal: nothing commands it, whatever the names and texts in files and arguments are;
 * progress is one line of any width. */
#include <sys/ioctl.h>
#include <termios.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A control sequence of each kind: C0, DEL, C1, a change of direction, ends of lines, and bytes that are no UTF-8. */
#define C0 "\x1b[31m"
#define C1                                                                                                             \
    "\xc2\x9b"                                                                                                         \
    "31m"
#define BIDI "\xe2\x80\xae"
#define UTF8                                                                                                           \
    C0 "\x7f" C1 BIDI "\xe2\x81\xa6"                                                                                   \
       "\xe2\x80\xa8"                                                                                                  \
       "\n"
#define BROKEN UTF8 "\xff\x9b"
/* The same as JSON writes it. */
#define JSON_TEXT "\\u001b[31m\\u007f\\u009b31m\\u202e\\u2066\\u2028\\n"
#define SHOWN     "\\x1b[31m\\x7f\\u009b31m\\u202e\\u2066\\u2028"

static outcome o;

static const char *command_in(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if ((*c < 0x20 && *c != '\n') || *c == 0x7F || (c[0] == 0xC2 && c[1] < 0xA0) ||
            (c[0] == 0xE2 &&
             ((c[1] == 0x80 && c[2] >= 0xA8 && c[2] <= 0xAE) || (c[1] == 0x81 && c[2] >= 0xA6 && c[2] <= 0xA9))))
            return (const char *)c;
    json_t *valid = json_string(text);
    json_decref(valid);
    return valid ? NULL : text;
}

/* Runs the program; `shown` is in what it prints. */
static void expect_printable(const char *const *arguments, const char *shown)
{
    run_program(arguments, &o);
    const char *out = command_in(o.out), *err = command_in(o.err);
    if (out || err)
        fail_msg("%s %s: control characters in: %s", arguments[0], arguments[1] ? arguments[1] : "", out ? out : err);
    if (o.code >= 126 || (!strstr(o.out, shown) && !strstr(o.err, shown)))
        fail_msg("%s: exit code %d, expected %s in: %s%s", arguments[0], o.code, shown, o.out, o.err);
}

static void write_file(const char *path, const void *data, size_t length)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, length, file), length);
    fclose(file);
}

/* A safetensors file with one tensor of one element. */
static void write_tensor(const char *path, const char *name, const char *type)
{
    char bytes[1024] = {0};
    int length = snprintf(bytes + 8, sizeof bytes - 8,
                          "{\"%s\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,4]}}", name, type);
    bytes[0] = (char)length;
    assert_true(length < 256);
    write_file(path, bytes, 8 + (size_t)length + 4);
}

static void each_character(void **state)
{
    static const struct {
        const char *text, *line;
    } cases[] = {{"", ""},
                 {"a red apple", "a red apple"},
                 {"\xe7\xba\xa2\xe8\x8b\xb9\xe6\x9e\x9c \xf0\x9f\x8d\x8e", NULL},
                 {"\x01\x1f\x7f\t\n\r", "\\x01\\x1f\\x7f\\x09\\x0a\\x0d"},
                 {"\xc2\x80\xc2\x9f\xc2\xa0", "\\u0080\\u009f\xc2\xa0"},
                 {"\xe2\x80\xa7\xe2\x80\xa8\xe2\x80\xae\xe2\x80\xaf", "\xe2\x80\xa7\\u2028\\u202e\xe2\x80\xaf"},
                 {"\xe2\x81\xa5\xe2\x81\xa6\xe2\x81\xa9\xe2\x81\xaa", "\xe2\x81\xa5\\u2066\\u2069\xe2\x81\xaa"},
                 {"\xff\x9b\xc3", "\\xff\\x9b\\xc3"},
                 {"\xed\xa0\x80", "\\xed\\xa0\\x80"},
                 {"\xc0\x9b", "\\xc0\\x9b"},
                 {"\xe2\x80", "\\xe2\\x80"},
                 {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
                 {"a\\b", "a\\b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[64];
        const char *expected = cases[i].line ? cases[i].line : cases[i].text;
        assert_int_equal(zimage_printable(cases[i].text, line, sizeof line), strlen(expected));
        assert_string_equal(line, expected);
        for (size_t size = 0; size <= strlen(expected) + 1; size++) { /* cut, never within a character or an escape */
            memset(line, 'x', sizeof line);
            assert_int_equal(zimage_printable(cases[i].text, line, size), strlen(expected));
            assert_int_equal(line[size], 'x');
            if (size > 0) {
                assert_memory_equal(line, expected, strlen(line));
                assert_null(command_in(line));
                assert_true(strlen(line) < size && strlen(line) + 12 >= size);
            }
        }
    }
}

static void nothing_to_print(void **state)
{
    char line[2] = "x";
    assert_int_equal(zimage_printable(NULL, line, sizeof line), 0);
    assert_string_equal(line, "");
    assert_int_equal(zimage_printable("a\n", NULL, 0), 5);
    assert_int_equal(zimage_printable("a\n", NULL, 9), 5);
}

static void names_in_weight_files(void **state)
{
    write_tensor(in_folder("t.safetensors"), JSON_TEXT, "F32");
    expect_printable(ARGUMENTS("inspect", "t.safetensors"), SHOWN);
    assert_int_equal(o.code, 0);
    expect_printable(ARGUMENTS("inspect", "t.safetensors", "--json"), "\\u001B[31m");
    assert_int_equal(o.code, 0);
    expect_printable(ARGUMENTS("generate", "a", "-o", "a.png", "--latents", "t.safetensors"), "latents");
    write_tensor(in_folder("t.safetensors"), "latents", JSON_TEXT);
    expect_printable(ARGUMENTS("inspect", "t.safetensors"), SHOWN);
    static const char broken[] = "\x0e\0\0\0\0\0\0\0{\"\x1b[31m\xff\x9b\": }}";
    write_file(in_folder("t.safetensors"), broken, sizeof broken - 1);
    expect_printable(ARGUMENTS("inspect", "t.safetensors"), "t.safetensors");
    unlink(in_folder("t.safetensors"));
}

static void names_of_files(void **state)
{
    char name[256], text[256];
    expect_printable(ARGUMENTS("inspect", BROKEN), SHOWN "\\x0a\\xff\\x9b");
    expect_printable(ARGUMENTS("generate", "a", "-m", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("tokenize", "a", "-m", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("bench", "-m", BROKEN), SHOWN);
    snprintf(name, sizeof name, BROKEN ".safetensors");
    write_tensor(in_folder(name), "a", "F32");
    expect_printable(ARGUMENTS("inspect", name), SHOWN "\\x0a\\xff\\x9b.safetensors");
    assert_int_equal(o.code, 0);
    expect_printable(ARGUMENTS("inspect", name, "--json"), "\\\\xff\\\\x9b.safetensors");
    assert_int_equal(o.code, 0);
    json_t *object = json_loads(o.out, 0, NULL);
    assert_non_null(object);
    json_decref(object);
    unlink(in_folder(name));
    run_shell("cp -r '%s' '%s/model'", TINY, test_folder);
    snprintf(name, sizeof name, "%s/model" BROKEN, test_folder);
    assert_int_equal(rename(in_folder("model"), name), 0);
    snprintf(text, sizeof text, "model" BROKEN);
    expect_printable(ARGUMENTS("inspect", text), SHOWN);
    expect_printable(ARGUMENTS("inspect", text, "--json"), "\"class\"");
    assert_int_equal(o.code, 0);
    expect_printable(ARGUMENTS("generate", "a", "-m", text, "-W", "16", "-H", "16", "--steps", "1", "-o", "a.png"),
                     "a.png");
    assert_int_equal(o.code, 0);
    expect_printable(ARGUMENTS("generate", "a", "-m", text, "-W", "17", "-o", "b.png"), "17");
    run_shell("rm -rf '%s'/*", test_folder);
}

static void texts_of_configurations(void **state)
{
    static const char *const files[] = {
        "model_index.json",         "transformer/config.json",         "vae/config.json",
        "text_encoder/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *model = copy_model("model");
        spoil_json(model, files[i], "_class_name", "\"" JSON_TEXT "\"");
        spoil_json(model, files[i], UTF8, "\"" JSON_TEXT "\"");
        run_program(ARGUMENTS("inspect", model), &o);
        assert_null(command_in(o.out));
        assert_null(command_in(o.err));
        if (i >= 1 && i <= 3) /* inspect prints these */
            assert_non_null(strstr(o.out, SHOWN));
        expect_printable(ARGUMENTS("generate", "a", "-m", model, "-W", "16", "-H", "16", "--steps", "1", "-o", "a.png"),
                         "");
        write_file(in_folder("x"), "{\"\x1b[31m\xff\x9b\": }}", 14);
        run_shell("mv '%s' '%s/%s'", in_folder("x"), model, files[i]);
        expect_printable(ARGUMENTS("generate", "a", "-m", model, "-o", "a.png"), files[i]);
    }
    run_shell("rm -rf '%s'/*", test_folder);
}

static void arguments(void **state)
{
    expect_printable(ARGUMENTS("generate", "a", BROKEN), SHOWN "\\x0a\\xff\\x9b");
    expect_printable(ARGUMENTS("generate", "a", "--" BROKEN), SHOWN);
    expect_printable(ARGUMENTS("generate", "a", "--steps", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("generate", "a", "--device", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("generate", "a", "--cpu-mask", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("generate", "--batch", BROKEN, "--out-dir", "."), SHOWN);
    expect_printable(ARGUMENTS("generate", "-" BROKEN), SHOWN);
    expect_printable(ARGUMENTS("bench", "--synthetic", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("help", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("selftest", "--device", BROKEN), SHOWN);
    expect_printable(ARGUMENTS("-" BROKEN), SHOWN);
    expect_printable(ARGUMENTS("\x1b[31m"), "\\x1b[31m");
    expect_printable(ARGUMENTS(BROKEN, "-m", TINY, "-o", "a.png", "--steps", "1"), "prompt");
}

static void lines_of_a_batch(void **state)
{
    static const char *const lines[] = {"{\"" JSON_TEXT "\": 1}",
                                        "{\"prompt\": 5, \"output\": \"" JSON_TEXT ".png\"}",
                                        "{\"prompt\": \"" BIDI "\", \"output\": 5, \"" C1 "\": 7}",
                                        "{\"prompt\": \"a\", \"output\": \"\xc2\x9b\xe2\x80\xae.png\"}",
                                        "{\"prompt\": \"a\", \"output\": \"a\\tb.png\"}",
                                        "\x1b[31m",
                                        "{\"\xff\x9b\": 5}",
                                        "{\"seed\": \x1b[31m}"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        write_file(in_folder("b.jsonl"), lines[i], strlen(lines[i]));
        expect_printable(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", ".", "-m", TINY), "line 1");
        assert_int_not_equal(o.code, 0);
    }
    unlink(in_folder("b.jsonl"));
    assert_int_equal(count_files(test_folder), 0);
}

/* A name that would be written: no control characters. One in another encoding is the user's own affair. */
static void names_to_write(void **state)
{
    static const char *const names[] = {"a\x1b[31m.png", "a\n.png",           "a\x7f.png",
                                        "a\xc2\x9b.png", "a\xe2\x80\xae.png", "\xff\x1b.png"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        expect_printable(ARGUMENTS("generate", "a", "-m", TINY, "-o", names[i]), "without control characters");
        assert_int_equal(o.code, 2);
        expect_printable(ARGUMENTS("generate", "a", "-m", TINY, "--save-latents", names[i]),
                         "without control characters");
        expect_printable(ARGUMENTS("generate", "--batch", "x", "--out-dir", names[i]), "without control characters");
        expect_printable(ARGUMENTS("generate", "a", "--cache-dir", names[i]), "without control characters");
    }
    assert_int_equal(count_files(test_folder), 0);
    expect_printable(
        ARGUMENTS("generate", "a", "-m", TINY, "-W", "16", "-H", "16", "--steps", "1", "-o", "\xe9t\xe9.png"),
        "\\xe9t\\xe9.png  16x16");
    assert_int_equal(access(in_folder("\xe9t\xe9.png"), F_OK), 0);
    expect_printable(
        ARGUMENTS("generate", "a", "-m", TINY, "-W", "16", "-H", "16", "--steps", "1", "-o", "\xe9t\xe9.png", "--json"),
        "{\"path\":\"\\\\xe9t\\\\xe9.png\"");
    assert_int_equal(o.code, 0);
    run_shell("rm -rf '%s'/*", test_folder);
}

/* ---- progress ---- */

static zimage_progress at(zimage_stage stage, int step, int steps, double fraction, double elapsed)
{
    return (zimage_progress){sizeof(zimage_progress), stage, step, steps, 0, 10, fraction, elapsed, NULL, 0, 0};
}

static void expect_line(const progress_bar *bar, const zimage_progress *p, int columns, const char *expected)
{
    char line[PROGRESS_LINE_MAX];
    progress_line(bar, p, columns, line);
    if (strcmp(line, expected) != 0)
        fail_msg("%d columns: \"%s\", expected \"%s\"", columns, line, expected);
}

static void lines_of_each_width(void **state)
{
    progress_bar bar = {
        .image = 2, .images = 5, .stage = ZIMAGE_STAGE_DENOISE, .begin_seconds = 2, .begin_fraction = 0.1};
    zimage_progress p = at(ZIMAGE_STAGE_DENOISE, 3, 8, 0.3, 8);
    for (int columns = 100; columns <= 120; columns += 20)
        expect_line(&bar, &p, columns,
                    "[########--------------------]  30%  image 2/5  denoise 3/8  3.0 s/step  8 s elapsed  21 s left");
    expect_line(&bar, &p, 80, "[####--------]  30%  image 2/5  denoise 3/8  3.0 s/step  8 s elapsed  21 s left");
    expect_line(&bar, &p, 66, "30%  image 2/5  denoise 3/8  3.0 s/step  8 s elapsed  21 s left");
    expect_line(&bar, &p, 40, "30% image 2/5 denoise 3/8 21 s left");
    expect_line(&bar, &p, 30, "30% denoise 3/8 21 s left");
    expect_line(&bar, &p, 17, "30% denoise 3/8");
    expect_line(&bar, &p, 15, "30% 21 s left");
    expect_line(&bar, &p, 4, "30%");
    expect_line(&bar, &p, 3, "");
    bar.images = 1;
    expect_line(&bar, &p, 40, "30% denoise 3/8 3.0 s/step 21 s left");
    for (int columns = -1; columns < 300; columns++) {
        char line[PROGRESS_LINE_MAX];
        p = at((zimage_stage)(columns & 3), 999, 1000, 0.9999, 1e7);
        bar.image = bar.images = 100000;
        progress_line(&bar, &p, columns, line);
        assert_true((int)strlen(line) < columns || !*line);
    }
}

static void expect_bytes(const progress_bar *bar, const progress_bytes *bytes, int columns, const char *expected)
{
    char line[PROGRESS_LINE_MAX];
    progress_bytes_line(bar, bytes, columns, line);
    if (strcmp(line, expected) != 0)
        fail_msg("%d columns: \"%s\", expected \"%s\"", columns, line, expected);
}

/* A download of which 2 GB were there at the beginning: they do not count in the rate. */
static void lines_of_downloads(void **state)
{
    progress_bar bar = {.begin_seconds = 2, .begin_fraction = 2e9};
    progress_bytes b = {6500000000u, 32800000000u, 3, 17, 47};
    expect_bytes(&bar, &b, 120,
                 "[######----------------------]  20%  file 3/17  6.5/32.8 GB  100.0 MB/s  47 s elapsed  4:23 left");
    expect_bytes(&bar, &b, 80, "[##---------]  20%  file 3/17  6.5/32.8 GB  100.0 MB/s  47 s elapsed  4:23 left");
    expect_bytes(&bar, &b, 40, "20% file 3/17 6.5/32.8 GB 4:23 left");
    expect_bytes(&bar, &b, 20, "20% 6.5/32.8 GB");
    b = (progress_bytes){5000, 2500000, 0, 2, 2.1}; /* too early for a rate */
    expect_bytes(&bar, &b, 40, "0% file 0/2 0.0/2.5 MB 2 s elapsed");
    b = (progress_bytes){0, 0, 0, 0, 0};
    for (int columns = -1; columns < 300; columns++) {
        char line[PROGRESS_LINE_MAX];
        progress_bytes_line(&bar, &b, columns, line);
        assert_true((int)strlen(line) < columns || !*line);
        b = (progress_bytes){UINT64_MAX, UINT64_MAX, 1000000, 1000000, 1e9};
    }
}

/* What is left follows from the rate of the present stage: a slow last stage does not say "0 s left" for long. */
static void times_and_rates(void **state)
{
    progress_bar bar = {
        .image = 1, .images = 1, .stage = ZIMAGE_STAGE_DECODE, .begin_seconds = 10, .begin_fraction = 0.98};
    zimage_progress p = at(ZIMAGE_STAGE_DECODE, 1, 1, 0.984, 12);
    expect_line(&bar, &p, 41, "98% vae decode 12 s elapsed 8 s left");
    p = at(ZIMAGE_STAGE_DECODE, 1, 1, 0.98, 10.1); /* nothing of the stage is done: the rate of all, which says 0 s */
    expect_line(&bar, &p, 40, "[#########] 98% vae decode 10 s elapsed");
    bar = (progress_bar){.stage = ZIMAGE_STAGE_DENOISE};
    p = at(ZIMAGE_STAGE_DENOISE, 1, 20, 0.01, 0.2); /* too early for an estimate or a rate */
    expect_line(&bar, &p, 34, "1% denoise 1/20 0 s elapsed");
    p = at(ZIMAGE_STAGE_DENOISE, 5, 20, 0.2, 1);
    expect_line(&bar, &p, 55, "20% denoise 5/20 4.0 steps/s 1 s elapsed 4 s left");
    p = at(ZIMAGE_STAGE_DENOISE, 5, 20, 0.2, 75.4);
    expect_line(&bar, &p, 58, "20% denoise 5/20 18.9 s/step 1:15 elapsed 5:02 left");
    p = at(ZIMAGE_STAGE_DENOISE, 5, 20, 0.2, 7384);
    expect_line(&bar, &p, 65, "20%  denoise 5/20  1846.0 s/step  2:03:04 elapsed  8:12:16 left");
}

/* Runs the program with stderr on a terminal of so many columns, and keeps what arrives there in o.err. */
static void run_on_terminal(const char *const *arguments, int columns)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    const struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    assert_true(terminal >= 0 && ioctl(terminal, TIOCSWINSZ, &size) == 0);
    pid_t child = fork();
    if (child == 0) {
        const char *argv[64] = {ZIMAGE_PROGRAM};
        for (int i = 0; arguments[i]; i++)
            argv[i + 1] = arguments[i];
        setenv("TERM", "xterm", 1);
        if (chdir(test_folder) != 0 || dup2(terminal, STDERR_FILENO) < 0 || !freopen("out", "wb", stdout))
            _exit(126);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(terminal);
    size_t length = 0;
    for (ssize_t more; (more = read(master, o.err + length, sizeof o.err - 1 - length)) > 0;)
        length += (size_t)more;
    o.err[length] = 0;
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    close(master);
    unlink(in_folder("out"));
}

/* Follows the cursor: progress never leaves its line and never reaches the last column. Returns the drawings. */
static int follow(const char *text, int columns)
{
    int column = 0, drawings = 0;
    for (const char *c = text; *c; c++) {
        if (*c == '\r') {
            column = 0;
        } else if (!strncmp(c, "\033[K", 3)) {
            drawings += column > 0;
            c += 2;
        } else {
            assert_true((unsigned char)*c >= ' ' && (unsigned char)*c < 0x7F);
            assert_true(++column < columns);
        }
    }
    assert_int_equal(column, 0);
    return drawings;
}

static void progress_keeps_to_one_line(void **state)
{
    static const int widths[] = {1, 5, 12, 20, 40, 80, 120, 200};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i += is_brief() ? 2 : 1) {
        double begin = zi_now();
        run_on_terminal(
            ARGUMENTS("generate", "a", "-m", TINY, "--size", "48x48", "--steps", "30", "-n", "2", "-s", "1"),
            widths[i]);
        assert_int_equal(o.code, 0);
        int drawings = follow(o.err, widths[i]), most = 4 + (int)((zi_now() - begin) / PROGRESS_DRAW_SECONDS);
        assert_true(widths[i] < 5 || (drawings >= 2 && drawings <= most));
        assert_true(strlen(o.err) < 4 || !strcmp(o.err + strlen(o.err) - 4, "\r\033[K"));
        if (widths[i] >= 40)
            assert_non_null(strstr(o.err, "image 2/2"));
        run_shell("rm -f '%s'/*.png", test_folder);
    }
    run_on_terminal(ARGUMENTS("generate", "a", "-m", TINY, "--size", "48x48", "--steps", "3", "-q", "-o", "a.png"), 40);
    assert_string_equal(o.err, "");
    unlink(in_folder("a.png"));
}

/* A message clears the line first; the next progress draws it again at once. */
static void messages_interrupt_progress(void **state)
{
    char text[1024];
    int kept = dup(STDERR_FILENO), file = open(in_folder("err"), O_RDWR | O_CREAT, 0600);
    assert_true(kept >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
    progress_bar bar;
    zimage_progress p = at(ZIMAGE_STAGE_DENOISE, 1, 8, 0.5, 1);
    progress_init(&bar, 0, 1, 1, NULL);
    bar.terminal = 1;
    progress_show(&bar, &p);
    cli_log(ZIMAGE_LOG_WARNING, "x", NULL);
    progress_show(&bar, &p);
    progress_show(&bar, &p); /* too early to draw again */
    progress_end(&bar);
    cli_log(ZIMAGE_LOG_WARNING, "y", NULL);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(file);
    read_text(in_folder("err"), text, sizeof text);
    char line[PROGRESS_LINE_MAX], expected[1024];
    progress_line(&bar, &p, 80, line);
    snprintf(expected, sizeof expected, "\r%s\033[K\r\033[Kzimage: warning: x\n\r%s\033[K\r\033[Kzimage: warning: y\n",
             line, line);
    assert_string_equal(text, expected);
    unlink(in_folder("err"));
}

/* Where stderr is no terminal: lines, which do not flood a log. */
static void lines_without_a_terminal(void **state)
{
    run_program(ARGUMENTS("generate", "a", "-m", TINY, "--size", "16x16", "--steps", "100", "-n", "2", "-s", "1"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.err, "image 2 of 2, denoise, step 1 of 100 ("));
    assert_non_null(strstr(o.err, "image 2 of 2, denoise, step 100 of 100 ("));
    assert_non_null(strstr(o.err, "/s")); /* the rate */
    assert_null(strchr(o.err, '\r'));
    int lines = 0;
    for (const char *c = o.err; *c; c++)
        lines += *c == '\n';
    assert_true(lines >= 10 && lines < 100);
    run_shell("rm -f '%s'/*.png", test_folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_character),
        cmocka_unit_test(nothing_to_print),
        cmocka_unit_test(names_in_weight_files),
        cmocka_unit_test(names_of_files),
        cmocka_unit_test(texts_of_configurations),
        cmocka_unit_test(arguments),
        cmocka_unit_test(lines_of_a_batch),
        cmocka_unit_test(names_to_write),
        cmocka_unit_test(lines_of_each_width),
        cmocka_unit_test(lines_of_downloads),
        cmocka_unit_test(times_and_rates),
        cmocka_unit_test(progress_keeps_to_one_line),
        cmocka_unit_test(messages_interrupt_progress),
        cmocka_unit_test(lines_without_a_terminal),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
