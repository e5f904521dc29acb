#pragma once
// What every backend checks before it starts a collective.

#include <numeric>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/core/error.h"

namespace minwm::comm {

inline void check_tensor(const at::Tensor& tensor, const char* op, std::string_view what,
                         at::DeviceType device = at::kCPU) {
  require(tensor.defined(), "{} '{}': the tensor is undefined", op, what);
  require(tensor.device().type() == device, "{} '{}': {} tensors, this one is on {}", op, what,
          device == at::kCPU ? "MPI moves CPU" : "NCCL moves CUDA", tensor.device().str());
  require(tensor.is_contiguous(), "{} '{}': the tensor is not contiguous", op, what);
}

inline void check_root(int root, int size, const char* op, std::string_view what) {
  require(root >= 0 && root < size, "{} '{}': root {} of {} ranks", op, what, root, size);
}

/// `full` must hold `size` times what `shard` holds, in the same dtype.
inline void check_shard(const at::Tensor& shard, const at::Tensor& full, int size, const char* op,
                        std::string_view what, at::DeviceType device = at::kCPU) {
  check_tensor(shard, op, what, device);
  check_tensor(full, op, what, device);
  require(shard.scalar_type() == full.scalar_type(), "{} '{}': shard is {}, full is {}", op, what,
          c10::toString(shard.scalar_type()), c10::toString(full.scalar_type()));
  require(full.numel() == shard.numel() * size,
          "{} '{}': full holds {} elements, expected {} ranks x {}", op, what, full.numel(), size,
          shard.numel());
}

inline void check_counts(const at::Tensor& tensor, const std::vector<int64_t>& counts, int size,
                         const char* op, std::string_view what, at::DeviceType device = at::kCPU) {
  check_tensor(tensor, op, what, device);
  require(static_cast<int>(counts.size()) == size, "{} '{}': {} counts for {} ranks", op, what,
          counts.size(), size);
  for (const int64_t count : counts) {
    require(count >= 0, "{} '{}': a count is {}", op, what, count);
  }
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  require(total == tensor.numel(), "{} '{}': counts add up to {}, the tensor holds {} elements", op,
          what, total, tensor.numel());
}

/// Every tensor is received into one of its shape and type.
inline void check_ring(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& recv,
                       const char* op, std::string_view what, at::DeviceType device = at::kCPU) {
  require(send.size() == recv.size(), "{} '{}': sends {} tensors, receives {}", op, what,
          send.size(), recv.size());
  for (size_t i = 0; i < send.size(); ++i) {
    check_shard(send[i], recv[i], 1, op, what, device);
  }
}

}  // namespace minwm::comm
