# Every dependency, with a message that says which package gives it.

# --- LibTorch: the official archive through CMAKE_PREFIX_PATH, or the wheel that launch/build put in .deps/.
# Not find_package(Torch): its config probes the CUDA toolkit and a GPU even for a CPU build.
file(GLOB _minwm_wheels ${CMAKE_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch)
find_path(MINWM_TORCH_ROOT NAMES include/torch/csrc/api/include/torch/torch.h include/ATen/ATen.h
          HINTS ${_minwm_wheels} PATH_SUFFIXES libtorch DOC "LibTorch folder (holds include/ and lib/)")
if(NOT MINWM_TORCH_ROOT)
  message(FATAL_ERROR "LibTorch not found: run launch/build (installs the PyPI wheel torch into .deps/), "
                      "or point CMAKE_PREFIX_PATH at an unpacked LibTorch 2.11")
endif()
file(STRINGS ${MINWM_TORCH_ROOT}/include/torch/headeronly/version.h _torch_version
     REGEX "#define TORCH_VERSION_(MAJOR|MINOR)")
string(REGEX REPLACE "[^0-9;]" "" _torch_version "${_torch_version}")
list(JOIN _torch_version "." _torch_version)
if(_torch_version AND _torch_version VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch ${_torch_version} in ${MINWM_TORCH_ROOT} is too old: 2.11 or newer is needed")
endif()
# spdlog uses the system's fmt; LibTorch ships another version under the same name that must not shadow it.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt-first)
file(CREATE_LINK /usr/include/fmt ${CMAKE_BINARY_DIR}/fmt-first/fmt SYMBOLIC)
add_library(minwm_torch INTERFACE)
target_include_directories(minwm_torch SYSTEM BEFORE INTERFACE ${CMAKE_BINARY_DIR}/fmt-first)
target_include_directories(minwm_torch SYSTEM INTERFACE
  ${MINWM_TORCH_ROOT}/include ${MINWM_TORCH_ROOT}/include/torch/csrc/api/include)
target_link_directories(minwm_torch INTERFACE ${MINWM_TORCH_ROOT}/lib)
# libtorch_cuda is opened at run time when a CUDA device is asked for (core/device.h): CPU programs start in
# a fraction of the time, and one binary serves both.
target_link_libraries(minwm_torch INTERFACE torch_cpu c10)
target_link_options(minwm_torch INTERFACE -Wl,-rpath,${MINWM_TORCH_ROOT}/lib)

function(minwm_need variable package)
  if(NOT ${variable})
    message(FATAL_ERROR "${package} is missing: install it with launch/build or 'apt-get install ${package}'")
  endif()
endfunction()

find_package(Threads REQUIRED)
find_package(MPI COMPONENTS CXX)
minwm_need(MPI_CXX_FOUND "libopenmpi-dev openmpi-bin")
set(HDF5_PREFER_PARALLEL ON)
find_package(HDF5 COMPONENTS C)
minwm_need(HDF5_FOUND libhdf5-openmpi-dev)
minwm_need(HDF5_IS_PARALLEL libhdf5-openmpi-dev)
find_package(spdlog QUIET)
minwm_need(spdlog_FOUND libspdlog-dev)
find_package(Boost COMPONENTS program_options)
minwm_need(Boost_FOUND libboost-program-options-dev)
find_package(nlohmann_json QUIET)
minwm_need(nlohmann_json_FOUND nlohmann-json3-dev)
find_package(OpenCV QUIET COMPONENTS core imgproc imgcodecs video calib3d)
minwm_need(OpenCV_FOUND libopencv-dev)
find_package(PkgConfig)
minwm_need(PKG_CONFIG_FOUND pkg-config)
pkg_check_modules(FFMPEG IMPORTED_TARGET libavcodec libavformat libavutil libswscale)
minwm_need(FFMPEG_FOUND "libavcodec-dev libavformat-dev libavutil-dev libswscale-dev")
find_package(ICU QUIET COMPONENTS uc i18n)  # Unicode normalisation and classes of the tokenizers
minwm_need(ICU_FOUND libicu-dev)
find_path(LMDB_INCLUDE_DIR lmdb.h)
find_library(LMDB_LIBRARY lmdb)
minwm_need(LMDB_INCLUDE_DIR liblmdb-dev)
minwm_need(LMDB_LIBRARY liblmdb-dev)
add_library(minwm_lmdb INTERFACE)
target_include_directories(minwm_lmdb SYSTEM INTERFACE ${LMDB_INCLUDE_DIR})
target_link_libraries(minwm_lmdb INTERFACE ${LMDB_LIBRARY})
if(MINWM_TESTS)
  find_package(GTest QUIET)
  minwm_need(GTest_FOUND "libgtest-dev libgmock-dev")
endif()
if(MINWM_BENCH)
  find_package(benchmark QUIET)
  minwm_need(benchmark_FOUND libbenchmark-dev)
endif()
