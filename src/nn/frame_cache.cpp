#include "minwm/nn/frame_cache.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::nn {

FrameSlots::FrameSlots(int64_t window, int64_t sink) : window_(window), sink_(sink) {
  require(window > 0 && sink >= 0 && sink < window,
          "KV cache: window of {} frames with {} sink frames", window, sink);
  clear();
}

void FrameSlots::clear() {
  held_.clear();
  free_.clear();
  for (int64_t slot = window_ - 1; slot >= 0; --slot) {
    free_.push_back(slot);
  }
  seen_ = 0;
  ++version_;
}

void FrameSlots::make_room(int64_t count) {
  require(sink_ + count <= window_,
          "KV cache: a chunk of {} frames and {} sink frames do not fit a window of {}", count,
          sink_, window_);
  while (static_cast<int64_t>(held_.size()) + count > window_) {
    const auto oldest = held_.begin() + sink_;
    free_.push_back(oldest->slot);
    held_.erase(oldest);
    ++version_;
  }
}

std::vector<int64_t> FrameSlots::append(int64_t count) {
  TORCH_INTERNAL_ASSERT(count <= static_cast<int64_t>(free_.size()), "append without make_room");
  std::vector<int64_t> slots;
  for (int64_t i = 0; i < count; ++i) {
    slots.push_back(free_.back());
    free_.pop_back();
    held_.push_back({seen_++, slots.back()});
  }
  ++version_;
  return slots;
}

void SlotStore::write(const std::vector<int64_t>& slots, const at::Tensor& frames, int64_t window) {
  if (!store_.defined()) {
    auto shape = frames.sizes().vec();
    shape[1] = window;
    store_ = at::zeros(shape, frames.options());
    written_.assign(static_cast<size_t>(window), false);
  }
  const auto reused = [&](int64_t slot) { return written_[static_cast<size_t>(slot)]; };
  if (store_.storage().use_count() > 1 && std::any_of(slots.begin(), slots.end(), reused)) {
    store_ = store_.clone();  // somebody still reads the frames that are about to go
  }
  for (const int64_t slot : slots) {
    written_[static_cast<size_t>(slot)] = true;
  }
  store_.index_copy_(1, at::tensor(slots, at::kLong).to(frames.device()), frames.detach());
}

at::Tensor SlotStore::read(const std::vector<FrameSlots::Held>& held) const {
  if (held.empty()) {
    return {};
  }
  bool contiguous = true;  // the usual case before anything was evicted: a view, no copy
  for (size_t i = 1; i < held.size(); ++i) {
    contiguous = contiguous && held[i].slot == held[i - 1].slot + 1;
  }
  if (contiguous) {
    return store_.narrow(1, held.front().slot, static_cast<int64_t>(held.size()));
  }
  std::vector<int64_t> slots;
  for (const auto& h : held) {
    slots.push_back(h.slot);
  }
  return store_.index_select(1, at::tensor(slots, at::kLong).to(store_.device()));
}

}  // namespace minwm::nn
