# The web page: the files of src/serve/page, compressed by gzip, as arrays of C. Where the build runs this file as a
# script, it writes that source: cmake -DGZIP=... -DOUTPUT=page_files.c "-DFILES=A;B" -P page.cmake
if(CMAKE_SCRIPT_MODE_FILE)
    set(table "")
    set(arrays "#include \"serve/page.h\"\n")
    set(number 0)
    foreach(file IN LISTS FILES)
        get_filename_component(name ${file} NAME)
        set(compressed ${OUTPUT}.gz)
        # -n: without the file's name and time, so that the same files give the same bytes.
        execute_process(COMMAND ${GZIP} -9nc ${file} OUTPUT_FILE ${compressed} COMMAND_ERROR_IS_FATAL ANY)
        file(SHA256 ${compressed} hash)
        string(SUBSTRING ${hash} 0 32 hash)
        file(READ ${compressed} bytes HEX)
        file(SIZE ${file} size)
        string(LENGTH ${bytes} length)
        math(EXPR length "${length} / 2")
        string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
        string(APPEND arrays "static const unsigned char file_${number}[] = {${bytes}};\n")
        string(APPEND table "    {\"${name}\", \"W/\\\"${hash}\\\"\", file_${number}, ${length}, ${size}},\n")
        math(EXPR number "${number} + 1")
    endforeach()
    file(REMOVE ${compressed})
    file(WRITE ${OUTPUT} "${arrays}const page_file page_files[] = {\n${table}};\n"
                         "const size_t page_file_count = ${number};\n")
    return()
endif()

find_program(ZIMAGE_GZIP gzip REQUIRED)
file(GLOB ZIMAGE_PAGE CONFIGURE_DEPENDS src/serve/page/*)
set(ZIMAGE_PAGE_SOURCE ${PROJECT_BINARY_DIR}/page_files.c)
add_custom_command(OUTPUT ${ZIMAGE_PAGE_SOURCE}
                   COMMAND ${CMAKE_COMMAND} -DGZIP=${ZIMAGE_GZIP} -DOUTPUT=${ZIMAGE_PAGE_SOURCE}
                           "-DFILES=${ZIMAGE_PAGE}" -P ${CMAKE_CURRENT_LIST_FILE}
                   DEPENDS ${ZIMAGE_PAGE} ${CMAKE_CURRENT_LIST_FILE} VERBATIM)
