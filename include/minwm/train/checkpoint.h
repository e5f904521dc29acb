#pragma once
// Logical checkpoints: `step-000123/` holds state.h5 (every tensor at its full shape, fp32,
// checksummed) and config.ini; it appears under its name only when complete. Parallel HDF5,
// collective over the world.

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <torch/torch.h>

#include "minwm/comm/communicator.h"

namespace minwm::train {

/// What a checkpoint records besides tensors. Whoever loads one can tell what it is for.
struct CheckpointInfo {
  int64_t step = 0;
  uint64_t seed = 0;
  std::string model;    ///< preset name
  std::string stage;    ///< "bidirectional", "teacher-forcing", …
  std::string config;   ///< the resolved INI
  std::string codec;    ///< path of the codec file relative to the checkpoint ("codec.safetensors")
  std::string sampler;  ///< solver: "euler", "renoise", "unipc", "dpm++"
  std::vector<double> step_list;              ///< few-step timesteps before the shift
  std::vector<double> first_chunk_step_list;  ///< of a chunk without a past; empty = step_list
  double guidance = 1;                        ///< guidance scale it is sampled with; 1 = off
  double context_noise = 0;  ///< timestep at which generated chunks are committed to the cache
  double shift = 0;
  int64_t chunk_frames = 0;
  int64_t window_frames = 0, sink_frames = 0;  ///< attention window of its rollouts; 0 = the clip
  int64_t latent_height = 0, latent_width = 0, latent_frames = 0;
  double fx = 0, fy = 0;  ///< normalised intrinsics trained with
};

/// Name → tensor groups, e.g. "model/param/blocks.0.ffn.0.weight".
using TensorMap = std::map<std::string, at::Tensor>;

/// Writes `directory`/step-NNNNNN (collective; every rank passes the same tensors and writes a
/// share of them) as step-NNNNNN.tmp, which is renamed once it is on the disk. Extra files (codec)
/// are copied in. Then prunes to the `keep` newest. @throws Error with the reason (e.g. a full
/// disk); the older checkpoints are untouched then.
std::filesystem::path save_checkpoint(const std::filesystem::path& directory,
                                      const CheckpointInfo& info, const TensorMap& tensors,
                                      const std::vector<std::filesystem::path>& extra_files,
                                      int64_t keep, comm::Communicator& world);

/// An open checkpoint, read only. @throws Error naming file and dataset on anything torn, missing
/// or altered.
class Checkpoint {
 public:
  /// `path` is a step folder, or a run folder / checkpoints folder (then the latest valid step is
  /// taken).
  explicit Checkpoint(const std::filesystem::path& path);
  ~Checkpoint();
  const CheckpointInfo& info() const;
  const std::filesystem::path& path() const;
  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  /// @throws Error naming file and dataset: absent, or its checksum is wrong.
  at::Tensor read(const std::string& name) const;
  /// Every dataset whose name starts with `prefix`, named by the rest.
  TensorMap read_group(const std::string& prefix) const;
  /// Strictly loads "model/<kind>/…" (kind "ema" if present and preferred, else "param") into a
  /// module.
  void load_model(torch::nn::Module& model, bool prefer_ema = true) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The newest complete step folder below a run folder, or nothing. Torn ones are named in a warning
/// and skipped.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& run);

}  // namespace minwm::train
