#pragma once
// Logical checkpoints: `step-000123/` holds state.h5 (every tensor at its full shape, fp32,
// checksummed) and config.ini; it appears under its name only when complete. Nothing in it depends
// on how many ranks wrote it. Parallel HDF5, collective over the world; spec parallel 5.

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
  /// How its cache is read (models::StreamSwitches): "dual", or "rope_only" as the published HY
  /// camera checkpoints; and whether committed frames are told their actions.
  std::string camera_cache = "dual";
  bool context_action = false;
  double first_frame = 1;  ///< share of clips that gave their first latent (condition.first_frame)
  int64_t latent_height = 0, latent_width = 0, latent_frames = 0;
  double fx = 0, fy = 0;      ///< normalised intrinsics trained with
  std::string mesh;           ///< how its ranks were arranged, for readers: "replicate 1 x shard 4"
  int64_t data_position = 0;  ///< global batches drawn so far
};

/// Where a checkpoint is that was given as its folder, its run, or its state.h5.
std::filesystem::path checkpoint_folder(const std::filesystem::path& given);

/// Name → tensor groups, e.g. "model/param/blocks.0.ffn.0.weight".
using TensorMap = std::map<std::string, at::Tensor>;

/// One tensor of which this rank holds `values` = elements [begin, begin + values.numel()), in
/// row-major order, of the full `shape`. The parts of different ranks do not overlap and together
/// cover the tensor; a rank that holds nothing, or a replica that leaves the writing to others,
/// passes none (an empty tensor of the same type; undefined = float32). Types narrower than four
/// bytes are cut at whole 32-bit words. Every rank passes the same names, shapes and types.
struct Part {
  at::Tensor values;
  std::vector<int64_t> shape;
  int64_t begin = 0;
};
using PartMap = std::map<std::string, Part>;

/// Seconds that a save may take. A slow disk is no fault of the job; one that never answers is.
constexpr double kDiskPatience = 3600;

/// Writes `directory`/step-NNNNNN as step-NNNNNN.tmp, renamed once all of it is on the disk. Then
/// of the older steps all but the `keep` newest go (it counts as one), and all steps with a higher
/// number: they were left by a run that was resumed from before them. With `asynchronous`, a thread
/// writes from a copy in host memory, over a communicator of its own, while training goes on.
///
/// What fails on one rank (a full disk) is agreed on by all writers, the half-written folder is
/// removed, and every rank throws the same Error, the first failing rank's. A rank that fails
/// inside a collective call of HDF5 may leave the other writers blocked there: check() and wait()
/// then throw on every rank all the same, and the job has to end; the threads are left behind. So
/// they are by wait() when `patience` seconds were not enough (Error with exit code 75).
class CheckpointWriter {
 public:
  /// Collective over `world`. All calls are to be made by one thread.
  CheckpointWriter(std::filesystem::path directory, int64_t keep,
                   std::shared_ptr<comm::Communicator> world, bool asynchronous,
                   double patience = kDiskPatience);
  /// Waits for this rank's part of a save in flight and logs its failure; call wait() before, to
  /// hear of it. While an exception unwinds, it leaves the writing of several ranks behind: the
  /// other ranks may never come, and the job is about to be aborted.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Collective; waits for an earlier save first (and throws its failure). Asynchronous: returns
  /// once the tensors are copied (buffers are kept and used again), and they may change then.
  /// Synchronous: returns when the checkpoint is there. `whole` tensors are equal on all ranks,
  /// which share out their writing; `extra_files` (codec) are copied in.
  /// @throws Error (exit code 70) with the reason (e.g. a full disk); the older checkpoints are
  /// untouched then.
  void save(const CheckpointInfo& info, const TensorMap& whole, const PartMap& parts,
            const std::vector<std::filesystem::path>& extra_files);
  /// Collective, does not wait for the disk: throws on every rank if the save in flight failed on
  /// any. To be called at step boundaries; costs nothing while no save is in flight.
  void check();
  /// Collective: returns when the save in flight is complete, or throws as check() does.
  void wait();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The synchronous form of CheckpointWriter for tensors that all ranks hold (collective).
std::filesystem::path save_checkpoint(const std::filesystem::path& directory,
                                      const CheckpointInfo& info, const TensorMap& tensors,
                                      const std::vector<std::filesystem::path>& extra_files,
                                      int64_t keep, comm::Communicator& world);

/// An open checkpoint, read only. @throws Error naming file and dataset on anything torn, missing
/// or altered.
class Checkpoint {
 public:
  enum class Verify {
    kEachRead,  ///< read() compares the checksum of what it reads
    kSkip,      ///< for one that latest_valid_checkpoint() returned
  };
  /// `path` is a step folder, or a run folder / checkpoints folder (then the latest complete step
  /// is taken).
  explicit Checkpoint(const std::filesystem::path& path, Verify verify = Verify::kEachRead);
  ~Checkpoint();
  const CheckpointInfo& info() const;
  const std::filesystem::path& path() const;
  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  /// @throws Error naming file and dataset: absent, or its checksum is wrong.
  at::Tensor read(const std::string& name) const;
  /// The full shape; empty for a scalar.
  std::vector<int64_t> shape(const std::string& name) const;
  /// Elements [begin, begin + count) in row-major order, of which only the bytes are read: [count].
  /// No checksum covers a range: see latest_valid_checkpoint.
  at::Tensor read_range(const std::string& name, int64_t begin, int64_t count) const;
  /// The stored sum64 of every dataset, in the order of names().
  std::vector<int64_t> checksums() const;
  /// Every dataset whose name starts with `prefix`, named by the rest.
  TensorMap read_group(const std::string& prefix) const;
  /// Where the model's weights are: "model/ema/" if there are averaged ones and they are preferred,
  /// else "model/param/".
  std::string weights_group(bool prefer_ema = true) const;
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

/// The newest step folder below a run folder (or the step folder itself) of which everything is as
/// it was written, or nothing: every byte of every dataset is read, shared out over the ranks, and
/// summed. Torn or altered ones are skipped; rank 0 names file, dataset and what is wrong in one
/// warning each. Collective over `world`, of any size; the same on all ranks.
std::optional<std::filesystem::path> latest_valid_checkpoint(const std::filesystem::path& run,
                                                             comm::Communicator& world);
/// The same check of one step folder. @throws Error on every rank, naming file, dataset and what is
/// wrong.
void require_undamaged(const std::filesystem::path& step_folder, comm::Communicator& world);

}  // namespace minwm::train
