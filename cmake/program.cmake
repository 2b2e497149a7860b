# The program `zimage`, with its server: both include the public header only. Its target has another name than the file,
# so that a project that includes this one may call a target of its own zimage.
pkg_check_modules(ZIMAGE_SERVER REQUIRED IMPORTED_TARGET libmicrohttpd gnutls>=3.6.3)
# Downloads need libcurl 7.85 (CURLOPT_PROTOCOLS_STR). Without it zimage pull says so; models that are in the cache are
# listed, verified and opened all the same.
option(ZIMAGE_PULL "Downloads, if libcurl is found" ON)
if(ZIMAGE_PULL)
    pkg_check_modules(ZIMAGE_HUB IMPORTED_TARGET libcurl>=7.85)
endif()
# The ledger (zimage queue, zimage work) needs PostgreSQL's libpq.
option(ZIMAGE_QUEUE "The ledger of jobs, if libpq is found" ON)
if(ZIMAGE_QUEUE)
    pkg_check_modules(ZIMAGE_LEDGER IMPORTED_TARGET libpq>=14)
endif()
file(GLOB ZIMAGE_CLI_SOURCES CONFIGURE_DEPENDS src/cli/*.c src/hub/*.c src/queue/*.c src/serve/*.c src/shared/*.c)
list(REMOVE_ITEM ZIMAGE_CLI_SOURCES ${PROJECT_SOURCE_DIR}/src/cli/main.c)
if(ZIMAGE_HUB_FOUND)
    set(left_out absent)
else()
    set(left_out connection|http|pull|transfer)
    message(STATUS "zimage pull: left out, it needs libcurl 7.85 or newer")
endif()
list(FILTER ZIMAGE_CLI_SOURCES EXCLUDE REGEX "/src/hub/(${left_out})\\.c$")
if(ZIMAGE_LEDGER_FOUND)
    if(ZIMAGE_HUB_FOUND)
        set(left_out absent|bucket_absent)
    else()
        set(left_out absent|bucket)
        message(STATUS "zimage queue: results in buckets are left out, they need libcurl 7.85 or newer")
    endif()
    list(FILTER ZIMAGE_CLI_SOURCES EXCLUDE REGEX "/src/queue/(${left_out})\\.c$")
else()
    list(FILTER ZIMAGE_CLI_SOURCES EXCLUDE REGEX "/src/queue/[^/]*\\.c$")
    list(APPEND ZIMAGE_CLI_SOURCES src/queue/absent.c)
    message(STATUS "zimage queue, zimage work: left out, they need libpq 14 or newer")
endif()
include(cmake/page.cmake)
add_library(zimage_cli STATIC ${ZIMAGE_CLI_SOURCES} ${ZIMAGE_PAGE_SOURCE})
target_compile_definitions(zimage_cli PUBLIC ZIMAGE_EXPERIMENTAL
                           PRIVATE ZIMAGE_INSTALL_MODELS="${CMAKE_INSTALL_FULL_DATADIR}/zimage/models")
target_include_directories(zimage_cli PRIVATE src)
target_link_libraries(zimage_cli PUBLIC zimage_static PkgConfig::ZIMAGE_LIBS PkgConfig::ZIMAGE_SERVER Threads::Threads
                                        m)
if(ZIMAGE_HUB_FOUND)
    target_link_libraries(zimage_cli PUBLIC PkgConfig::ZIMAGE_HUB)
endif()
if(ZIMAGE_LEDGER_FOUND)
    target_link_libraries(zimage_cli PUBLIC PkgConfig::ZIMAGE_LEDGER)
endif()
add_executable(zimage_program src/cli/main.c)
target_include_directories(zimage_program PRIVATE src)
set_target_properties(zimage_program PROPERTIES OUTPUT_NAME zimage)
target_link_libraries(zimage_program PRIVATE zimage_cli)

# Its manual page and completions, which it prints itself.
if(NOT CMAKE_CROSSCOMPILING OR CMAKE_CROSSCOMPILING_EMULATOR)
    set(ZIMAGE_PRINTED zimage.1 zimage.bash _zimage zimage.fish)
    add_custom_command(OUTPUT ${ZIMAGE_PRINTED}
                       COMMAND zimage_program help --man > zimage.1
                       COMMAND zimage_program completion bash > zimage.bash
                       COMMAND zimage_program completion zsh > _zimage
                       COMMAND zimage_program completion fish > zimage.fish
                       DEPENDS zimage_program)
    add_custom_target(zimage_printed ALL DEPENDS ${ZIMAGE_PRINTED})
endif()
