# Flags that make faults of memory harder to use for an attack, where the compiler takes them. Model files come from
# strangers. Sanitizers have checks of their own, which these flags would hide.
include(CheckCCompilerFlag)
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
if(NOT ZIMAGE_SANITIZE)
    foreach(flag -fstack-protector-strong -fstack-clash-protection -fcf-protection)
        string(MAKE_C_IDENTIFIER "ZIMAGE_HAS${flag}" has_flag)
        check_c_compiler_flag("-Werror ${flag}" ${has_flag})
        if(${has_flag})
            add_compile_options("$<$<COMPILE_LANGUAGE:C>:${flag}>")
        endif()
    endforeach()
    # It needs optimization. Some compilers define it themselves.
    add_compile_options("$<$<AND:$<COMPILE_LANGUAGE:C>,$<NOT:$<CONFIG:Debug>>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>")
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        add_link_options(LINKER:-z,relro LINKER:-z,now)
    endif()
endif()
