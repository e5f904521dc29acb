#pragma once
// Between the programs and the library that holds NCCL: what one asks and the other answers.

#include <filesystem>
#include <memory>
#include <string>

#include <c10/core/Device.h>

#include "minwm/comm/communicator.h"
#include "mpi_communicator.h"

namespace minwm::comm {

/// All that the library needs of the program. It holds a copy of this room's code, so objects of
/// the program's own classes are recognised (watched) on the program's side.
struct NcclSetup {
  std::shared_ptr<Communicator> mpi;
  c10::Device device;
  Watched watched;
  /// make_nccl_communicator, for splits.
  std::shared_ptr<Communicator> (*make)(std::shared_ptr<Communicator>, c10::Device);
};

/// What the library exports under this name, and its version.
/// The caller takes the result.
using MakeNccl = std::shared_ptr<Communicator>* (*)(const NcclSetup& setup);
constexpr const char* kMakeNccl = "minwm_make_nccl";
using NcclVersion = int (*)();
constexpr const char* kNcclVersion = "minwm_nccl_version";
using DescribeGpus = void (*)(std::string* json);
constexpr const char* kDescribeGpus = "minwm_describe_gpus";

/// The function `name` of libminwm_nccl.so in `folder`, which stays open.
/// @throws Error naming the file and the linker's reason.
void* nccl_symbol(const std::filesystem::path& folder, const char* name);
/// The folder of the running program.
std::filesystem::path program_folder();

}  // namespace minwm::comm
