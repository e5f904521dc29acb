#pragma once
// Writing one checkpoint, stage by stage.

#include <optional>

#include "checkpoint_pieces.h"
#include "minwm/core/hdf5.h"

namespace minwm::train {

/// Writes one step folder over `ranks`; one object per save. Where a rank can fail alone, it does
/// so outside of HDF5's collective calls and the ranks agree on it before they go on.
class StepWriter {
 public:
  StepWriter(std::filesystem::path directory, int64_t keep, CheckpointInfo info,
             std::vector<Piece> pieces, std::vector<std::filesystem::path> extra_files,
             std::shared_ptr<comm::Communicator> ranks);
  /// The step folder. @throws Error on every rank alike, but for failed_alone().
  std::filesystem::path run();
  /// True if run() failed inside a collective call of HDF5: other ranks may be blocked in it.
  bool failed_alone() const { return alone_; }
  /// Bytes of all tensors together.
  int64_t bytes() const;
  int64_t step() const { return info_.step; }

 private:
  bool is_first() const { return ranks_->rank() == 0; }
  void prepare_folder() const;
  void create();
  void write_pieces();
  void finish();
  void publish() const;
  void abandon();
  void require_space() const;

  std::filesystem::path directory_, final_, pending_;
  int64_t keep_;
  CheckpointInfo info_;
  std::vector<Piece> pieces_;
  std::vector<std::filesystem::path> extra_files_;
  std::shared_ptr<comm::Communicator> ranks_;
  std::optional<hdf5::File> file_;
  at::Tensor sums_;  // [tensors] int64
  bool alone_ = false;
};

}  // namespace minwm::train
