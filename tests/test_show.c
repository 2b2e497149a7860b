/* zimage generate --show: what each protocol writes is decoded back to pixels; how a terminal's protocol is found; and
 * that nothing is drawn where nobody asked. */
#include <sys/ioctl.h>
#include <termios.h>

#include "cli/show.h"
#include "cli/sixel.h"
#include "program.h"
#include "shared/base64.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

static outcome o;

/* ---- decoders ---------------------------------------------------------------------------------------------------- */

static zimage_image *image_of_base64(const char *text, size_t length)
{
    zimage_image *image = NULL;
    uint8_t *data;
    size_t size;
    assert_true(base64_read(text, length, &data, &size));
    assert_int_equal(zimage_image_decode(data, size, 0, &image, NULL), ZIMAGE_OK);
    free(data);
    return image;
}

/* The next picture in Kitty's sequences at *at, which moves behind it; its keys are copied. NULL: there is none. Each
 * sequence has at most 4096 characters. */
static zimage_image *next_kitty(const char **at, char keys[128])
{
    static char text[1 << 20];
    size_t length = 0;
    const char *begin = *at;
    int more = 1;
    for (*keys = 0; more;) {
        while ((begin = strstr(begin, "\033_G")) && !strncmp(begin, "\033_Ga=d", 6)) /* a deletion, or a question */
            begin++;
        if (!begin)
            return NULL;
        const char *payload = strchr(begin, ';'), *end = strstr(begin, "\033\\");
        assert_true(payload && end && payload < end && end - payload - 1 <= 4096);
        if (!*keys)
            snprintf(keys, 128, "%.*s", (int)(payload - begin - 3), begin + 3);
        more = memmem(begin, (size_t)(payload - begin), "m=1", 3) != NULL;
        assert_true(length + (size_t)(end - payload) < sizeof text);
        memcpy(text + length, payload + 1, (size_t)(end - payload - 1));
        length += (size_t)(end - payload - 1);
        begin = *at = end + 2;
    }
    return image_of_base64(text, length);
}

static zimage_image *iterm2_image(const char *text)
{
    const char *begin = strstr(text, "\033]1337;File=inline=1;size="), *data = begin ? strchr(begin, ':') : NULL;
    const char *end = data ? strchr(data, '\a') : NULL;
    assert_non_null(end);
    return image_of_base64(data + 1, (size_t)(end - data - 1));
}

/* Draws what a terminal with sixels would draw. *width and *height: as the raster attributes say. NULL: no sixels. */
static uint8_t *sixel_pixels(const char *text, int *width, int *height)
{
    int palette[256][3] = {{0}}, colour = 0, x = 0, y = 0, count = 1, taken = 0, c[5];
    const char *begin = strstr(text, "\033P"), *end = begin ? strstr(begin, "\033\\") : NULL;
    const char *at = begin ? strchr(begin, 'q') : NULL;
    if (!end || sscanf(at, "q\"1;1;%d;%d%n", width, height, &taken) != 2)
        return NULL;
    uint8_t *rgb = calloc((size_t)*width * (size_t)*height, 3);
    assert_non_null(rgb);
    for (at += taken; at < end;) {
        if (*at == '#' && sscanf(at, "#%d;%d;%d;%d;%d%n", &c[0], &c[1], &c[2], &c[3], &c[4], &taken) == 5) {
            assert_true(c[0] >= 0 && c[0] < 256 && c[1] == 2);
            for (int i = 0; i < 3; i++)
                palette[c[0]][i] = (c[2 + i] * 255 + 50) / 100;
            at += taken;
        } else if (*at == '#') {
            assert_int_equal(sscanf(at, "#%d%n", &colour, &taken), 1);
            at += taken;
        } else if (*at == '!') {
            assert_int_equal(sscanf(at, "!%d%n", &count, &taken), 1);
            at += taken;
        } else if (*at == '$' || *at == '-') {
            x = 0;
            y += *at++ == '-' ? 6 : 0;
        } else {
            assert_true(*at >= '?' && *at <= '~');
            for (; count > 0; count--, x++)
                for (int bit = 0; bit < 6; bit++)
                    if ((*at - '?') >> bit & 1) {
                        assert_true(x < *width && y + bit < *height);
                        for (int i = 0; i < 3; i++)
                            rgb[3 * ((y + bit) * *width + x) + i] = (uint8_t)palette[colour][i];
                    }
            count = 1;
            at++;
        }
    }
    return rgb;
}

