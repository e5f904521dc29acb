#pragma once
// Weights in one safetensors file, or in several ("shards") under an index, as model hubs publish
// them: `model.safetensors.index.json` = {"metadata": {"total_size": bytes}, "weight_map":
// {tensor: shard file}}.

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/core/safetensors.h"

namespace minwm {

/// Open shards. They are mapped, not read: a tensor's bytes are read when it is looked at.
/// Whatever is wrong with any shard is found when the index is opened.
class ShardedSafetensors {
 public:
  /// `path`: a .safetensors file, or an index (.json) beside its shards.
  /// @throws Error naming the file: no such file; an index without weight_map; a shard's name that
  /// is not a plain file name; a shard that is missing, truncated or damaged; a tensor that the
  /// index lists and its shard lacks, or that a shard holds and the index does not list there.
  explicit ShardedSafetensors(const std::filesystem::path& path);

  /// Tensor names, sorted.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(const std::string& name) const { return place_.contains(name); }
  std::vector<int64_t> shape(const std::string& name) const;
  at::ScalarType dtype(const std::string& name) const;
  /// A view of the mapped shard; keeps the mapping alive. Read only.
  at::Tensor view(const std::string& name) const;
  /// Of the first shard.
  const std::map<std::string, std::string>& metadata() const { return shards_.front().metadata(); }
  size_t shard_count() const { return shards_.size(); }

 private:
  const Safetensors& shard_of(const std::string& name) const;
  std::string file_;
  std::vector<Safetensors> shards_;
  std::map<std::string, size_t> place_;
  std::vector<std::string> names_;
};

/// What a tensor to be written looks like.
struct TensorEntry {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
};

struct ShardOptions {
  std::string stem = "model";  ///< STEM.safetensors, or STEM-00001-of-00002.safetensors …
  int64_t max_shard_size = 0;  ///< bytes of tensors in one file; 0 = no limit. A larger tensor gets
                               ///< a file of its own
  std::map<std::string, std::string> metadata = {};
};

/// Writes `entries` in their order into `folder`; `read(i)` gives entry i, one at a time (any
/// device and strides, the dtype and shape of the entry), so no more than one is in memory. One
/// file if all fit, else shards and STEM.safetensors.index.json. Nothing appears under its final
/// name before everything is written, the index last.
/// @return the file to open: the only one, or the index.
/// @throws Error naming file and reason; a tensor that is not as its entry says.
std::filesystem::path write_sharded_safetensors(const std::filesystem::path& folder,
                                                const std::vector<TensorEntry>& entries,
                                                const std::function<at::Tensor(size_t)>& read,
                                                const ShardOptions& options);

}  // namespace minwm
