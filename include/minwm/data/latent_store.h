#pragma once
// The latent store: one HDF5 file with latents, cameras, captions and text states of many clips,
// written in parallel and resumably, every sample checksummed.
//
// Format "minwm-latents", version 1: root attributes format, version, codec, provenance,
// pixel_height, pixel_width, in ODE stores ode_sigmas (text, comma separated); one row per slot in
//   latents          [N, T, C, h, w] float16, one chunk per slot
//   world_to_camera  [N, T, 4, 4] float32
//   intrinsics       [N, 3, 3] float32
//   text             [N, L, E] float32, float16 or bfloat16 (absent without text)
//   ode_states       [N, S + 2, T, C, h, w] float16, one chunk per slot (ODE stores only)
//   sample_id        [N, 128] bytes, zero padded
//   about            [N, 4096] bytes: JSON {caption, trajectory, source}, in ODE stores also
//                    {given}, or {reason} of a failure
//   checksum         [N] int64: hash of a slot's row in all of the above
//   state            [N] uint8: 0 nothing yet, 1 done, 2 failed; written last
//
// A killed writer leaves FILE.partial, whose done slots are right. Source: spec
// data-camera-eval 10.7, parallel 5.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/comm/communicator.h"
#include "minwm/data/batch.h"

namespace minwm::data {

/// What every sample of a store shares.
struct StoreLayout {
  int64_t frames = 0, channels = 0, height = 0, width = 0;  ///< latent shape [T, C, h, w]
  int64_t text_tokens = 0, text_dim = 0;                    ///< both 0 = no text states
  int64_t pixel_height = 0, pixel_width = 0;
  std::string codec;                      ///< name + content hash of the codec
  std::string provenance;                 ///< JSON: program version, command, options
  at::ScalarType text_type = at::kFloat;  ///< kFloat, kHalf or kBFloat16
  /// ODE stores (minwm data ode-pairs): the S noise levels at which the teacher's trajectory was
  /// kept, descending from 1; its endpoint and the real clip follow. Empty = no trajectories.
  std::vector<double> ode_sigmas = {};
};

/// "latents 5x16x8x8, text 6x32, 64x64 pixels, codec analytic-…[, ODE states at sigma 1, 0.9375,
/// …]": all that must agree between stores that are read together. Not the provenance.
std::string describe(const StoreLayout& layout);

/// A slot whose sample could not be made.
struct FailedSample {
  std::string sample_id;
  std::string reason;
};

/// Random access to a finished (or, under its name .partial, partly written) store. Needs no MPI;
/// every rank opens it for itself. Thread-safe.
class LatentStore {
 public:
  /// @throws Error naming file and reason: not a store, another format version, truncated.
  explicit LatentStore(const std::filesystem::path& path);
  ~LatentStore();
  const std::filesystem::path& path() const;
  const StoreLayout& layout() const;
  /// Complete samples; indices below are 0 … size() - 1 in sample-id order.
  int64_t size() const;
  /// Slots of the file: complete + failed + not yet written.
  int64_t capacity() const;
  /// What failed, in slot order; such slots are not among the samples.
  std::vector<FailedSample> failures() const;
  const std::string& sample_id(int64_t index) const;
  /// @throws Error naming file and sample if the checksum is wrong or the sample is not valid
  /// (spec 10.7).
  Clip read(int64_t index) const;
  /// Captions only (no latents).
  std::string caption(int64_t index) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Creates or reopens a store for `capacity` samples (collective). Slots already complete are kept:
/// a killed writer continues where it was. Each rank writes its own slots; a slot counts only once
/// its checksum is in.
///
///   LatentStoreWriter writer("train.h5", layout, clips.size(), world);
///   for (int64_t i = world->rank(); i < clips.size(); i += world->size())
///     if (!writer.complete(i, clips[i].id)) writer.write(i, encode(clips[i]));
///   writer.close();
class LatentStoreWriter {
 public:
  /// Reopening checks the checksum of every complete slot, shared among the ranks, and forgets
  /// those that are wrong (a lost node) or failed (they are tried again). A finished store reopens
  /// too: all its slots are complete, and it takes no more.
  /// @throws Error on all ranks: FILE or FILE.partial exists with another layout, codec or
  /// capacity, or is being written by another job.
  LatentStoreWriter(const std::filesystem::path& path, const StoreLayout& layout, int64_t capacity,
                    std::shared_ptr<comm::Communicator> communicator);
  /// Without close(): keeps FILE.partial as it is.
  ~LatentStoreWriter();
  /// True if the slot needs no work. As of opening, plus what this rank has written since.
  /// @throws Error if the slot holds a sample of another id than expected ("" = any).
  bool complete(int64_t slot, const std::string& expected_id = "") const;
  /// Stores a clip: shapes as the layout says, valid by spec 10.7. Independent of other ranks.
  /// @throws Error naming file and sample; the slot stays as it was, unless the disk is full.
  void write(int64_t slot, const Clip& clip);
  /// Records that a sample could not be made, and why.
  void mark_failed(int64_t slot, const std::string& sample_id, const std::string& reason);
  /// Flushes and closes (collective); publishes the file under its final name when every slot is
  /// done or failed. True if it is there now.
  bool close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::data
