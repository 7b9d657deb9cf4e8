# Compiler warnings, sanitizers, ccache and the run-time search path of every target.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

add_library(troupe_options INTERFACE)
target_include_directories(troupe_options INTERFACE ${PROJECT_SOURCE_DIR})
# nvcc takes other options; cmake/TroupeCuda.cmake.
set(warnings -Wall -Wextra -Wno-unused-parameter -Wno-psabi -Wno-missing-field-initializers
    -Werror=return-type -Werror=switch -fno-omit-frame-pointer)
target_compile_options(troupe_options INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${warnings}>")
if(TROUPE_SANITIZER)
  target_compile_options(troupe_options INTERFACE -fsanitize=${TROUPE_SANITIZER}
                         -fno-sanitize-recover=all)
  target_link_options(troupe_options INTERFACE -fsanitize=${TROUPE_SANITIZER})
endif()

# The install tree may be moved as a whole: programs find their libraries beside them.
set(CMAKE_INSTALL_RPATH "$ORIGIN/../lib")
set(CMAKE_BUILD_WITH_INSTALL_RPATH OFF)
