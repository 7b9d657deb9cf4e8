# troupe_isa_sources(TARGET file.cc... [VNNI file.cc...]) compiles each file once for each CPU
# instruction set, those behind VNNI also for avx512vnni, where others run their avx512 copies, with
# TROUPE_ISA naming the namespace that the copy lives in (kernels/simd/simd.h), and adds all copies
# to TARGET. Contraction is off so that only an explicit Fma fuses. GCC 12 takes the undefined
# operands inside its own AVX-512 intrinsics for mistakes of ours: -Wno-uninitialized and -Wno-
# maybe-uninitialized.

set(TROUPE_ISAS avx2 avx512 avx512vnni avx512bf16)
set(TROUPE_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(TROUPE_ISA_FLAGS_avx512 ${TROUPE_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq
    -mprefer-vector-width=512)
set(TROUPE_ISA_FLAGS_avx512vnni ${TROUPE_ISA_FLAGS_avx512} -mavx512vnni)
set(TROUPE_ISA_FLAGS_avx512bf16 ${TROUPE_ISA_FLAGS_avx512vnni} -mavx512bf16)

function(troupe_isa_sources target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "VNNI")
  foreach(isa IN LISTS TROUPE_ISAS)
    set(objects ${target}_${isa})
    set(sources ${arg_VNNI})
    if(NOT isa STREQUAL "avx512vnni")
      list(APPEND sources ${arg_UNPARSED_ARGUMENTS})
    endif()
    if(NOT sources)
      continue()
    endif()
    add_library(${objects} OBJECT ${sources})
    target_link_libraries(${objects} PRIVATE troupe_options)
    target_compile_definitions(${objects} PRIVATE TROUPE_ISA=${isa})
    target_compile_options(${objects} PRIVATE -O3 -ffp-contract=off -Wno-uninitialized
                           -Wno-maybe-uninitialized
                           ${TROUPE_ISA_FLAGS_${isa}})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
endfunction()
