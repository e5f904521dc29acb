#pragma once
// A Wan model that takes milliseconds, and a wrapper that remembers what it was asked to stream.

#include <vector>

#include "minwm/camera/cameras.h"
#include "minwm/core/random.h"
#include "minwm/data/batch.h"
#include "minwm/models/wan/backbone.h"

namespace minwm::stages::testing {

inline constexpr int64_t kChannels = 3, kSize = 4, kTextDim = 5;  // 4 tokens per frame

inline std::shared_ptr<models::WanBackbone> small_wan(int64_t layers = 2) {
  models::WanConfig config;
  config.in_dim = config.out_dim = kChannels;
  config.dim = 16;
  config.ffn_dim = 24;
  config.freq_dim = 16;
  config.text_dim = kTextDim;
  config.text_len = 4;
  config.num_heads = 2;
  config.num_layers = layers;
  auto model = std::make_shared<models::WanBackbone>(config, 1);
  at::NoGradGuard no_grad;
  // The head and the camera projections start at zero; random weights make every input matter.
  for (auto& parameter : model->named_parameters()) {
    parameter.value().add_(0.2 * random_normal(parameter.value().sizes(), {7, parameter.key()}));
  }
  return model;
}

/// Text and moving cameras for clips of `frames` frames.
inline models::Conditions small_conditions(int64_t batch, int64_t frames, bool camera = true) {
  models::Conditions conditions;
  conditions.text = random_normal({batch, 3, kTextDim}, {5, "text"});
  if (camera) {
    at::Tensor view = at::eye(4).repeat({batch, frames, 1, 1});
    view.select(3, 3).select(2, 0).copy_(at::arange(frames) * 0.1);
    at::Tensor intrinsics = at::eye(3).repeat({batch, frames, 1, 1}) * 0.5;
    conditions.cameras = {view, intrinsics};
  }
  return conditions;
}

inline data::Batch small_batch(int64_t frames, const std::vector<int64_t>& samples) {
  data::Batch batch;
  const auto count = static_cast<int64_t>(samples.size());
  batch.latents = random_normal({count, frames, kChannels, kSize, kSize}, {6, "latents"});
  batch.conditions = small_conditions(count, frames);
  batch.global_samples = samples;
  return batch;
}

/// Hands every call on to a model and keeps a record of it.
class Recorder : public models::Backbone {
 public:
  struct Call {
    models::StreamInput input;
    at::Tensor flow;  // undefined for commits
    bool grad = false;
  };
  explicit Recorder(std::shared_ptr<models::Backbone> model) : model_(std::move(model)) {
    register_module("model", model_);
  }
  at::Tensor forward(const models::ForwardInput& input) override { return model_->forward(input); }
  at::Tensor stream(const models::StreamInput& input, models::KvCache& cache) override {
    const at::Tensor flow = model_->stream(input, cache);
    calls.push_back({input, flow.defined() ? flow.detach() : flow, flow.requires_grad()});
    return flow;
  }
  std::unique_ptr<models::KvCache> make_cache(const models::CacheOptions& options, int64_t height,
                                              int64_t width) override {
    cache_options = options;
    return model_->make_cache(options, height, width);
  }
  std::vector<std::shared_ptr<torch::nn::Module>> units() override { return model_->units(); }
  int64_t latent_channels() const override { return model_->latent_channels(); }
  int64_t text_dim() const override { return model_->text_dim(); }
  void set_compute_dtype(at::ScalarType dtype) override { model_->set_compute_dtype(dtype); }
  void set_activation_checkpointing(bool on) override { model_->set_activation_checkpointing(on); }

  std::vector<Call> calls;
  models::CacheOptions cache_options;

 private:
  std::shared_ptr<models::Backbone> model_;
};

/// All gradients as one vector; zeros where there is none.
inline at::Tensor gradients(const torch::nn::Module& module) {
  std::vector<at::Tensor> flat;
  for (const auto& p : module.parameters()) {
    flat.push_back((p.grad().defined() ? p.grad() : at::zeros_like(p)).flatten());
  }
  return at::cat(flat);
}

/// Largest difference, relative to the largest entry of `reference`.
inline double distance(const at::Tensor& ours, const at::Tensor& reference) {
  return ((ours - reference).abs().max() / reference.abs().max()).item<double>();
}

}  // namespace minwm::stages::testing
