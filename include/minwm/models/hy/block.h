#pragma once
// One double-stream block of HunyuanVideo-1.5 (spec hy-mmdit 7, 8): image and text rows with
// weights of their own, which meet in attention.

#include <functional>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/frame_attention.h"
#include "minwm/models/hy/config.h"
#include "minwm/nn/linear.h"
#include "minwm/nn/norm.h"

namespace minwm::models {

/// Conditioning vectors by their distinct values: few, whatever the number of frames.
struct HyVectors {
  at::Tensor rows;   ///< [U, D] float32
  at::Tensor index;  ///< [B, T] int64: which of them a frame has
};

/// A block's two streams; either may be undefined (a text that is cached, a text that runs alone).
struct HyStreams {
  at::Tensor image;  ///< [B, T, S, D] float32 (S tokens per frame)
  at::Tensor text;   ///< [B, L, D] float32
};

/// One stream's weights in a block, registered with the block under `img_…` or `txt_…`.
struct HyStreamWeights {
  nn::NamedLinears mod{nullptr}, mlp{nullptr};
  nn::Linear q{nullptr}, k{nullptr}, v{nullptr}, proj{nullptr};
  nn::RmsNorm q_norm{nullptr}, k_norm{nullptr};
};

class HyBlockImpl : public torch::nn::Module {
 public:
  explicit HyBlockImpl(const HyConfig& config);

  /// How the caller attends, given what the block makes of its rows (undefined without a stream; no
  /// text queries if it does not leave).
  struct Rows {
    Projections image, text;
  };
  /// Attention output: image [B, N, A or 2A, D] of the asking frames; text [B, L, A, D], or
  /// undefined if it has no queries.
  struct Heads {
    at::Tensor image, text;
  };
  using Attend = std::function<Heads(const Rows&)>;

  struct Call {
    HyVectors image, text;  ///< text: index [B, 1]
    Geometry geometry;      ///< of the image's frames
    int64_t first = 0;      ///< image frames before it give keys and values only
    /// The text that leaves the block is read by somebody (not so after the last one).
    bool text_leaves = true;
  };
  /// The streams behind the block: the image's frames from `first` on, the text if it leaves.
  HyStreams forward(const HyStreams& x, const Call& call, const Attend& attend,
                    at::ScalarType compute) const;
  /// Only keys and values, without queries: what a commit of the last block needs.
  Projections image_keys(const at::Tensor& image, const HyVectors& vectors,
                         at::ScalarType compute) const;
  Projections text_keys(const at::Tensor& text, const HyVectors& vectors,
                        at::ScalarType compute) const;

 private:
  HyConfig config_;
  HyStreamWeights image_, text_;
  nn::Linear prope_proj_{nullptr};
};
TORCH_MODULE(HyBlock);

}  // namespace minwm::models
