#pragma once
// One transformer block of Wan: modulated self-attention (rotary and camera path), cross-attention,
// feed-forward.

#include <functional>

#include <torch/torch.h>

#include "minwm/models/frame_attention.h"
#include "minwm/models/wan/config.h"
#include "minwm/nn/linear.h"
#include "minwm/nn/norm.h"

namespace minwm::models {

class WanSelfAttentionImpl : public torch::nn::Module {
 public:
  explicit WanSelfAttentionImpl(const WanConfig& config);
  Projections project(const at::Tensor& x, at::ScalarType compute) const;
  /// Attention output [B, N, A or 2A, D] → o(rotary heads) + prope_o(P · camera heads), [B, N, E].
  at::Tensor output(const at::Tensor& heads, const Geometry& geometry,
                    at::ScalarType compute) const;

  nn::Linear q{nullptr}, k{nullptr}, v{nullptr}, o{nullptr}, prope_o{nullptr};

 private:
  int64_t heads_;
  nn::RmsNorm norm_q_{nullptr}, norm_k_{nullptr};
};
TORCH_MODULE(WanSelfAttention);

/// Keys and values of the text (and image) rows: [B, L, A, D].
struct CrossContext {
  at::Tensor k, v, k_image, v_image;
};

class WanCrossAttentionImpl : public torch::nn::Module {
 public:
  explicit WanCrossAttentionImpl(const WanConfig& config);
  /// context [B, L, E]: embedded text; for i2v the first `image_rows` rows are image features.
  CrossContext project_context(const at::Tensor& context, int64_t image_rows,
                               at::ScalarType compute) const;
  at::Tensor forward(const at::Tensor& x, const CrossContext& context,
                     at::ScalarType compute) const;

 private:
  int64_t heads_;
  nn::Linear q_{nullptr}, k_{nullptr}, v_{nullptr}, o_{nullptr}, k_img_{nullptr}, v_img_{nullptr};
  nn::RmsNorm norm_q_{nullptr}, norm_k_{nullptr}, norm_k_img_{nullptr};
};
TORCH_MODULE(WanCrossAttention);

class WanBlockImpl : public torch::nn::Module {
 public:
  explicit WanBlockImpl(const WanConfig& config);

  /// How the caller attends: given this block's projections, the attention output [B, N, A or 2A,
  /// D].
  using Attend = std::function<at::Tensor(const Projections&)>;

  /// x [B, T, S, E] (S tokens per frame); e0 [B, T, 6, E]; the updated x of the frames from `first`
  /// on (those before give keys and values only; `attend` gets their queries cut off).
  at::Tensor forward(const at::Tensor& x, const at::Tensor& e0, const Geometry& geometry,
                     const CrossContext& context, const Attend& attend, at::ScalarType compute,
                     int64_t first = 0) const;
  /// Only the self-attention's keys and values (what a commit of the last block needs).
  Projections project(const at::Tensor& x, const at::Tensor& e0, at::ScalarType compute) const;

  const WanCrossAttention& cross_attention() const { return cross_attn_; }
  /// Sublayer outputs before residual and gate, for the reference cases.
  at::Tensor self_attention_output(const at::Tensor& x, const std::vector<at::Tensor>& m,
                                   const Geometry& geometry, const Attend& attend,
                                   at::ScalarType compute) const;
  at::Tensor cross_attention_output(const at::Tensor& x, const CrossContext& context,
                                    at::ScalarType compute) const;
  at::Tensor feed_forward_output(const at::Tensor& x, const std::vector<at::Tensor>& m,
                                 at::ScalarType compute) const;
  /// modulation + e0 → shift, scale, gate of the attention, then of the feed-forward: six of [B, T,
  /// E].
  std::vector<at::Tensor> modulation(const at::Tensor& e0) const;

 private:
  Projections project(const at::Tensor& x, const std::vector<at::Tensor>& m,
                      at::ScalarType compute) const;

  double eps_;
  at::Tensor modulation_;
  WanSelfAttention self_attn_{nullptr};
  nn::AffineLayerNorm norm3_{nullptr};
  WanCrossAttention cross_attn_{nullptr};
  nn::NamedLinears ffn_{nullptr};
};
TORCH_MODULE(WanBlock);

}  // namespace minwm::models
