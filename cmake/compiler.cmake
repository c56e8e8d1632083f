# One compiler, one set of flags: every target links platter_options.

if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
  message(FATAL_ERROR "Platter is built with clang-19 (use ./dev build, or a CMake preset)")
endif()

find_program(PLATTER_CCACHE ccache)
if(PLATTER_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${PLATTER_CCACHE})
endif()

add_library(platter_options INTERFACE)
target_compile_options(platter_options INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wunused -Wimplicit-fallthrough
  -fno-omit-frame-pointer -ftls-model=initial-exec)
target_compile_definitions(platter_options INTERFACE _FILE_OFFSET_BITS=64 _GNU_SOURCE)
target_include_directories(platter_options INTERFACE
  ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_link_options(platter_options INTERFACE -fuse-ld=lld)

if(PLATTER_SANITIZE)
  target_compile_options(platter_options INTERFACE
    -fsanitize=${PLATTER_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(platter_options INTERFACE -fsanitize=${PLATTER_SANITIZE})
endif()

if(PLATTER_FUZZ)
  target_compile_options(platter_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(PLATTER_LTO)
  target_compile_options(platter_options INTERFACE -flto=thin)
  target_link_options(platter_options INTERFACE -flto=thin
    -Wl,--thinlto-cache-dir=${CMAKE_BINARY_DIR}/lto-cache)
endif()
