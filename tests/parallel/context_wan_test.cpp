// A Wan model whose tokens are spread over ranks against the same model on one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <torch/torch.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/models/wan/backbone.h"
#include "tests/parallel/model_on_ranks.h"
#include "tests/parallel/small_wan.h"

namespace minwm::models {
namespace {

using parallel::testing::contexts;
using parallel::testing::difference;
using parallel::testing::expect_as_on_one_rank;
using parallel::testing::expect_sharding_changes_nothing;
using parallel::testing::kChannels;
using parallel::testing::kHeight;
using parallel::testing::kTextDim;
using parallel::testing::MakeModel;
using parallel::testing::run_on;

constexpr int64_t kWidth = 14;  // 21 tokens per frame: they do not divide by 2 or 4

Conditions moving_cameras(int64_t first, int64_t frames, bool camera) {
  Conditions conditions;
  conditions.text = random_normal({2, 3, kTextDim}, {5, "text"});
  if (camera) {
    at::Tensor view = at::eye(4).repeat({2, frames, 1, 1});
    view.select(3, 3).select(2, 0).copy_(at::arange(first, first + frames) * 0.1);
    conditions.cameras = {view, at::eye(3).repeat({2, frames, 1, 1}) * 0.5};
  }
  return conditions;
}

at::Tensor draw(const char* purpose, int64_t frames) {
  return random_normal({2, frames, kChannels, kHeight, kWidth}, {3, purpose});
}

MakeModel maker(bool image = false) {
  return [image] {
    return parallel::testing::lively_model(parallel::testing::small_config(2, image));
  };
}

/// Flow, loss and the gradient of the latents.
std::vector<at::Tensor> training_step(Backbone& model, bool forced, bool camera,
                                      bool image = false) {
  ForwardInput input;
  input.latents = draw("noisy", 4).requires_grad_(true);
  input.timestep = random_uniform({2, 4}, {3, "timestep"}) * 1000;
  input.conditions = moving_cameras(0, 4, camera);
  if (image) {
    input.conditions.image_latents = draw("image", 4);
    input.conditions.image_features = random_normal({2, 7, 12}, {5, "image"});
  }
  if (forced) {
    input.clean_latents = draw("clean", 4);
    input.chunk_frames = 2;
  }
  const at::Tensor flow = model.forward(input);
  const at::Tensor loss = (flow - draw("target", 4)).square().mean();
  loss.backward();
  return {flow.detach(), loss.detach(), input.latents.grad()};
}

TEST(ContextWan, TheBidirectionalStepIsThatOfOneRank) {
  expect_as_on_one_rank(maker(), [](Backbone& model) { return training_step(model, false, true); });
}

TEST(ContextWan, TheTeacherForcingStepIsThatOfOneRank) {
  expect_as_on_one_rank(maker(), [](Backbone& model) { return training_step(model, true, true); });
}

TEST(ContextWan, TheStepWithoutCamerasIsThatOfOneRank) {
  expect_as_on_one_rank(maker(), [](Backbone& model) { return training_step(model, true, false); });
}

TEST(ContextWan, TheStepFromAnImageIsThatOfOneRank) {
  expect_as_on_one_rank(maker(true),
                        [](Backbone& model) { return training_step(model, true, true, true); });
}

/// Seven frames in chunks of 2, 2, 1, 2 through a window of four with one sink: every chunk is
/// denoised once under gradients, its result goes on to the loss and into the cache.
std::vector<at::Tensor> rollout(Backbone& model) {
  const auto cache = model.make_cache({2, 4, 1}, kHeight, kWidth);
  const at::Tensor noise = draw("noise", 7).requires_grad_(true);
  std::vector<at::Tensor> chunks;
  int64_t first = 0;
  for (const int64_t count : {2, 2, 1, 2}) {
    StreamInput input;
    input.latents = noise.narrow(1, first, count);
    input.timestep = at::full({2, count}, 700.0);
    input.conditions = moving_cameras(first, count, true);
    {
      at::NoGradGuard no_grad;  // a step before, without a graph, reads the same cache
      input.latents = input.latents - 0.3 * model.stream(input, *cache);
    }
    input.latents = input.latents + 0.1 * noise.narrow(1, first, count);
    input.timestep = at::full({2, count}, 400.0);
    chunks.push_back(input.latents - 0.4 * model.stream(input, *cache));
    input.latents = chunks.back().detach();
    input.timestep = at::zeros({2, count});
    input.commit = true;
    model.stream(input, *cache);
    first += count;
  }
  const at::Tensor video = at::cat(chunks, 1);
  (video - draw("target", 7)).square().mean().backward();
  return {video.detach(), noise.grad()};
}

TEST(ContextWan, AStreamedRolloutWithCommitsAndEvictionIsThatOfOneRank) {
  expect_as_on_one_rank(maker(), rollout);
}

TEST(ContextWan, WeightsMayBeSpreadOverTheSameRanks) {
  expect_sharding_changes_nothing(maker(),
                                  [](Backbone& model) { return training_step(model, true, true); });
  expect_sharding_changes_nothing(maker(), rollout);
}

TEST(ContextWan, BfloatComputeStaysWithinItsRounding) {
  const auto step = [](Backbone& model) {
    model.set_compute_dtype(at::kBFloat16);
    return training_step(model, true, true);
  };
  const auto reference = run_on(nullptr, maker(), false, step);
  for (const auto& ranks : contexts()) {
    EXPECT_LE(difference(ranks, run_on(&ranks, maker(), false, step), reference).largest, 3e-2)
        << ranks.name;
  }
}

/// A model that knows nothing of context ranks.
class Whole : public Backbone {
 public:
  at::Tensor forward(const ForwardInput&) override { return {}; }
  at::Tensor stream(const StreamInput&, KvCache&) override { return {}; }
  std::unique_ptr<KvCache> make_cache(const CacheOptions&, int64_t, int64_t) override {
    return nullptr;
  }
  std::vector<std::shared_ptr<torch::nn::Module>> units() override { return {}; }
  int64_t latent_channels() const override { return 1; }
  int64_t text_dim() const override { return 1; }
  void set_compute_dtype(at::ScalarType) override {}
  void set_activation_checkpointing(bool) override {}
};

TEST(ContextWan, AModelThatCannotSplitTokensRefusesSeveralRanks) {
  Whole model;
  model.set_context(std::make_shared<parallel::Context>());
  for (const auto& ranks : contexts()) {
    if (ranks.context->size() > 1) {
      EXPECT_THROW(model.set_context(ranks.context), Error);
    }
  }
}

TEST(ContextWan, FramesOfFewerTokensThanRanksAreRefused) {
  ForwardInput input;
  input.latents = at::zeros({2, 1, kChannels, 2, 2});
  input.timestep = at::zeros({2, 1});
  input.conditions = moving_cameras(0, 1, true);
  const auto model = parallel::testing::lively_model(parallel::testing::small_config(2));
  for (const auto& ranks : contexts()) {
    model->set_context(ranks.context);
    if (ranks.context->size() == 1) {
      EXPECT_NO_THROW(model->forward(input));
      continue;
    }
    try {
      model->forward(input);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("cannot share the 1 tokens"));
    }
  }
}

}  // namespace
}  // namespace minwm::models
