# Prints a C file that compiles if no struct with a struct_size ends in padding: awk -f padding.awk zimage.h
# A field that a later version appends would lie in such padding, which an older program does not set to zero.
BEGIN { print "#define ZIMAGE_EXPERIMENTAL\n#include \"zimage.h\"\n" }
{ text = text $0 "\n" }
END {
    while (match(text, /\/\*[^*]*\*+([^\/*][^*]*\*+)*\//))
        text = substr(text, 1, RSTART - 1) substr(text, RSTART + RLENGTH)
    count = split(text, lines, "\n")
    for (i = 1; i <= count; i++) {
        line = lines[i]
        if (line ~ /uint32_t struct_size;/)
            sized = 1
        if (line ~ /^\} zimage_[a-z_]*;/ && sized) {
            gsub(/[} ;]/, "", line)
            printf "_Static_assert(offsetof(%s, %s) + sizeof(((%s *)0)->%s) ==", line, last, line, last
            printf " sizeof(%s),\n               \"%s ends in padding\");\n", line, line
            sized = 0
        } else if (line ~ /;[ ]*$/) {
            last = line
            sub(/(\[[^]]*\])*;[ ]*$/, "", last)
            sub(/^.*[ *]/, "", last)
        }
    }
}