/* Dithering keeps the colour of an area: the largest difference between the means of areas of 8 x 8 pixels. */
static int area_error(const uint8_t *a, const uint8_t *b, int width, int height)
{
    int worst = 0;
    for (int y = 0; y + 8 <= height; y += 8)
        for (int x = 0; x + 8 <= width; x += 8)
            for (int c = 0; c < 3; c++) {
                int sum = 0;
                for (int i = 0; i < 64; i++) {
                    int at = 3 * ((y + i / 8) * width + x + i % 8) + c;
                    sum += a[at] - b[at];
                }
                worst = abs(sum) / 64 > worst ? abs(sum) / 64 : worst;
            }
    return worst;
}

static void expect_same(const zimage_image *shown, const zimage_image *made)
{
    assert_int_equal(zimage_image_width(shown), zimage_image_width(made));
    assert_int_equal(zimage_image_height(shown), zimage_image_height(made));
    assert_memory_equal(zimage_image_pixels(shown), zimage_image_pixels(made),
                        (size_t)(3 * zimage_image_width(made) * zimage_image_height(made)));
}

/* ---- each protocol ----------------------------------------------------------------------------------------------- */

#define SHOW(protocol) ARGUMENTS("generate", "a", "-m", TINY, "--size", "64x48", "-s", "1", "-o", "a.png", protocol)

