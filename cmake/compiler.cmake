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

# Link-time optimisation is for what users and benchmarks run. Objects carry both forms (fat), so that
# the many test programs link at once, and only programs that link platter_lto pay for the rest.
add_library(platter_fat_objects INTERFACE)
add_library(platter_lto INTERFACE)
if(PLATTER_LTO)
  target_compile_options(platter_fat_objects INTERFACE -flto=thin -ffat-lto-objects)
  target_link_libraries(platter_lto INTERFACE platter_fat_objects)
  target_link_options(platter_lto INTERFACE -flto=thin -ffat-lto-objects
    -Wl,--thinlto-cache-dir=${CMAKE_BINARY_DIR}/lto-cache)
endif()
