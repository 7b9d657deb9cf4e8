# `cmake --install` gives a tree that runs wherever it is put; `cpack` makes a tarball of it.

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_NAME troupe)
set(CPACK_PACKAGE_VENDOR Troupe)
include(CPack)
