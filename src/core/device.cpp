#include "minwm/core/device.h"

#include <dlfcn.h>

#include <ATen/Context.h>
#include <ATen/cpu/Utils.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "minwm/core/error.h"

namespace minwm {

c10::Device open_device(const std::string& name, int local_rank) {
  if (name == "cpu") {
    return c10::Device(c10::kCPU);
  }
  require(name == "cuda", "device '{}': expected cpu or cuda", name);
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = ::dlerror();
    fail("device cuda: LibTorch's CUDA library cannot be opened ({}); use --device cpu",
         reason == nullptr ? "no reason given" : reason);
  }
  const int count = at::detail::getCUDAHooks().deviceCount();
  require(count > 0, "device cuda: no usable GPU on this machine; use --device cpu");
  require(local_rank < count, "device cuda: rank {} of this host needs a GPU of its own, {} found",
          local_rank, count);
  at::globalContext().lazyInitDevice(c10::kCUDA);
  const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(local_rank));
  c10::impl::getDeviceGuardImpl(c10::kCUDA)->setDevice(device);
  return device;
}

bool has_native_bfloat16(const c10::Device& device) {
  if (!device.is_cpu()) {
    return true;
  }
  static const bool found = [] {
    const auto capabilities = at::cpu::get_cpu_capabilities();
    auto has = [&](const char* name) {
      const auto entry = capabilities.find(name);
      return entry != capabilities.end() && entry->second.isBool() && entry->second.toBool();
    };
    return has("avx512_bf16") || has("amx_bf16");
  }();
  return found;
}

}  // namespace minwm
