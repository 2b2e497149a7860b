# Prints a later version of zimage.h, whose structs with a struct_size have three more fields: awk -f grow.awk zimage.h
/^#define ZIMAGE_VERSION_PATCH / { $3 = $3 + 1 }
/^typedef struct .* \{$/ { sized = 0 }
/^    uint32_t struct_size;/ { sized = 1 }
/^\} zimage_[a-z_]*;$/ {
    if (sized)
        print "    int32_t grown_number;\n    const char *grown_text;\n    uint64_t grown_size;"
    sized = 0
}
{ print }
