// An HY model whose image tokens and text rows are spread over ranks against the same model on one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <torch/torch.h>

#include "minwm/core/error.h"
#include "tests/parallel/model_on_ranks.h"
#include "tests/parallel/small_hy_clips.h"

namespace minwm::models {
namespace {

using parallel::testing::Clips;
using parallel::testing::contexts;
using parallel::testing::difference;
using parallel::testing::expect_as_on_one_rank;
using parallel::testing::expect_sharding_changes_nothing;
using parallel::testing::five_heads;
using parallel::testing::Form;
using parallel::testing::hy_rollout;
using parallel::testing::hy_step;
using parallel::testing::kHeight;
using parallel::testing::kWideWidth;
using parallel::testing::MakeModel;
using parallel::testing::run_on;
using parallel::testing::wide_conditions;
using parallel::testing::wide_latents;

constexpr int64_t kLayers = 2;
constexpr Clips kBatch{0, 3};  // text streams of 8, 7 and 1 rows

MakeModel maker(const HyConfig& config) {
  return [config] { return testing::lively_hy(config); };
}

void expect_step_of_one_rank(const HyConfig& config, Form form) {
  expect_as_on_one_rank(maker(config), [&](Backbone& model) {
    return hy_step(model, config, form, kBatch).backward();
  });
}

TEST(ContextHy, TheBidirectionalStepIsThatOfOneRank) {
  expect_step_of_one_rank(five_heads(kLayers), Form::kBidirectional);
}

TEST(ContextHy, TheChunkCausalStepIsThatOfOneRank) {
  expect_step_of_one_rank(five_heads(kLayers), Form::kCausal);
}

TEST(ContextHy, TheTeacherForcingStepIsThatOfOneRank) {
  expect_step_of_one_rank(five_heads(kLayers), Form::kForced);
}

TEST(ContextHy, StepsWithoutCamerasAndActionsAreThoseOfOneRank) {
  expect_step_of_one_rank(five_heads(kLayers, false), Form::kBidirectional);
  expect_step_of_one_rank(five_heads(kLayers, false), Form::kForced);
}

TEST(ContextHy, AStepOfClipsWithEquallyLongTextsIsThatOfOneRank) {
  const auto config = five_heads(kLayers);
  expect_as_on_one_rank(maker(config), [&](Backbone& model) {
    ForwardInput input;
    const Clips twice{3, 1};
    const auto repeated = [](const at::Tensor& x) { return x.defined() ? at::cat({x, x}) : x; };
    auto c = wide_conditions(config, twice, 2);
    for (at::Tensor* tensor :
         {&c.text, &c.text_mask, &c.byt5, &c.byt5_mask, &c.vision, &c.actions, &c.image_latents,
          &c.cameras.world_to_camera, &c.cameras.intrinsics}) {
      *tensor = repeated(*tensor);
    }
    c.text = c.text + random_normal(c.text.sizes(), {17, "other text"});
    input.conditions = c;
    input.latents = repeated(wide_latents("noisy", twice, 2));
    input.timestep = at::full({2, 2}, 300.0);
    const at::Tensor flow = model.forward(input);
    flow.square().mean().backward();
    return std::vector<at::Tensor>{flow.detach()};
  });
}

TEST(ContextHy, AStreamedRolloutWithCommitsAndEvictionIsThatOfOneRank) {
  const auto config = five_heads(kLayers);
  expect_as_on_one_rank(maker(config), [&](Backbone& model) {
    return hy_rollout(model, config, kBatch, false).backward();
  });
}

TEST(ContextHy, ARolloutOnConstantTextIsThatOfOneRank) {
  const auto config = five_heads(kLayers);
  expect_as_on_one_rank(
      maker(config),
      [&](Backbone& model) { return hy_rollout(model, config, kBatch, true).backward(); }, {true});
}

TEST(ContextHy, ARolloutThatReadsItsPastAsPublishedModelsDoIsThatOfOneRank) {
  const auto config = five_heads(kLayers);
  expect_as_on_one_rank(
      maker(config),
      [&](Backbone& model) {
        model.set_stream_switches({.rope_only_history = true, .context_action = true});
        return hy_rollout(model, config, kBatch, false).backward();
      },
      {false});
}

TEST(ContextHy, APastThatIsRebuiltIsThatOfOneRank) {
  const auto config = five_heads(kLayers);
  expect_as_on_one_rank(
      maker(config),
      [&](Backbone& model) {
        at::NoGradGuard no_grad;
        const auto cache = model.make_cache({kBatch.count, 8, 0}, kHeight, kWideWidth);
        const auto conditions = wide_conditions(config, kBatch, 8);
        const at::Tensor latents = wide_latents("noisy", kBatch, 8);
        std::vector<at::Tensor> flows;
        for (const int64_t first : {0, 2}) {
          cache->forget_frames();
          StreamInput input;
          input.latents = latents.narrow(1, first, 4);
          input.timestep = at::full({kBatch.count, 4}, 14.0);
          input.conditions = conditions.frames(first, 4);
          input.commit = true;
          model.stream(input, *cache);
          input.latents = latents.narrow(1, 6, 2);
          input.timestep = at::full({kBatch.count, 2}, 800.0);
          input.conditions = conditions.frames(6, 2);
          input.commit = false;
          flows.push_back(model.stream(input, *cache));
        }
        return flows;
      },
      {false});
}

TEST(ContextHy, WeightsMayBeSpreadOverTheSameRanks) {
  const auto config = five_heads(kLayers);
  for (const Form form : {Form::kBidirectional, Form::kForced}) {
    expect_sharding_changes_nothing(maker(config), [&](Backbone& model) {
      return hy_step(model, config, form, kBatch).backward();
    });
  }
  expect_sharding_changes_nothing(maker(config), [&](Backbone& model) {
    return hy_rollout(model, config, kBatch, false).backward();
  });
}

TEST(ContextHy, BfloatComputeStaysWithinItsRounding) {
  const auto config = five_heads(kLayers);
  const auto step = [&](Backbone& model) {
    model.set_compute_dtype(at::kBFloat16);
    return hy_step(model, config, Form::kForced, kBatch).backward();
  };
  const auto reference = run_on(nullptr, maker(config), false, step);
  for (const auto& ranks : contexts()) {
    EXPECT_LE(difference(ranks, run_on(&ranks, maker(config), false, step), reference).largest,
              5e-2)
        << ranks.name;
  }
}

/// The comparisons above are worth something only if every weight counts.
TEST(ContextHy, EveryParameterButTheLastTextsHasAGradientInTheseSteps) {
  const auto config = five_heads(kLayers);
  for (const Form form : {Form::kBidirectional, Form::kCausal, Form::kForced}) {
    const auto outcome = run_on(nullptr, maker(config), false, [&](Backbone& model) {
      return hy_step(model, config, form, kBatch).backward();
    });
    for (const auto& [name, gradient] : outcome.gradients) {
      const bool unread = name.starts_with("double_blocks.1.txt_attn_q") ||
                          name.starts_with("double_blocks.1.txt_attn_proj") ||
                          name.starts_with("double_blocks.1.txt_mlp");
      EXPECT_EQ(gradient.abs().max().item<double>() > 0, !unread) << name;
    }
  }
}

TEST(ContextHy, FramesOfFewerTokensThanRanksAreRefused) {
  const auto config = five_heads(kLayers);
  const auto model = testing::lively_hy(config);
  ForwardInput input;
  input.latents = at::zeros({1, 1, parallel::testing::kChannels, 2, 2});
  input.timestep = at::zeros({1, 1});
  for (const auto& ranks : contexts()) {
    if (ranks.context->size() == 1) {
      continue;
    }
    model->set_context(ranks.context);
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
