# Libraries that the distribution provides; scripts/install-deps installs them.

find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(RocksDB CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(yaml-cpp CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
if(TROUPE_BUILD_TESTS)
  find_package(GTest CONFIG REQUIRED)
endif()
if(TROUPE_BUILD_BENCHES)
  find_package(benchmark CONFIG REQUIRED)
endif()

# Intel's ISA-L (it serves Arm as well) and RE2 come without a CMake package.
find_path(ISAL_INCLUDE_DIR isa-l/crc.h REQUIRED)
find_library(ISAL_LIBRARY isal REQUIRED)
add_library(ISAL::isal UNKNOWN IMPORTED)
set_target_properties(ISAL::isal PROPERTIES IMPORTED_LOCATION ${ISAL_LIBRARY}
                      INTERFACE_INCLUDE_DIRECTORIES ${ISAL_INCLUDE_DIR})

find_path(RE2_INCLUDE_DIR re2/re2.h REQUIRED)
find_library(RE2_LIBRARY re2 REQUIRED)
if(NOT TARGET RE2::RE2)
  add_library(RE2::RE2 UNKNOWN IMPORTED)
  set_target_properties(RE2::RE2 PROPERTIES IMPORTED_LOCATION ${RE2_LIBRARY}
                        INTERFACE_INCLUDE_DIRECTORIES ${RE2_INCLUDE_DIR})
endif()

# Debian's Gloo comes with a CMake package that names libraries of its build machine.
find_path(GLOO_INCLUDE_DIR gloo/transport/tcp/device.h REQUIRED)
find_library(GLOO_LIBRARY gloo REQUIRED)
add_library(Gloo::gloo UNKNOWN IMPORTED)
set_target_properties(Gloo::gloo PROPERTIES IMPORTED_LOCATION ${GLOO_LIBRARY}
                      INTERFACE_INCLUDE_DIRECTORIES ${GLOO_INCLUDE_DIR})
