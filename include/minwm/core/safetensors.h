#pragma once
// Strict safetensors reader (memory-mapped) and writer.

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm {

/// An open safetensors file. Bad header, unknown dtype, overlapping, out-of-range or wrongly sized
/// offsets, holes and truncation are Errors that name the file and the tensor.
class Safetensors {
 public:
  explicit Safetensors(const std::filesystem::path& path);
  ~Safetensors();
  Safetensors(Safetensors&&) noexcept;

  const std::map<std::string, std::string>& metadata() const;
  /// Tensor names in the order of their data.
  const std::vector<std::string>& names() const;
  bool contains(const std::string& name) const;
  std::vector<int64_t> shape(const std::string& name) const;
  at::ScalarType dtype(const std::string& name) const;
  /// A copy that owns its memory. @throws Error naming file and tensor if absent.
  at::Tensor get(const std::string& name) const;
  /// A view of the mapped file; keeps the mapping alive. Read only.
  at::Tensor view(const std::string& name) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

/// Writes `tensors` (any device, made contiguous) in the given order; atomic.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace minwm
