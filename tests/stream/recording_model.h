#pragma once
// A model that remembers what it was asked, of either family.

#include <memory>
#include <vector>

#include "minwm/models/backbone.h"

namespace minwm::testing {

constexpr int64_t kSize = 2, kChannels = 4;  // of its latents

class CountingCache : public models::KvCache {
 public:
  void reset() override { seen = 0; }
  void forget_frames() override { seen = 0; }
  int64_t frames_seen() const override { return seen; }
  int64_t seen = 0;
};

/// Predicts the text's first value everywhere.
class RecordingModel : public models::Backbone {
 public:
  RecordingModel() { register_parameter("unused", at::zeros({1})); }
  at::Tensor forward(const models::ForwardInput& input) override {
    models::StreamInput call;
    call.latents = input.latents;
    call.timestep = input.timestep;
    call.conditions = input.conditions;
    calls.push_back(call);
    return at::full_like(input.latents, text_of(input.conditions));
  }
  at::Tensor stream(const models::StreamInput& input, models::KvCache& cache) override {
    calls.push_back(input);
    auto& counting = dynamic_cast<CountingCache&>(cache);
    positions.push_back(counting.seen);
    counting.seen += input.commit ? input.latents.size(1) : 0;
    return input.commit ? at::Tensor() : at::full_like(input.latents, text_of(input.conditions));
  }
  std::unique_ptr<models::KvCache> make_cache(const models::CacheOptions& options, int64_t,
                                              int64_t) override {
    cache_options = options;
    return std::make_unique<CountingCache>();
  }
  std::vector<std::shared_ptr<torch::nn::Module>> units() override { return {}; }
  int64_t latent_channels() const override { return kChannels; }
  int64_t text_dim() const override { return 1; }
  void set_compute_dtype(at::ScalarType) override {}
  void set_activation_checkpointing(bool) override {}
  bool reads_first_latent() const override { return told_first; }
  bool reads_actions() const override { return told_actions; }
  bool reads_cameras() const override { return told_cameras; }
  /// The latent and a mask of ones in frame 0, as vision its first value.
  models::Conditions with_first_latent(const models::Conditions& conditions,
                                       const at::Tensor& first, int64_t frames) const override {
    models::Conditions out = conditions;
    out.text_to_video = !first.defined();
    if (first.defined()) {
      const at::Tensor channels = at::cat({first, at::ones_like(first.narrow(2, 0, 1))}, 2);
      out.image_latents = at::constant_pad_nd(channels, {0, 0, 0, 0, 0, 0, 0, frames - 1});
      out.vision = first.flatten(1).narrow(1, 0, 1).unsqueeze(2);
    }
    return out;
  }

  static double text_of(const models::Conditions& conditions) {
    return conditions.text.flatten()[0].item<double>();
  }
  /// Timestep of each call's last frame.
  std::vector<double> timesteps() const {
    std::vector<double> all;
    for (const auto& call : calls) {
      all.push_back(call.timestep.flatten()[-1].item<double>());
    }
    return all;
  }

  bool told_first = false, told_actions = false, told_cameras = true;
  std::vector<models::StreamInput> calls;
  std::vector<int64_t> positions;  ///< frames that the cache held at each streaming call
  models::CacheOptions cache_options;
};

}  // namespace minwm::testing
