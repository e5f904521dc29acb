#pragma once
// The Wan2.1 diffusion transformer behind `Backbone`: bidirectional, teacher forcing and streaming
// with the same weights and the same attention path. Parameter names are those of the published
// checkpoints (spec wan-dit 2).

#include <memory>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/backbone.h"
#include "minwm/models/frame_kv_cache.h"
#include "minwm/models/wan/block.h"

namespace minwm::models {

/// Beside the committed frames what the text turned into.
class WanKvCache : public FrameKvCache {
 public:
  using FrameKvCache::FrameKvCache;
  void reset() override;
  const CrossContext& cross(int64_t index) const { return cross_->at(static_cast<size_t>(index)); }

 private:
  friend class WanBackbone;
  at::Tensor text_, image_features_;
  /// Per layer what the text turned into, made by the first call that needs it; shared with the
  /// backward of calls under gradients.
  std::shared_ptr<std::vector<CrossContext>> cross_ = std::make_shared<std::vector<CrossContext>>();
};

class WanBackbone : public Backbone {
 public:
  WanBackbone(const WanConfig& config, uint64_t seed);

  at::Tensor forward(const ForwardInput& input) override;
  at::Tensor stream(const StreamInput& input, KvCache& cache) override;
  std::unique_ptr<KvCache> make_cache(const CacheOptions& options, int64_t height,
                                      int64_t width) override;
  std::vector<std::shared_ptr<torch::nn::Module>> units() override;
  int64_t latent_channels() const override { return config_.out_dim; }
  int64_t text_dim() const override { return config_.text_dim; }
  void set_compute_dtype(at::ScalarType dtype) override { compute_ = dtype; }
  void set_activation_checkpointing(bool enabled) override;
  /// Calls then throw an Error if there are fewer heads than ulysses ranks, or fewer tokens in a
  /// frame than ranks.
  void set_context(std::shared_ptr<const parallel::Context> context) override {
    context_ = std::move(context);
  }
  bool reads_cameras() const override { return config_.camera; }
  std::array<int64_t, 2> patch() const override {
    return {config_.patch_size[1], config_.patch_size[2]};
  }
  void initialise(const std::string& name, at::Tensor& values, uint64_t seed) const override;
  const WanConfig& config() const { return config_; }

  /// timestep [B, T] → e [B, T, E] and e0 [B, T, 6, E] (spec wan-dit 3, step 2).
  struct TimeEmbedding {
    at::Tensor e, e0;
  };
  TimeEmbedding embed_time(const at::Tensor& timestep) const;

 private:
  struct Grid {
    int64_t batch, frames, height, width;  // height, width in tokens
    int64_t tokens() const { return height * width; }
  };
  Grid grid(const at::Tensor& latents) const;
  /// This rank's tokens of every frame: [B, T, S, E].
  at::Tensor embed_patches(const at::Tensor& latents, const at::Tensor& image_latents) const;
  at::Tensor embed_text(const Conditions& conditions, int64_t* image_rows);
  nn::RotaryAxes rotary_axes() const;
  Geometry geometry(const std::vector<int64_t>& positions, const Grid& grid,
                    const camera::Cameras& cameras) const;
  /// x: this rank's tokens; the flow of all.
  at::Tensor head(const at::Tensor& x, const at::Tensor& e, const Grid& grid) const;
  /// The embedded text if this call needs it, else undefined; readies the cache for new text.
  at::Tensor stream_text(WanKvCache& cache, const StreamInput& input, int64_t* image_rows);

  WanConfig config_;
  std::shared_ptr<const parallel::Context> context_ = std::make_shared<parallel::Context>();
  at::ScalarType compute_ = at::kFloat;
  at::Tensor patch_weight_, patch_bias_, head_modulation_;
  nn::NamedLinears text_embedding_{nullptr}, time_embedding_{nullptr}, time_projection_{nullptr};
  nn::Linear head_{nullptr};
  /// Of image features [B, L, clip_dim] (i2v): norm, two linear layers, norm.
  struct ImageEmbedding {
    nn::AffineLayerNorm before{nullptr};
    nn::Linear in{nullptr}, out{nullptr};
    nn::AffineLayerNorm after{nullptr};
  };
  std::optional<ImageEmbedding> image_embedding_;
  std::vector<WanBlock> blocks_;
};

}  // namespace minwm::models
