# CUDA where there is a compiler of release 13 or later, for Hopper GPUs (sm_90a). Programs hold the
# CUDA runtime and open cuBLASLt when they start, so that one build runs with and without a GPU.
#
# TROUPE_CUDA: AUTO takes what it finds, ON insists, OFF leaves CUDA out. A compiler is looked for
# in $CUDACXX, on the PATH, in /usr/local/cuda and where scripts/install-cuda puts one.

set(TROUPE_CUDA AUTO CACHE STRING "AUTO, ON or OFF")
set_property(CACHE TROUPE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(TROUPE_HAS_CUDA OFF)

if(TROUPE_CUDA AND NOT TROUPE_SANITIZER)
  find_program(TROUPE_NVCC nvcc
               HINTS ENV CUDACXX
               PATHS /usr/local/cuda/bin ${PROJECT_SOURCE_DIR}/.deps/cuda/nvidia/cu13/bin)
  if(TROUPE_NVCC)
    execute_process(COMMAND ${TROUPE_NVCC} --version OUTPUT_VARIABLE version ERROR_QUIET)
    string(REGEX MATCH "release ([0-9]+)\\.[0-9]+" release "${version}")
    if(release AND CMAKE_MATCH_1 GREATER_EQUAL 13)
      set(TROUPE_HAS_CUDA ON)
    endif()
  endif()
endif()
if(TROUPE_CUDA STREQUAL "ON" AND NOT TROUPE_HAS_CUDA)
  message(FATAL_ERROR "TROUPE_CUDA is ON and no nvcc of release 13 or later was found; "
                      "scripts/install-cuda installs one")
endif()

if(TROUPE_HAS_CUDA)
  message(STATUS "CUDA: ${TROUPE_NVCC}")
  set(CMAKE_CUDA_COMPILER ${TROUPE_NVCC})
  # Named below: CMake 3.25 does not know all that nvcc 13 does, nor its newest standard.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  if(CCACHE_PROGRAM)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  endif()
endif()

# troupe_cuda_sources(TARGET file.cu...)
function(troupe_cuda_sources target)
  target_sources(${target} PRIVATE ${ARGN})
  set(options -gencode=arch=compute_90a,code=sm_90a --expt-relaxed-constexpr -lineinfo
      -Xcompiler=-Wall,-Wno-unused-parameter)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${options}>")
  target_link_libraries(${target} PRIVATE ${CMAKE_DL_LIBS})
endfunction()
