#pragma once
// The small modules of the HunyuanVideo-1.5 transformer around its blocks (spec hy-mmdit 4, 5),
// under their published names.

#include <vector>

#include <torch/torch.h>

#include "minwm/models/conditions.h"
#include "minwm/models/hy/config.h"
#include "minwm/nn/linear.h"

namespace minwm::models {

/// t of any shape → [..., 256] float32: cosines, then sines, of t 10000^(-i / 128).
at::Tensor hy_sinusoid(const at::Tensor& t);

/// time_in, txt_in.t_embedder, action_in: a number through a 256 wide sinusoid and an MLP.
class HyTimeEmbedderImpl : public torch::nn::Module {
 public:
  explicit HyTimeEmbedderImpl(int64_t width);
  /// t of any shape, 0 … 1000 → [..., width] float32.
  at::Tensor forward(const at::Tensor& t) const;

 private:
  nn::NamedLinears mlp_{nullptr};
};
TORCH_MODULE(HyTimeEmbedder);

/// txt_in: the text states, refined by two gated blocks of attention among themselves.
class HyTokenRefinerImpl : public torch::nn::Module {
 public:
  explicit HyTokenRefinerImpl(const HyConfig& config);
  /// x [B, L, text_states_dim], t [B], mask [B, L] with at least one 1 per sample → [B, L, D]
  /// float32; rows with mask 0 are finite and mean nothing.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& mask,
                     at::ScalarType compute) const;

 private:
  struct Block : torch::nn::Module {
    explicit Block(const HyConfig& config);
    nn::AffineLayerNorm norm1{nullptr}, norm2{nullptr};
    nn::Linear qkv{nullptr}, proj{nullptr};
    nn::NamedLinears mlp{nullptr}, gates{nullptr};
  };
  /// The blocks on rows [B, L, D] that all see each other; c [B, D].
  at::Tensor refine(at::Tensor rows, const at::Tensor& c, at::ScalarType compute) const;

  int64_t heads_;
  nn::Linear input_embedder_{nullptr};
  HyTimeEmbedder t_embedder_{nullptr};
  nn::NamedLinears c_embedder_{nullptr};
  std::vector<std::shared_ptr<Block>> blocks_;
};
TORCH_MODULE(HyTokenRefiner);

/// byt5_in: glyph text states [B, L, in] → [B, L, D] float32.
class HyByt5MapperImpl : public torch::nn::Module {
 public:
  explicit HyByt5MapperImpl(const HyConfig& config);
  at::Tensor forward(const at::Tensor& x, at::ScalarType compute) const;

 private:
  nn::AffineLayerNorm layernorm_{nullptr};
  nn::Linear fc1_{nullptr}, fc2_{nullptr}, fc3_{nullptr};
};
TORCH_MODULE(HyByt5Mapper);

/// vision_in: image features [B, N, vision_states_dim] → [B, N, D] float32.
class HyVisionMapperImpl : public torch::nn::Module {
 public:
  explicit HyVisionMapperImpl(const HyConfig& config);
  at::Tensor forward(const at::Tensor& x, at::ScalarType compute) const;

 private:
  nn::AffineLayerNorm before_{nullptr}, after_{nullptr};
  nn::Linear in_{nullptr}, out_{nullptr};
};
TORCH_MODULE(HyVisionMapper);

/// img_in: patches of the latents with their conditioning channels.
class HyPatchEmbedderImpl : public torch::nn::Module {
 public:
  explicit HyPatchEmbedderImpl(const HyConfig& config);
  /// Patches [..., (2 in_channels + 1) * patch] (channel, row, column order) → [..., D] float32.
  at::Tensor forward(const at::Tensor& patches) const;
  at::Tensor weight, bias;  ///< of img_in.proj: [D, 2 in_channels + 1, 1, ph, pw], [D]
};
TORCH_MODULE(HyPatchEmbedder);

/// final_layer: modulated norm and the projection to a patch of latents.
class HyFinalLayerImpl : public torch::nn::Module {
 public:
  explicit HyFinalLayerImpl(const HyConfig& config);
  /// x [B, T, S, D] float32 and its vector per frame [B, T, D] → [B, T, S, out_channels * patch],
  /// channel slowest.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& vec, at::ScalarType compute) const;

 private:
  nn::Linear linear_{nullptr};
  nn::NamedLinears modulation_{nullptr};
};
TORCH_MODULE(HyFinalLayer);

/// The text stream before the blocks. Valid rows come first: vision, glyphs, text.
struct HyTextStream {
  at::Tensor rows;               ///< [B, longest length, D] float32; what follows a length is junk
  std::vector<int64_t> lengths;  ///< valid rows of each sample
};

/// What turns conditions into the text stream. Its modules belong to the backbone.
struct HyTextModules {
  HyTokenRefiner text{nullptr};
  HyByt5Mapper byt5{nullptr};
  HyVisionMapper vision{nullptr};
  at::Tensor type_table;  ///< cond_type_embedding.weight [3, D]: text, glyphs, vision

  /// text_mask undefined: rows that are not all zero count, and row 0 always. byt5, byt5_mask or
  /// vision undefined: none, all, none. Every sample gets what it gets alone, whatever stands
  /// beside it. @param text_timestep [B].
  /// @throws Error on wrong shapes, or a text mask without any 1.
  HyTextStream assemble(const Conditions& conditions, const at::Tensor& text_timestep,
                        const HyConfig& config, at::ScalarType compute) const;
};

/// [B, T, C, H, W] → [B, T, (H / ph) (W / pw), C ph pw], and back.
at::Tensor hy_patches(const at::Tensor& latents, int64_t patch_height, int64_t patch_width);
at::Tensor hy_unpatch(const at::Tensor& patches, int64_t rows, int64_t columns,
                      int64_t patch_height, int64_t patch_width);

/// The conditioning channels of a clip whose first latent is given: that latent in frame 0 and
/// zeros behind it, and a mask that is 1 in frame 0. [B, 1, C, H, W] → [B, frames, C + 1, H, W].
at::Tensor hy_image_channels(const at::Tensor& first_latent, int64_t frames);

}  // namespace minwm::models
