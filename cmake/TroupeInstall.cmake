# `cmake --install build/release --prefix DIR --strip` gives a tree that runs wherever it is put:
# programs, and beside them every shared library they need but glibc's own, which belongs to the
# kernel and the loader of the machine. `cpack` makes a tarball of it.

install(FILES LICENSE DESTINATION share/troupe)
install(DIRECTORY proto/troupe DESTINATION share/troupe/proto FILES_MATCHING PATTERN *.proto)
# What runs; what trained and measures the model stays in the source tree.
install(DIRECTORY models/abacus DESTINATION share/troupe/models
        PATTERN train EXCLUDE PATTERN eval EXCLUDE)

# troupe_program adds each program to this set.
install(RUNTIME_DEPENDENCY_SET troupe_dependencies
        PRE_EXCLUDE_REGEXES
          [[^ld-linux]] [[^lib(c|m|mvec|pthread|rt|dl|resolv|util|anl|nsl)\.so\.]]
          [[^lib(cuda|cublas|cublasLt|nccl)\.so]]
        LIBRARY DESTINATION lib)

# The distribution's libraries look for each other where the distribution put them: RUNPATH is not
# inherited, so each of them needs its own.
find_program(PATCHELF_PROGRAM patchelf)
install(CODE "set(patchelf \"${PATCHELF_PROGRAM}\")")
install(CODE [[
  if(NOT patchelf)
    message(FATAL_ERROR "patchelf: not found; it makes the tree movable: scripts/install-deps")
  endif()
  file(GLOB libraries "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib/*.so*")
  foreach(library IN LISTS libraries)
    if(NOT IS_SYMLINK "${library}")
      execute_process(COMMAND "${patchelf}" --set-rpath "$ORIGIN" "${library}"
                      COMMAND_ERROR_IS_FATAL ANY)
    endif()
  endforeach()
]])

# Packing takes what is built: it does not build tests and benches first.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)
set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_NAME troupe)
set(CPACK_PACKAGE_VENDOR Troupe)
set(CPACK_PACKAGE_FILE_NAME troupe-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_PACKAGE_CHECKSUM SHA256)
set(CPACK_STRIP_FILES ON)
include(CPack)
