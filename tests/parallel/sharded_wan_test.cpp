// A Wan model whose weights, and perhaps tokens, are spread over ranks against the same model in
// one place.

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "minwm/core/random.h"
#include "minwm/models/wan/backbone.h"
#include "tests/parallel/sharded_backbone.h"
#include "tests/parallel/small_wan.h"

namespace minwm::models {
namespace {

using parallel::testing::kChannels;
using parallel::testing::kHeight;
using parallel::testing::kTextDim;
using parallel::testing::lively_model;
using parallel::testing::small_config;
using testing::expect_small_error;

constexpr int64_t kLayers = 3, kWidth = 10;

Conditions moving_cameras(int64_t sample, int64_t first, int64_t frames) {
  Conditions conditions;
  conditions.text = random_normal({1, 3, kTextDim}, {5, "text", 0, static_cast<uint64_t>(sample)});
  at::Tensor view = at::eye(4).repeat({1, frames, 1, 1});
  view.select(3, 3).select(2, 0).copy_(at::arange(first, first + frames) * 0.1);
  conditions.cameras = {view, at::eye(3).repeat({1, frames, 1, 1}) * 0.5};
  return conditions;
}

at::Tensor draw(const char* purpose, int64_t sample, int64_t frames) {
  return random_normal({1, frames, kChannels, kHeight, kWidth},
                       {3, purpose, 0, static_cast<uint64_t>(sample)});
}

at::Tensor teacher_forcing_loss(Backbone& model, int64_t sample) {
  ForwardInput input;
  input.latents = draw("noisy", sample, 4);
  input.timestep = random_uniform({1, 4}, {3, "timestep"}) * 1000;
  input.conditions = moving_cameras(sample, 0, 4);
  input.clean_latents = draw("clean", sample, 4);
  input.chunk_frames = 2;
  return (model.forward(input) - draw("target", sample, 4)).square().mean();
}

/// Three chunks, each denoised in a call without and one under gradients, and committed: one graph
/// calls every unit three times.
at::Tensor rollout_loss(Backbone& model, int64_t sample) {
  const auto cache = model.make_cache({1, 4, 1}, kHeight, kWidth);
  std::vector<at::Tensor> chunks;
  for (int64_t first = 0; first < 6; first += 2) {
    StreamInput input;
    input.latents = draw("noise", sample, 6).narrow(1, first, 2);
    input.timestep = at::full({1, 2}, 700.0);
    input.conditions = moving_cameras(sample, first, 2);
    {
      at::NoGradGuard no_grad;
      input.latents = input.latents - 0.3 * model.stream(input, *cache);
    }
    input.timestep = at::full({1, 2}, 400.0);
    chunks.push_back(input.latents - 0.4 * model.stream(input, *cache));
    input.latents = chunks.back().detach();
    input.timestep = at::zeros({1, 2});
    input.commit = true;
    model.stream(input, *cache);
  }
  return (at::cat(chunks, 1) - draw("target", sample, 6)).square().mean();
}

const testing::SpreadModel kWan = {
    [] { return lively_model(small_config(kLayers)); },
    [] { return std::make_shared<WanBackbone>(small_config(kLayers), 1); }};

TEST(ShardedWan, TeacherForcingHasTheGradientsOfOnePlace) {
  expect_small_error("teacher forcing", kWan, at::kFloat, teacher_forcing_loss, 2e-6);
}

TEST(ShardedWan, ARolloutThatCallsEveryUnitOftenHasTheGradientsOfOnePlace) {
  expect_small_error("rollout", kWan, at::kFloat, rollout_loss, 2e-6);
}

TEST(ShardedWan, Bfloat16StaysWithinItsRounding) {
  expect_small_error("bfloat16", kWan, at::kBFloat16, teacher_forcing_loss, 1e-2);
}

TEST(ShardedWan, ForwardsAreBitForBitThoseOfOnePlace) {
  testing::expect_same_losses(kWan, {teacher_forcing_loss, rollout_loss});
}

}  // namespace
}  // namespace minwm::models
