#include "minwm/nn/frame_rows.h"

#include <ATen/ATen.h>

namespace minwm::nn {

FrameRows::FrameRows(const std::vector<int64_t>& counts) : before_{0} {
  for (const int64_t count : counts) {
    before_.push_back(before_.back() + count);
  }
}

int64_t FrameRows::before(int64_t frame) const {
  return before_.empty() ? frame * each_ : before_.at(static_cast<size_t>(frame));
}

FrameRows FrameRows::from(int64_t first) const {
  FrameRows out(each_);
  for (size_t frame = static_cast<size_t>(first); frame < before_.size(); ++frame) {
    out.before_.push_back(before_[frame] - before(first));
  }
  return out;
}

FrameRows FrameRows::piece(int64_t index, int64_t pieces) const {
  const auto part = [&](int64_t n) { return n * (index + 1) / pieces - n * index / pieces; };
  if (before_.empty()) {
    return part(each_);
  }
  std::vector<int64_t> counts;
  for (int64_t frame = 0; frame + 1 < static_cast<int64_t>(before_.size()); ++frame) {
    counts.push_back(part(of(frame)));
  }
  return counts;
}

std::vector<FrameRange> FrameRows::runs(int64_t frames) const {
  if (before_.empty()) {
    return {{0, frames}};
  }
  TORCH_INTERNAL_ASSERT(frames < static_cast<int64_t>(before_.size()), "rows of ",
                        before_.size() - 1, " frames are known, not of ", frames);
  std::vector<FrameRange> runs;
  for (int64_t frame = 0; frame < frames; ++frame) {
    if (runs.empty() || of(frame) != of(runs.back().begin)) {
      runs.push_back({frame, frame});
    }
    runs.back().end = frame + 1;
  }
  return runs;
}

}  // namespace minwm::nn
