# How a room, a program, a test and a benchmark are declared.

# Options that every target of ours shares; they must be identical for the precompiled header to be reused.
add_library(minwm_options INTERFACE)
target_compile_options(minwm_options INTERFACE -Wall -Wextra -Wshadow -Werror ${MINWM_CPU_FLAGS})
target_include_directories(minwm_options INTERFACE ${CMAKE_SOURCE_DIR}/include)
target_compile_definitions(minwm_options INTERFACE SPDLOG_COMPILED_LIB SPDLOG_FMT_EXTERNAL SPDLOG_SHARED_LIB
                                                   OMPI_SKIP_MPICXX)
target_link_libraries(minwm_options INTERFACE minwm_torch Threads::Threads spdlog::spdlog)
if(MINWM_SANITIZE)
  target_compile_options(minwm_options INTERFACE -fsanitize=${MINWM_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(minwm_options INTERFACE -fsanitize=${MINWM_SANITIZE})
endif()
if(MINWM_LINT)
  find_program(CLANG_TIDY clang-tidy REQUIRED)
  set(CMAKE_CXX_CLANG_TIDY ${CLANG_TIDY} --quiet)
endif()

# Two precompiled headers: tensors alone (a file then compiles in 2 s), and all of LibTorch (5 s more) for what has
# modules or autograd: a target says TORCH.
set(pch_light <algorithm> <array> <chrono> <cmath> <cstdint> <filesystem> <functional> <map> <memory> <optional> <span>
              <string> <string_view> <unordered_map> <utility> <vector> <spdlog/spdlog.h> <ATen/ATen.h>)
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/pch.cpp CONTENT "// Owns a precompiled header.\n")
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/pch_torch.cpp CONTENT "// Owns a precompiled header.\n")
foreach(pch minwm_pch minwm_pch_torch)
  string(REPLACE minwm_ "" source ${pch})
  add_library(${pch} OBJECT ${CMAKE_BINARY_DIR}/${source}.cpp)
  target_link_libraries(${pch} PUBLIC minwm_options)
endforeach()
target_precompile_headers(minwm_pch PRIVATE ${pch_light})
target_precompile_headers(minwm_pch_torch PRIVATE ${pch_light} <torch/torch.h>)

# Sets `result` to the precompiled header of a target with or without TORCH.
function(minwm_choose_pch result torch)
  set(${result} minwm_pch PARENT_SCOPE)
  if(torch)
    set(${result} minwm_pch_torch PARENT_SCOPE)
  endif()
endfunction()

# minwm_room(NAME [TORCH] SOURCES a.cpp … LINK targets…): the library minwm::NAME from src/NAME.
function(minwm_room name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;LINK;PRIVATE" ${ARGN})
  add_library(minwm_${name} STATIC ${ARG_SOURCES})
  add_library(minwm::${name} ALIAS minwm_${name})
  target_link_libraries(minwm_${name} PUBLIC minwm_options ${ARG_LINK} PRIVATE ${ARG_PRIVATE})
  minwm_choose_pch(pch ${ARG_TORCH})
  target_precompile_headers(minwm_${name} REUSE_FROM ${pch})
endfunction()

# Executables are compiled like the rooms (-fPIC, not CMake's -fPIE), or the precompiled header is refused.
function(minwm_executable name torch)
  add_executable(${name} ${ARGN})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${name} PRIVATE -fPIC)
  minwm_choose_pch(pch ${torch})
  target_precompile_headers(${name} REUSE_FROM ${pch})
endfunction()

# minwm_program(NAME [TORCH] SOURCES … LINK …): an executable in <build>/bin.
function(minwm_program name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;LINK" ${ARGN})
  minwm_executable(${name} ${ARG_TORCH} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE minwm_options ${ARG_LINK})
endfunction()

# minwm_test(NAME [TORCH] SOURCES … LINK … LABELS unit [RANKS 1 2 4]): one GoogleTest binary. Without RANKS every
# TEST is a ctest of its own; with RANKS the whole binary runs once under mpirun for each count.
function(minwm_test name)
  cmake_parse_arguments(ARG "TORCH;WHOLE" "TIMEOUT" "SOURCES;LINK;LABELS;RANKS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  minwm_executable(${name}_test ${ARG_TORCH} ${ARG_SOURCES})
  target_include_directories(${name}_test PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name}_test PRIVATE
    MINWM_TEST_DATA="${CMAKE_SOURCE_DIR}/tests/data" MINWM_SHARED_DATA="${CMAKE_SOURCE_DIR}/../shared"
    MINWM_BINARY_DIR="${CMAKE_BINARY_DIR}/bin")
  if(ARG_RANKS)
    target_link_libraries(${name}_test PRIVATE minwm_options ${ARG_LINK} minwm_mpi_test_main GTest::gtest GTest::gmock)
    foreach(ranks ${ARG_RANKS})
      add_test(NAME ${name}.ranks${ranks}
        COMMAND ${CMAKE_SOURCE_DIR}/launch/mpirun-local -n ${ranks} $<TARGET_FILE:${name}_test>)
      set_tests_properties(${name}.ranks${ranks} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
        PROCESSORS 2 SKIP_REGULAR_EXPRESSION "every test was skipped")
    endforeach()
  elseif(ARG_WHOLE)
    target_link_libraries(${name}_test PRIVATE minwm_options ${ARG_LINK} GTest::gtest_main GTest::gmock)
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} PROCESSORS 2)
  else()
    target_link_libraries(${name}_test PRIVATE minwm_options ${ARG_LINK} GTest::gtest_main GTest::gmock)
    include(GoogleTest)
    gtest_discover_tests(${name}_test TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST
      PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT OMP_NUM_THREADS=1)
  endif()
endfunction()
