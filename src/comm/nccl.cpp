#include "minwm/comm/nccl.h"

#include <filesystem>
#include <utility>

#include <dlfcn.h>

#include <ATen/detail/CUDAHooksInterface.h>

#include "minwm/core/error.h"
#include "nccl_module.h"

namespace minwm::comm {

std::filesystem::path program_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

void* nccl_symbol(const std::filesystem::path& folder, const char* name) {
  const auto file = folder / "libminwm_nccl.so";
  void* const library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const symbol = library == nullptr ? nullptr : ::dlsym(library, name);
  if (symbol == nullptr) {
    const char* const reason = ::dlerror();
    fail(
        "device cuda: the NCCL library cannot be opened ({}); it is built where CUDA's and NCCL's "
        "headers are found (CMake option MINWM_CUDA)",
        reason == nullptr ? file.string() + ": no reason given" : reason);
  }
  return symbol;
}

std::shared_ptr<Communicator> make_nccl_communicator(std::shared_ptr<Communicator> mpi,
                                                     c10::Device device) {
  require(device.is_cuda(), "NCCL moves CUDA tensors, the device is {}", device.str());
  const int count = at::detail::getCUDAHooks().deviceCount();
  require(count > 0 && (!device.has_index() || device.index() < count),
          "device {}: NCCL needs a GPU, {} usable here", device.str(), count);
  const auto make = reinterpret_cast<MakeNccl>(nccl_symbol(program_folder(), kMakeNccl));
  const Watched watchdog = watched(*mpi);
  const std::unique_ptr<std::shared_ptr<Communicator>> made(
      make({std::move(mpi), device, watchdog, make_nccl_communicator}));
  return *made;
}

std::string describe_gpus() {
  std::string json;
  reinterpret_cast<DescribeGpus>(nccl_symbol(program_folder(), kDescribeGpus))(&json);
  return json;
}

}  // namespace minwm::comm
