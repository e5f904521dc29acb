#pragma once
// The HunyuanVideo-1.5 MMDiT behind `Backbone`: bidirectional, teacher forcing, chunk-causal and
// streaming with the same weights and the same attention path. Parameter names are those of the
// published checkpoints (spec hy-mmdit 3).

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/backbone.h"
#include "minwm/models/frame_kv_cache.h"
#include "minwm/models/hy/block.h"
#include "minwm/models/hy/embedders.h"

namespace minwm::models {

/// Samples of a batch that follow each other and have equally many text rows: they attend together.
struct HySamples {
  int64_t first, count, text_rows;
};

/// Beside the committed frames the keys and values of the text (and vision) rows.
class HyKvCache : public FrameKvCache {
 public:
  using FrameKvCache::FrameKvCache;
  void reset() override;
  /// Of one layer, per group of samples: [count, rows, A, D]; of several context ranks each holds
  /// its portion's rows and its own heads.
  struct Text {
    std::vector<Projections> groups;
  };
  const Text& text(int64_t layer) const { return text_->at(static_cast<size_t>(layer)); }

 private:
  friend class HyBackbone;
  /// What the text was made of; the same tensors again mean the same text.
  std::vector<at::Tensor> source_;
  bool text_to_video_ = false;
  std::vector<HySamples> samples_;
  std::shared_ptr<std::vector<Text>> text_ = std::make_shared<std::vector<Text>>();
};

class HyBackbone : public Backbone {
 public:
  HyBackbone(const HyConfig& config, uint64_t seed);

  at::Tensor forward(const ForwardInput& input) override;
  at::Tensor stream(const StreamInput& input, KvCache& cache) override;
  std::unique_ptr<KvCache> make_cache(const CacheOptions& options, int64_t height,
                                      int64_t width) override;
  std::vector<std::shared_ptr<torch::nn::Module>> units() override;
  int64_t latent_channels() const override { return config_.out_channels; }
  int64_t text_dim() const override { return config_.text_states_dim; }
  void set_compute_dtype(at::ScalarType dtype) override { compute_ = dtype; }
  void set_activation_checkpointing(bool enabled) override;
  void set_context(std::shared_ptr<const parallel::Context> context) override {
    context_ = std::move(context);
  }
  void set_stream_switches(const StreamSwitches& switches) override;
  bool reads_first_latent() const override { return true; }
  Conditions with_first_latent(const Conditions& conditions, const at::Tensor& first_latent,
                               int64_t frames) const override;
  bool reads_actions() const override { return config_.action; }
  bool reads_cameras() const override { return config_.camera; }
  std::array<int64_t, 2> patch() const override {
    return {config_.patch_size[1], config_.patch_size[2]};
  }
  void initialise(const std::string& name, at::Tensor& values, uint64_t seed) const override;
  const HyConfig& config() const { return config_; }

 private:
  struct Grid {
    int64_t batch, frames, height, width;  // height, width in tokens
    int64_t tokens() const { return height * width; }
  };
  Grid grid(const at::Tensor& latents) const;
  /// @throws Error unless timestep is [B, T] and everything that is told is of B samples.
  void check_batch(const at::Tensor& timestep, const Conditions& conditions,
                   const Grid& grid) const;
  nn::RotaryAxes rotary_axes() const;
  Geometry geometry(const std::vector<int64_t>& positions, const Grid& grid,
                    const camera::Cameras& cameras) const;
  /// This rank's tokens of every frame: [B, T, S, D].
  at::Tensor embed_patches(const at::Tensor& latents, const at::Tensor& image_latents) const;
  /// Per frame, by distinct (timestep, action): time_in(t) + action_in(a), the latter where a >= 0.
  HyVectors frame_vectors(const at::Tensor& timestep, const at::Tensor& actions) const;
  HyVectors text_vectors(const at::Tensor& timestep) const;
  /// x: this rank's tokens; the flow of all.
  at::Tensor head(const at::Tensor& x, const HyVectors& vectors, const Grid& grid) const;
  /// Fills the cache's text unless it is there already.
  void cache_text(HyKvCache& cache, const StreamInput& input);

  HyConfig config_;
  std::shared_ptr<const parallel::Context> context_ = std::make_shared<parallel::Context>();
  at::ScalarType compute_ = at::kFloat;
  StreamSwitches switches_;
  std::map<std::string, int64_t> fan_in_;  // of weights by name; 0 for those of norms
  HyPatchEmbedder patch_embedder_{nullptr};
  HyTimeEmbedder time_in_{nullptr}, action_in_{nullptr};
  HyTextModules text_;
  std::vector<HyBlock> blocks_;
  HyFinalLayer final_layer_{nullptr};
};

}  // namespace minwm::models
