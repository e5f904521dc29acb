// libminwm_nccl.so: the GPUs of this host, for minwm doctor.

#include <string>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "nccl_module.h"

namespace minwm::comm {
namespace {

void check_cuda(cudaError_t code, const char* call) {
  require(code == cudaSuccess, "{}: {}", call, cudaGetErrorString(code));
}

}  // namespace
}  // namespace minwm::comm

extern "C" __attribute__((visibility("default"))) void minwm_describe_gpus(std::string* json) {
  using minwm::comm::check_cuda;
  int count = 0, driver = 0, runtime = 0, nccl = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  ncclGetVersion(&nccl);
  nlohmann::ordered_json report = {{"driver", driver},
                                   {"runtime", runtime},
                                   {"nccl", nccl},
                                   {"gpus", nlohmann::ordered_json::array()}};
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    auto peers = nlohmann::ordered_json::array();
    for (int other = 0; other < count; ++other) {
      int reachable = 0;
      if (other != index) {
        check_cuda(cudaDeviceCanAccessPeer(&reachable, index, other), "cudaDeviceCanAccessPeer");
      }
      if (reachable != 0) {
        peers.push_back(other);
      }
    }
    report["gpus"].push_back(
        {{"index", index},
         {"name", properties.name},
         {"memory_gib", static_cast<double>(properties.totalGlobalMem) / (1 << 30)},
         {"peers", peers}});
  }
  *json = report.dump();
}
