#pragma once
// Backbones and a codec whose answers are known.

#include <functional>

#include "minwm/data/batch.h"
#include "minwm/models/backbone.h"
#include "minwm/models/codec/codec.h"

namespace minwm::stages::testing {

/// A backbone that is one function, and remembers what it was asked.
class FakeBackbone : public models::Backbone {
 public:
  using Answer = std::function<at::Tensor(const models::ForwardInput&)>;
  explicit FakeBackbone(Answer answer) : answer_(std::move(answer)) {
    register_parameter("weight", at::ones({1}));
  }
  at::Tensor forward(const models::ForwardInput& input) override {
    last = input;
    return answer_(input);
  }
  at::Tensor stream(const models::StreamInput&, models::KvCache&) override { return {}; }
  std::unique_ptr<models::KvCache> make_cache(const models::CacheOptions&, int64_t,
                                              int64_t) override {
    return nullptr;
  }
  std::vector<std::shared_ptr<torch::nn::Module>> units() override { return {}; }
  int64_t latent_channels() const override { return 3; }
  int64_t text_dim() const override { return 5; }
  void set_compute_dtype(at::ScalarType) override {}
  void set_activation_checkpointing(bool) override {}

  models::ForwardInput last;

 private:
  Answer answer_;
};

/// Latents are pixels; latent k >= 1 is shown for 4 frames.
class FakeCodec : public models::Codec {
 public:
  std::string name() const override { return "fake"; }
  int64_t latent_channels() const override { return 3; }
  int64_t spatial_factor() const override { return 1; }
  at::Tensor encode(const at::Tensor& pixels) override { return pixels; }
  at::Tensor decode(const at::Tensor& latents) override {
    return at::cat({latents.narrow(1, 0, 1), latents.slice(1, 1).repeat_interleave(4, 1)}, 1);
  }
  std::unique_ptr<models::DecodeState> make_decode_state() override { return nullptr; }
  at::Tensor decode_stream(const at::Tensor& latents, models::DecodeState&) override {
    return latents;
  }
};

}  // namespace minwm::stages::testing
