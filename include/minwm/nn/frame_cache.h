#pragma once
// Keys and values of committed frames, one layer: raw (normed, untransformed), so that rotary and
// camera transforms are applied on reading and positions stay free. A ring of frame slots; the
// first `sink` frames are never evicted.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::nn {

/// Which frames a cache holds; shared by all layers of a model.
class FrameSlots {
 public:
  FrameSlots(int64_t window, int64_t sink);
  /// Evicts the oldest frames (sinks apart) until `count` more fit into the window.
  /// @throws Error if they cannot fit beside the sinks.
  void make_room(int64_t count);
  /// Takes slots for `count` new frames, after make_room. Returns the slots.
  std::vector<int64_t> append(int64_t count);
  void clear();
  /// Held frames, oldest first: absolute frame index and slot.
  struct Held {
    int64_t frame, slot;
  };
  const std::vector<Held>& held() const { return held_; }
  int64_t seen() const { return seen_; }
  int64_t window() const { return window_; }
  int64_t sink() const { return sink_; }
  /// Changes whenever the held set changes.
  int64_t version() const { return version_; }

 private:
  int64_t window_, sink_, seen_ = 0, version_ = 0;
  std::vector<Held> held_;
  std::vector<int64_t> free_;
};

/// Storage of one tensor per slot: [B, window, tokens, …].
class SlotStore {
 public:
  /// Writes `frames` [B, n, …] into slots.
  void write(const std::vector<int64_t>& slots, const at::Tensor& frames, int64_t window);
  /// Frames of the held slots, oldest first: [B, held, …]; undefined if nothing is held. A view
  /// where possible; it keeps its values when slots are written anew (the store then moves on to a
  /// copy of its own).
  at::Tensor read(const std::vector<FrameSlots::Held>& held) const;
  bool defined() const { return store_.defined(); }

 private:
  at::Tensor store_;
  std::vector<bool> written_;  // slots that a view may show
};

}  // namespace minwm::nn
