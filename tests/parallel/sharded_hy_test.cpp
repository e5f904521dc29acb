// An HY model whose weights, and perhaps tokens, are spread over ranks against the same model in
// one place. Every data rank's clip has a text stream of another length.

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "tests/parallel/sharded_backbone.h"
#include "tests/parallel/small_hy_clips.h"

namespace minwm::models {
namespace {

using minwm::testing::expect_small_error;
using parallel::testing::five_heads;
using parallel::testing::Form;
using parallel::testing::hy_rollout;
using parallel::testing::hy_step;

constexpr int64_t kLayers = 3;

const minwm::testing::SpreadModel kHy = {
    [] { return testing::lively_hy(five_heads(kLayers)); },
    [] { return std::make_shared<HyBackbone>(five_heads(kLayers), 1); }};

/// Data rank 1's clip is the one of a single text row.
constexpr std::array<int64_t, 4> kClipOf = {0, 2, 1, 3};

template <Form form>
at::Tensor step_loss(Backbone& model, int64_t clip) {
  return hy_step(model, five_heads(kLayers), form, {kClipOf.at(static_cast<size_t>(clip)), 1}).loss;
}

at::Tensor rollout_loss(Backbone& model, int64_t clip) {
  return hy_rollout(model, five_heads(kLayers), {kClipOf.at(static_cast<size_t>(clip)), 1}, false)
      .loss;
}

TEST(ShardedHy, BidirectionalStepsHaveTheGradientsOfOnePlace) {
  expect_small_error("bidirectional", kHy, at::kFloat, step_loss<Form::kBidirectional>, 2e-6);
}

TEST(ShardedHy, ChunkCausalStepsHaveTheGradientsOfOnePlace) {
  expect_small_error("chunk-causal", kHy, at::kFloat, step_loss<Form::kCausal>, 2e-6);
}

TEST(ShardedHy, TeacherForcingHasTheGradientsOfOnePlace) {
  expect_small_error("teacher forcing", kHy, at::kFloat, step_loss<Form::kForced>, 2e-6);
}

TEST(ShardedHy, ARolloutThatCallsEveryUnitOftenHasTheGradientsOfOnePlace) {
  expect_small_error("rollout", kHy, at::kFloat, rollout_loss, 2e-6);
}

TEST(ShardedHy, Bfloat16StaysWithinItsRounding) {
  expect_small_error("bfloat16", kHy, at::kBFloat16, step_loss<Form::kForced>, 2e-2);
}

TEST(ShardedHy, ForwardsAreBitForBitThoseOfOnePlace) {
  minwm::testing::expect_same_losses(
      kHy, {step_loss<Form::kBidirectional>, step_loss<Form::kForced>, rollout_loss});
}

}  // namespace
}  // namespace minwm::models
