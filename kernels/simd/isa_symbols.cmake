# cmake -DNM=... -DNAMESPACE=troupe::avx2 -DOBJECTS=a.o;b.o -P isa_symbols.cmake
#
# Fails when an object that was compiled for one instruction set defines a symbol outside of its
# namespace: the linker might take that copy for the whole program, which would then die on a CPU
# without those instructions.
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --demangle --defined-only --extern-only ${object}
                  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE ";" "," symbols "${symbols}")
  string(REGEX REPLACE "\n" ";" symbols "${symbols}")
  foreach(symbol IN LISTS symbols)
    if(NOT symbol STREQUAL "" AND NOT symbol MATCHES "${NAMESPACE}::")
      message(SEND_ERROR "${object} defines${symbol}: keep it out of sources compiled for "
                         "${NAMESPACE}, or always inline it")
    endif()
  endforeach()
endforeach()
