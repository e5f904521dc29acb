#pragma once
// How many rows (tokens) each frame of a sequence has: the same for all, or a count for each, where
// a run of other tokens (text that takes part in attention) stands as a frame of its own.

#include <cstdint>
#include <vector>

#include "minwm/nn/frame_plan.h"

namespace minwm::nn {

class FrameRows {
 public:
  // NOLINTBEGIN(google-explicit-constructor): a plain count is the usual case.
  FrameRows(int64_t each) : each_(each) {}
  FrameRows(const std::vector<int64_t>& counts);
  // NOLINTEND(google-explicit-constructor)

  int64_t of(int64_t frame) const { return before(frame + 1) - before(frame); }
  /// Rows of all frames before `frame`.
  int64_t before(int64_t frame) const;
  int64_t of(const FrameRange& range) const { return before(range.end) - before(range.begin); }
  /// Of the frames from `first` on.
  FrameRows from(int64_t first) const;
  /// Of piece `index` of `pieces`: rows [n index / pieces, n (index + 1) / pieces) of a frame of n.
  FrameRows piece(int64_t index, int64_t pieces) const;
  /// The first `frames` frames as runs of frames with equally many rows.
  std::vector<FrameRange> runs(int64_t frames) const;

 private:
  int64_t each_ = 0;
  std::vector<int64_t> before_;  // of frames 0 … n; empty = each_ for all
};

}  // namespace minwm::nn
