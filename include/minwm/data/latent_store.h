#pragma once
// The latent store: one HDF5 file with latents, cameras, captions and text states of many clips, written in
// parallel and resumably, every sample checksummed.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "minwm/comm/communicator.h"
#include "minwm/data/batch.h"

namespace minwm::data {

/// What every sample of a store shares.
struct StoreLayout {
  int64_t frames = 0, channels = 0, height = 0, width = 0;  ///< latent shape [T, C, h, w]
  int64_t text_tokens = 0, text_dim = 0;
  int64_t pixel_height = 0, pixel_width = 0;
  std::string codec;       ///< name + content hash of the codec
  std::string provenance;  ///< JSON: program version, command, options
};

/// Random access to a finished (or partly written) store. Thread-safe.
class LatentStore {
 public:
  /// @throws Error naming file and reason: not a store, another format version, truncated.
  explicit LatentStore(const std::filesystem::path& path);
  ~LatentStore();
  const StoreLayout& layout() const;
  /// Indices of complete samples, in sample-id order.
  int64_t size() const;
  /// @throws Error naming file and sample if the checksum is wrong.
  Clip read(int64_t index) const;
  /// Captions only (no latents).
  std::string caption(int64_t index) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Creates or reopens a store for `capacity` samples (collective). Slots already complete are kept: a killed
/// writer continues where it was. Each rank writes its own slots; a slot counts only once its checksum is in.
class LatentStoreWriter {
 public:
  LatentStoreWriter(const std::filesystem::path& path, const StoreLayout& layout, int64_t capacity,
                    std::shared_ptr<comm::Communicator> communicator);
  ~LatentStoreWriter();
  bool complete(int64_t slot) const;
  void write(int64_t slot, const Clip& clip);
  /// Records that a sample could not be made, and why.
  void mark_failed(int64_t slot, const std::string& sample_id, const std::string& reason);
  /// Flushes and closes (collective); publishes the file under its final name when every slot is done.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::data
