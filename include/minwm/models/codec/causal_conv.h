#pragma once
// Convolutions over video that see no future, what they remember between the parts of a stream, and
// the norm that goes with them: shared by the Wan2.1 and the HunyuanVideo autoencoders (spec vae
// 3.2, 4.2). Video is [B, C, T, H, W] here, as the published weights have it.

#include <vector>

#include <torch/torch.h>

namespace minwm::models {

/// What the convolutions of one stream remember, in the order in which a pass visits them. A copy
/// is a branch: tensors are shared and never written in place.
struct FeatureHistory {
  std::vector<at::Tensor> slots;
  bool started = false;  ///< whether the first frame went through
  /// Memory of all slots.
  int64_t bytes() const;
};

/// One pass of a network over the next part of a stream. The history changes when the pass is
/// committed, so a pass that fails leaves the stream where it was.
class HistoryPass {
 public:
  explicit HistoryPass(FeatureHistory& history) : history_(history), slots_(history.slots) {}
  /// Whether this part holds the stream's first frame, which then is all it holds.
  bool first() const { return !history_.started; }
  /// The slot of the next convolution; undefined in the first pass.
  at::Tensor& next();
  /// Keeps what the slots hold now.
  void commit();

 private:
  FeatureHistory& history_;
  std::vector<at::Tensor> slots_;
  size_t visited_ = 0;
};

/// What surrounds a video: zeros (Wan), or its outermost pixels and first frame (HunyuanVideo).
enum class VideoPadding { kZeros, kReplicate };

/// weight [out, in, kernel…] and bias [out] under their published names; how they are applied is
/// the owner's business.
class ConvWeightsImpl : public torch::nn::Module {
 public:
  ConvWeightsImpl(int64_t in, int64_t out, const std::vector<int64_t>& kernel);
  at::Tensor weight, bias;
};
TORCH_MODULE(ConvWeights);

/// x [B, in, T, H, W] → [B, out, T, H, W] with stride 1 and an odd kernel (kt, kh, kw) of 5-D
/// weights: each frame sees itself and the kt - 1 before it. `past` holds the last kt - 1 input
/// frames of the stream so far, undefined at its start, and is replaced. With kt = 1 it is left
/// alone. Computes in the weights' type.
at::Tensor causal_conv(const at::Tensor& x, const ConvWeights& conv, VideoPadding padding,
                       at::Tensor& past);

/// A 1 x 1 (x 1) convolution of each pixel; weights of 3, 4 or 5 dimensions. Computes in the
/// weights' type.
at::Tensor pointwise_conv(const at::Tensor& x, const ConvWeights& conv);

/// x / max(‖x‖, 1e-12) · sqrt(C) · gamma over the channels of [B, C, T, H, W]; gamma of C elements
/// in any shape. In float32, result of x's type; gradients are finite where a pixel is all zero.
at::Tensor channel_norm(const at::Tensor& x, const at::Tensor& gamma);

/// Attention with one head of width C among the pixels of each frame; q, k, v [B, C, T, H, W] →
/// the same shape.
at::Tensor frame_pixel_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace minwm::models
