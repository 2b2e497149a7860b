/* What a terminal can do: its size, and whether and how it shows pictures. */
#ifndef ZI_CLI_TERMINAL_H
#define ZI_CLI_TERMINAL_H

/* The ways in which terminals take pictures. The first is none of them: it asks for the terminal's own. */
typedef enum terminal_protocol {
    TERMINAL_AUTO,
    TERMINAL_KITTY,  /* Kitty's graphics protocol: Kitty, Ghostty, Konsole, WezTerm */
    TERMINAL_ITERM2, /* iTerm2's inline images: iTerm2, mintty, VS Code */
    TERMINAL_SIXEL,  /* DEC's sixels: xterm -ti 340, foot, mlterm, Windows Terminal */
    TERMINAL_NONE,   /* it shows no pictures */
} terminal_protocol;

/* In characters and pixels. What the terminal does not say: pixels are 0, characters as many as most have. */
typedef struct terminal_size {
    int columns, rows, width, height;
} terminal_size;

terminal_size terminal_get_size(int fd);

/* Whether fd is a terminal that understands cursor movements. */
int terminal_is_one(int fd);

/*
 * The protocol of the terminal at fd: by its variables, else by asking it, for at most a quarter of a second. Only a
 * program in the foreground asks. TERMINAL_NONE: it has none, or fd is no terminal.
 */
terminal_protocol terminal_find(int fd);

/* What an answer to the questions means, which terminal_find sends; TERMINAL_AUTO: the answer is not complete. */
terminal_protocol terminal_read_answer(const char *answer);

#endif