/* A protocol that is named is written to a file, too: pixels as they are in the image, or in few colours. */
static void every_protocol_shows_the_image(void **state)
{
    char keys[128];
    int width, height;
    run_program(SHOW("--show=kitty"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    zimage_image *made = read_image("a.png");
    const char *at = o.out;
    zimage_image *shown = next_kitty(&at, keys);
    assert_non_null(shown);
    assert_non_null(strstr(keys, "a=T,f=100,q=2,"));
    expect_same(shown, made);
    zimage_image_free(shown);
    assert_null(next_kitty(&at, keys)); /* no previews */
    assert_int_equal(strncmp(at, "\na.png  64x48", 13), 0);

    run_program(SHOW("--show=iterm2"), &o);
    shown = iterm2_image(o.out);
    expect_same(shown, made);
    zimage_image_free(shown);

    run_program(SHOW("--show=sixel"), &o);
    uint8_t *rgb = sixel_pixels(o.out, &width, &height);
    assert_true(rgb && width == 64 && height == 48);
    int error = area_error(rgb, zimage_image_pixels(made), width, height);
    if (error > 6)
        fail_msg("an area is off by %d of 255", error);
    free(rgb);
    zimage_image_free(made);

    expect_refusal(SHOW("--show=png"), &o, "--show: \"png\"", "auto, kitty, iterm2 or sixel");
    unlink(in_folder("a.png"));
}

/* A picture of several of Kitty's pieces, of sizes that are no multiples of six, with every kind of pixel. */
static void larger_pictures(void **state)
{
    put_picture("in.png", 201, 137, 0);
    zimage_image *image = read_image("in.png");
    for (int protocol = TERMINAL_KITTY; protocol < TERMINAL_NONE; protocol++) {
        char *text = NULL, keys[128];
        size_t size;
        int width, height;
        FILE *file = open_memstream(&text, &size);
        assert_true(file && show_write(file, (terminal_protocol)protocol, image));
        fclose(file);
        const char *at = text;
        zimage_image *shown = protocol == TERMINAL_KITTY ? next_kitty(&at, keys) : NULL;
        if (protocol == TERMINAL_ITERM2)
            shown = iterm2_image(text);
        if (shown)
            expect_same(shown, image);
        if (protocol == TERMINAL_SIXEL) {
            uint8_t *rgb = sixel_pixels(text, &width, &height);
            assert_true(rgb && width == 201 && height == 137);
            assert_true(area_error(rgb, zimage_image_pixels(image), width, height) <= 6);
            free(rgb);
        }
        zimage_image_free(shown);
        free(text);
    }
    zimage_image_free(image);
    unlink(in_folder("in.png"));
}

/* libsixel reads the same pixels as the decoder of this test, where its program is. */
static void libsixel_agrees(void **state)
{
    if (system("command -v sixel2png >/dev/null") != 0) {
        print_message("skipped: no sixel2png (Debian: libsixel-bin)\n");
        skip();
    }
    static char text[1 << 20];
    int width, height;
    put_picture("in.png", 64, 50, 0);
    zimage_image *image = read_image("in.png");
    FILE *file = fopen(in_folder("in.sixel"), "wb");
    assert_true(file && show_write(file, TERMINAL_SIXEL, image));
    fclose(file);
    read_text(in_folder("in.sixel"), text, sizeof text);
    uint8_t *rgb = sixel_pixels(text, &width, &height);
    run_shell("cd '%s' && sixel2png -i in.sixel -o out.png", test_folder);
    zimage_image *theirs = read_image("out.png");
    assert_int_equal(zimage_image_width(theirs), width);
    for (int i = 0; i < 3 * width * height; i++)
        assert_true(abs(rgb[i] - zimage_image_pixels(theirs)[i]) <= 1); /* percents are rounded */
    zimage_image_free(theirs);
    zimage_image_free(image);
    free(rgb);
    run_shell("rm '%s'/in.* '%s'/out.png", test_folder, test_folder);
}

/* ---- the terminal ------------------------------------------------------------------------------------------------ */

static void answers(void **state)
{
    static const struct {
        const char *answer;
        terminal_protocol protocol;
    } cases[] = {
        {"", TERMINAL_AUTO},
        {"\033[?62", TERMINAL_AUTO},
        {"\033_Gi=31;OK\033\\", TERMINAL_AUTO}, /* the second answer is on its way */
        {"\033_Gi=31;OK\033\\\033[?62;c", TERMINAL_KITTY},
        {"\033_Gi=31;EINVAL:x\033\\\033[?62;4c", TERMINAL_SIXEL},
        {"\033[?62;4;22c", TERMINAL_SIXEL},
        {"\033[?62;22;4c", TERMINAL_SIXEL},
        {"typed\033[?1;2c", TERMINAL_NONE},
        {"\033[?4c", TERMINAL_NONE}, /* the first number is a kind of terminal */
        {"\033[?62;14;44;42c", TERMINAL_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(terminal_read_answer(cases[i].answer), cases[i].protocol);
}

/* In the child: a session of its own, whose terminal is standard input, output and error. */
static void start_in_terminal(const char *const *arguments, const char *name, const char *variable)
{
    const char *argv[64] = {ZIMAGE_PROGRAM};
    for (int i = 0; arguments[i]; i++)
        argv[i + 1] = arguments[i];
    static const char *const unset[] = {"KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"};
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
        unsetenv(unset[i]);
    setenv("TERM", "xterm", 1);
    if (variable)
        putenv((char *)variable);
    setsid();
    int terminal = open(name, O_RDWR); /* the first one that a session opens becomes its own */
    if (terminal < 0 || chdir(test_folder) != 0 || dup2(terminal, 0) < 0 || dup2(terminal, 1) < 0 ||
        dup2(terminal, 2) < 0)
        _exit(126);
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

static char drawn[1 << 22];

/* Runs the program on a terminal of 80 x 40 characters of 8 x 16 pixels, which gives an answer (NULL: none) to the
 * questions; what it draws is in `drawn`. */
static void run_once(const char *const *arguments, const char *answer, const char *variable)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    char name[64];
    snprintf(name, sizeof name, "%s", ptsname(master));
    int kept = open(name, O_RDWR | O_NOCTTY); /* until the child has it */
    const struct winsize size = {.ws_row = 40, .ws_col = 80, .ws_xpixel = 640, .ws_ypixel = 640};
    assert_int_equal(ioctl(kept, TIOCSWINSZ, &size), 0);
    pid_t child = fork();
    if (child == 0)
        start_in_terminal(arguments, name, variable);
    size_t length = 0;
    int asked = 0, status;
    for (ssize_t more;;) {
        if (waitpid(child, &status, WNOHANG) == child)
            break;
        struct timeval soon = {.tv_usec = 20000};
        fd_set in;
        FD_ZERO(&in);
        FD_SET(master, &in);
        if (select(master + 1, &in, NULL, NULL, &soon) <= 0)
            continue;
        if ((more = read(master, drawn + length, sizeof drawn - 1 - length)) <= 0)
            continue;
        length += (size_t)more;
        drawn[length] = 0;
        if (answer && !asked && strstr(drawn, "\033[c")) {
            asked = 1;
            assert_int_equal(write(master, answer, strlen(answer)), strlen(answer));
        }
    }
    struct timeval soon = {.tv_usec = 20000};
    fd_set in;
    FD_ZERO(&in);
    FD_SET(master, &in);
    while (select(master + 1, &in, NULL, NULL, &soon) > 0) {
        ssize_t more = read(master, drawn + length, sizeof drawn - 1 - length);
        if (more <= 0)
            break;
        length += (size_t)more;
    }
    drawn[length] = 0;
    struct termios after;
    assert_int_equal(tcgetattr(kept, &after), 0);
    assert_true((after.c_lflag & ICANON) && (after.c_lflag & ECHO)); /* as it was */
    close(kept);
    close(master);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    assert_int_equal(o.code, 0);
}

/* The same again where a busy machine lets the answer come too late. */
static void run_on_terminal(const char *const *arguments, const char *answer, const char *variable)
{
    int is_late = 1;
    for (int i = 0; i < 10 && is_late; i++) {
        run_once(arguments, answer, variable);
        is_late = answer && strcmp(answer, "\033[?1;2c") != 0 && strstr(drawn, "so nothing is shown");
    }
}

#define ON_TERMINAL                                                                                                    \
    ARGUMENTS("generate", "a", "-m", TINY, "--size", "64x48", "--steps", "6", "-s", "1", "-o", "a.png", "--show")

/* Previews are drawn while the image is made, and removed; then the image stays. */
static void kitty_shows_previews(void **state)
{
    char keys[128];
    run_on_terminal(ON_TERMINAL, "\033_Gi=31;OK\033\\\033[?62;c", NULL);
    zimage_image *made = read_image("a.png"), *shown;
    const char *at = strstr(drawn, "\033[c"), *last = NULL;
    assert_non_null(at);
    int previews = 0, images = 0;
    while ((shown = next_kitty(&at, keys))) {
        if (strstr(keys, "i=31337,p=1,C=1")) {
            previews++;
            last = at;
            assert_int_equal(images, 0);
        } else {
            expect_same(shown, made);
            images++;
        }
        zimage_image_free(shown);
    }
    assert_true(previews >= 3 && images == 1);
    assert_non_null(strstr(last, "\033_Ga=d,d=I,i=31337,q=2\033\\"));
    zimage_image_free(made);
    unlink(in_folder("a.png"));
}

static void terminals_are_found(void **state)
{
    int width, height;
    run_on_terminal(ON_TERMINAL, "\033[?62;4;22c", NULL);
    const char *image = strstr(drawn, "\033[J"); /* previews are removed; and what follows them is the image */
    uint8_t *rgb = image ? sixel_pixels(image, &width, &height) : NULL;
    assert_true(rgb && width == 64 && height == 48);
    free(rgb);
    run_on_terminal(ON_TERMINAL, NULL, "TERM_PROGRAM=iTerm.app"); /* nothing is asked */
    assert_null(strstr(drawn, "\033[c"));
    zimage_image_free(iterm2_image(drawn));
    static const char *const none[] = {"\033[?1;2c", NULL};
    for (int i = 0; i < 2; i++) {
        run_on_terminal(ON_TERMINAL, none[i], NULL);
        assert_non_null(strstr(drawn, "warning: --show: this terminal has no graphics of Kitty, iTerm2 or Sixel"));
        assert_null(strstr(drawn, "\033_Ga=T"));
        assert_null(strstr(drawn, "\033P"));
    }
    /* tmux gives its own answer, whatever the variables of the terminal around it say. */
    run_on_terminal(ARGUMENTS("generate", "a", "-m", TINY, "--size", "16x16", "--steps", "1", "-o", "a.png", "--show"),
                    "\033[?1;2c", "TERM=tmux-256color");
    assert_null(strstr(drawn, "\033_Ga=T"));
    unlink(in_folder("a.png"));
}

/* An image that is larger than the terminal is drawn in the terminal's size. */
static void large_images_fit(void **state)
{
    int width, height;
    char keys[128];
#define LARGE(protocol)                                                                                                \
    ARGUMENTS("generate", "a", "-m", TINY, "--size", "1024x512", "--steps", "1", "-o", "a.png", "-q", protocol)
    run_on_terminal(LARGE("--show=sixel"), NULL, NULL);
    uint8_t *rgb = sixel_pixels(drawn, &width, &height);
    assert_true(rgb && width == 640 && height == 320);
    free(rgb);
    run_on_terminal(LARGE("--show=kitty"), NULL, NULL);
    const char *at = drawn;
    zimage_image *shown = next_kitty(&at, keys);
    assert_int_equal(zimage_image_width(shown), 640);
    assert_int_equal(zimage_image_height(shown), 320);
    zimage_image_free(shown);
    assert_null(strstr(drawn, "i=31337")); /* no previews with -q */
    unlink(in_folder("a.png"));
}

/* Without --show, and with it where standard output is no terminal, nothing is drawn. */
static void nothing_is_drawn_unasked(void **state)
{
    run_program(ARGUMENTS("generate", "a", "-m", TINY, "--size", "16x16", "--steps", "1", "-o", "a.png", "--show"), &o);
    assert_int_equal(o.code, 0);
    assert_null(strchr(o.out, '\033'));
    assert_null(strchr(o.err, '\033'));
    assert_non_null(strstr(o.err, "warning: --show: standard output is no terminal"));
    run_on_terminal(ARGUMENTS("generate", "a", "-m", TINY, "--size", "16x16", "--steps", "1", "-o", "a.png"), NULL,
                    "KITTY_WINDOW_ID=1");
    assert_null(strstr(drawn, "\033_G"));
    assert_null(strstr(drawn, "\033[c"));
    run_program(ARGUMENTS("generate", "a", "-m", TINY, "-o", "-", "--show=kitty"), &o);
    assert_int_equal(o.code, 2);
    assert_non_null(strstr(o.err, "standard output can't hold it beside what --show draws"));
    run_program(ARGUMENTS("rerun", "a.png", "-m", TINY, "-q", "--show=iterm2"), &o);
    assert_int_equal(o.code, 0);
    zimage_image_free(iterm2_image(o.out));
    unlink(in_folder("a.png"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_protocol_shows_the_image),
        cmocka_unit_test(larger_pictures),
        cmocka_unit_test(libsixel_agrees),
        cmocka_unit_test(answers),
        cmocka_unit_test(kitty_shows_previews),
        cmocka_unit_test(terminals_are_found),
        cmocka_unit_test(large_images_fit),
        cmocka_unit_test(nothing_is_drawn_unasked),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
