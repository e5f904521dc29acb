#pragma once
// The KV cache that the families share: per layer the raw (normed, untransformed) keys and values
// of committed frames. Positions and cameras are applied when a chunk reads them, so that both
// attention paths live on one copy and positions stay free.

#include <memory>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/backbone.h"
#include "minwm/models/frame_attention.h"
#include "minwm/nn/frame_cache.h"

namespace minwm::models {

class FrameKvCache : public KvCache {
 public:
  /// @param height, width  of a frame, in tokens.
  FrameKvCache(const CacheOptions& options, int64_t layers, int64_t height, int64_t width,
               nn::RotaryAxes axes);
  void reset() override;
  void forget_frames() override { slots_.clear(); }
  int64_t frames_seen() const override { return slots_.seen(); }
  /// Raw keys and values [B, frames * tokens, A, D] and absolute indices of the frames held, oldest
  /// first. Of several context ranks each holds its portion's tokens and its own heads.
  struct LayerView {
    at::Tensor k, v;
    std::vector<int64_t> frames;
  };
  LayerView layer(int64_t index) const;
  int64_t frames_held() const { return static_cast<int64_t>(slots_.held().size()); }
  /// Evicts what the next chunk of `count` frames no longer sees.
  void make_room(int64_t count) { slots_.make_room(count); }

 protected:
  /// What a chunk sees of the past in one layer; valid after the cache has moved on.
  struct Past {
    at::Tensor k, v;    // [B, held * tokens, A, D], or transformed [B, held * tokens, A or 2A, D]
    Geometry geometry;  // of the held frames
    bool transformed = false;
    bool rotary_only = false;  // both paths read the rotary path's keys and untransformed values
    /// Transformed keys and values, undefined if nothing is held.
    std::pair<at::Tensor, at::Tensor> read() const;
  };
  /// Transformed once for all denoising steps of a chunk where the copy is small and `may_keep`.
  Past past(int64_t index, const Geometry& geometry, bool may_keep, bool rotary_only = false);
  Geometry context_geometry(bool camera, const parallel::Context& context,
                            const at::Device& device) const;
  /// Where the held frames stand.
  std::vector<int64_t> positions() const;
  void commit(const std::vector<Projections>& layers, const at::Tensor& p_inverse, int64_t count);

 private:
  struct Layer {
    nn::SlotStore k, v;
    at::Tensor memo_k, memo_v;  // transformed context; several denoising steps read the same one
    int64_t memo_version = -1;
  };
  int64_t height_, width_;
  nn::RotaryAxes axes_;
  bool sink_follows_window_;
  nn::FrameSlots slots_;
  std::vector<Layer> layers_;
  nn::SlotStore p_inverse_;
};

}  // namespace minwm::models
