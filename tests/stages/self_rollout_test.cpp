#include "minwm/stages/self_rollout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"
#include "tests/stages/small_wan.h"

namespace minwm::stages {
namespace {

using namespace testing;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kBatch = 2, kFrames = 6, kChunk = 2;

class SelfRollout : public ::testing::Test {
 protected:
  SelfRollout() {
    at::set_num_threads(1);
    options.step_list = {1000, 600, 200};
    options.chunk_frames = kChunk;
    input.conditions = small_conditions(kBatch, kFrames);
    draws.noise = normal({kBatch, kFrames, kChannels, kSize, kSize}, "noise");
    draws.exit_step = {1, 2, 0};
    draws.renoise = [this](int64_t chunk, int64_t step) {
      asked.push_back({chunk, step});
      return normal({kBatch, kChunk, kChannels, kSize, kSize}, "renoise",
                    static_cast<uint64_t>(10 * chunk + step));
    };
    draws.context_noise = [this](int64_t chunk) {
      asked.push_back({chunk, -1});
      return normal({kBatch, kChunk, kChannels, kSize, kSize}, "context",
                    static_cast<uint64_t>(chunk));
    };
  }
  static at::Tensor normal(at::IntArrayRef shape, std::string_view purpose, uint64_t step = 0) {
    return random_normal(shape, {3, purpose, step});
  }
  void give_first_latent() {
    input.first_latent = normal({kBatch, 1, kChannels, kSize, kSize}, "given");
  }
  void full(int64_t exit, const std::string& solver = "renoise") {
    options.mode = "full";
    options.solver = solver;
    draws.exit_step.assign(3, exit);
  }
  Rollout roll() {
    model->calls.clear();
    asked.clear();
    return self_rollout(*model, input, draws, options);
  }
  void backward(const at::Tensor& latents) {
    model->zero_grad();
    (latents * normal(latents.sizes(), "seed")).sum().backward();
  }
  /// Calls that denoise, those that commit, those whose flow is in a graph.
  std::vector<Recorder::Call> calls(bool commit) const {
    std::vector<Recorder::Call> out;
    for (const auto& call : model->calls) {
      if (call.input.commit == commit) {
        out.push_back(call);
      }
    }
    return out;
  }
  std::vector<bool> graph_calls() const {
    std::vector<bool> out;
    for (const auto& call : calls(false)) {
      out.push_back(call.grad);
    }
    return out;
  }
  /// Denoising calls of the exit steps, in chunk order.
  std::vector<Recorder::Call> exit_calls() const {
    const auto denoising = calls(false);
    std::vector<Recorder::Call> out;
    size_t at = 0;
    for (const int64_t exit : draws.exit_step) {
      out.push_back(denoising.at(at + static_cast<size_t>(exit)));
      at += options.mode == "full" ? options.step_list.size() : static_cast<size_t>(exit) + 1;
    }
    return out;
  }
  /// The chunks as they were committed; the last one too.
  at::Tensor history() {
    options.commit_last = true;
    at::NoGradGuard no_grad;
    roll();
    options.commit_last = false;
    std::vector<at::Tensor> chunks;
    for (const auto& call : calls(true)) {
      chunks.push_back(call.input.latents);
    }
    return at::cat(chunks, 1);
  }
  at::Tensor with_first(const at::Tensor& x0) const {
    return input.first_latent.defined() ? at::cat({input.first_latent, x0.slice(1, 1)}, 1) : x0;
  }

  /// x0 of the exit calls' inputs from one teacher-forced pass over the committed history.
  at::Tensor teacher_forced() {
    const at::Tensor clean = history();
    std::vector<at::Tensor> noisy, times;
    for (const auto& call : exit_calls()) {
      noisy.push_back(call.input.latents);
      times.push_back(call.input.timestep);
    }
    models::ForwardInput in;
    in.latents = at::cat(noisy, 1);
    in.timestep = at::cat(times, 1);
    in.conditions = input.conditions;
    in.clean_latents = clean;
    in.chunk_frames = kChunk;
    const at::Tensor sigma = (in.timestep / 1000).view({kBatch, kFrames, 1, 1, 1});
    return with_first(in.latents - sigma * model->forward(in));
  }

  /// The gradients of backward(): every chunk on its own, its history rebuilt from constants.
  at::Tensor gradients_chunk_by_chunk() {
    const at::Tensor clean = history(), seed = normal(clean.sizes(), "seed");
    const auto exits = exit_calls();
    model->zero_grad();
    for (int64_t chunk = 0; chunk < kFrames / kChunk; ++chunk) {
      const auto cache = model->make_cache({kBatch, kFrames}, kSize, kSize);
      for (int64_t past = 0; past < chunk; ++past) {
        models::StreamInput in;
        in.latents = clean.narrow(1, past * kChunk, kChunk);
        in.timestep = at::zeros({kBatch, kChunk});
        in.conditions = input.conditions.frames(past * kChunk, kChunk);
        in.commit = true;
        model->stream(in, *cache);
      }
      const auto& in = exits[static_cast<size_t>(chunk)].input;
      const at::Tensor sigma = (in.timestep / 1000).view({kBatch, kChunk, 1, 1, 1});
      at::Tensor x0 = in.latents - sigma * model->stream(in, *cache);
      x0 = chunk == 0 ? with_first(x0) : x0;
      (x0 * seed.narrow(1, chunk * kChunk, kChunk)).sum().backward();
    }
    return gradients(*model);
  }

  std::shared_ptr<Recorder> model = std::make_shared<Recorder>(small_wan());
  RolloutOptions options;
  RolloutInput input;
  RolloutDraws draws;
  std::vector<std::pair<int64_t, int64_t>> asked;
};

TEST_F(SelfRollout, EqualsTheTeacherForcedPassOnItsOwnHistory) {
  EXPECT_LT(distance(roll().latents, teacher_forced()), 1e-5);
  give_first_latent();
  EXPECT_LT(distance(roll().latents, teacher_forced()), 1e-5);
}

TEST_F(SelfRollout, InFullModeItsHistoryIsTheFinishedChunkNotTheOutput) {
  full(1);
  const Rollout rollout = roll();
  EXPECT_LT(distance(rollout.latents, teacher_forced()), 1e-5);
  EXPECT_GT(distance(rollout.latents, history()), 0.01);
}

TEST_F(SelfRollout, GradientsAreThoseOfEachChunkOnItsOwn) {
  for (const bool given : {false, true}) {
    if (given) {
      give_first_latent();
    }
    backward(roll().latents);
    const at::Tensor ours = gradients(*model);
    EXPECT_LT(distance(ours, gradients_chunk_by_chunk()), 1e-4);
  }
  full(0);
  backward(roll().latents);
  const at::Tensor ours = gradients(*model);
  EXPECT_LT(distance(ours, gradients_chunk_by_chunk()), 1e-4);
}

TEST_F(SelfRollout, RecordsGradientsInExitCallsOnlyAndChangesNoValueByIt) {
  const at::Tensor with = roll().latents;
  EXPECT_THAT(graph_calls(), ElementsAre(false, true, false, false, true, true));
  at::NoGradGuard no_grad;
  const at::Tensor without = roll().latents;
  EXPECT_FALSE(without.requires_grad());
  EXPECT_TRUE(at::equal(with, without));
  EXPECT_THAT(graph_calls(), Each(false));
}

TEST_F(SelfRollout, CommitsCleanChunksOnceAndNotTheLast) {
  const Rollout rollout = roll();
  const auto commits = calls(true);
  ASSERT_EQ(commits.size(), 2U);
  for (size_t chunk = 0; chunk < 2; ++chunk) {
    const auto start = static_cast<int64_t>(chunk) * kChunk;
    EXPECT_TRUE(at::equal(commits[chunk].input.latents, rollout.latents.narrow(1, start, kChunk)));
    EXPECT_EQ(commits[chunk].input.timestep.max().item<double>(), 0);
  }
}

TEST_F(SelfRollout, DrawsNoiseOnDemandInOrder) {
  roll();
  EXPECT_THAT(asked, ElementsAre(std::pair(0, 0), std::pair(1, 0), std::pair(1, 1)));
  full(0);
  roll();
  EXPECT_EQ(asked.size(), 6U);  // none after the last step
  full(2, "euler");
  roll();
  EXPECT_TRUE(asked.empty());
}

TEST_F(SelfRollout, EulerFollowsTheFlowAndEndsAtTheLastPrediction) {
  full(2, "euler");
  options.shift = 1;
  const at::Tensor latents = roll().latents;
  const auto all = calls(false);
  at::Tensor x = draws.noise.narrow(1, 0, kChunk);
  const double sigmas[] = {1, 0.6, 0.2, 0};
  for (size_t step = 0; step < 3; ++step) {
    EXPECT_LT(distance(all[step].input.latents, x), 1e-5);
    x = x + all[step].flow * (sigmas[step + 1] - sigmas[step]);
  }
  EXPECT_LT(distance(latents.narrow(1, 0, kChunk), x), 1e-5);
}

TEST_F(SelfRollout, KeepsTheGivenFirstLatentCleanInEveryCall) {
  for (const std::string mode : {"truncated", "full"}) {
    options.mode = mode;
    options.context_noise = 50;
    options.renoise_context = true;
    give_first_latent();
    const Rollout rollout = roll();
    EXPECT_TRUE(at::equal(rollout.latents.narrow(1, 0, 1), input.first_latent));
    EXPECT_TRUE(at::equal(rollout.loss_mask, at::tensor({0.F, 1.F, 1.F, 1.F, 1.F, 1.F})));
    bool first_chunk = true;
    for (const auto& call : model->calls) {
      const bool kept = at::equal(call.input.latents.narrow(1, 0, 1), input.first_latent) &&
                        call.input.timestep.select(1, 0).max().item<double>() == 0;
      EXPECT_EQ(kept, first_chunk);
      EXPECT_GT(call.input.timestep.select(1, 1).min().item<double>(), 0);
      first_chunk = first_chunk && !call.input.commit;
    }
  }
}

TEST_F(SelfRollout, TruncatedChunksBeforeTheGradientFramesAreConstant) {
  options.gradient_frames = 3;  // frames 3 … 5: chunk 1 starts at 2
  const Rollout rollout = roll();
  EXPECT_THAT(graph_calls(), ElementsAre(false, false, false, false, false, true));
  EXPECT_FALSE(rollout.loss_mask.defined());
}

TEST_F(SelfRollout, FullModeMasksSingleFramesAndKeepsTheirValues) {
  full(1);
  const at::Tensor all = roll().latents;
  options.gradient_frames = 3;
  const at::Tensor masked = roll().latents;
  EXPECT_TRUE(at::equal(all, masked));
  EXPECT_THAT(graph_calls(),
              ElementsAre(false, false, false, false, true, false, false, true, false));
  masked.narrow(1, 0, 3).sum().backward({}, true);
  EXPECT_EQ(gradients(*model).abs().max().item<double>(), 0);
  masked.narrow(1, 3, 1).sum().backward();
  EXPECT_GT(gradients(*model).abs().max().item<double>(), 0);
}

TEST_F(SelfRollout, ALongRolloutIsShortenedToItsEndBehindAFirstLatent) {
  const at::Tensor all = roll().latents;
  options.gradient_frames = 4;
  input.first_latent_of = last_frame_encoder(std::make_shared<FakeCodec>());
  const Rollout rollout = roll();
  ASSERT_EQ(rollout.latents.size(1), 4);
  EXPECT_EQ(rollout.first_frame, 2);
  EXPECT_TRUE(at::equal(rollout.latents, all.slice(1, 2)));  // the fake codec returns what it got
  EXPECT_TRUE(at::equal(rollout.loss_mask, at::tensor({0.F, 0.F, 1.F, 1.F})));
  rollout.latents.narrow(1, 0, 1).sum().backward({}, true);
  EXPECT_EQ(gradients(*model).abs().max().item<double>(), 0);
  options.gradient_frames = kFrames;
  EXPECT_EQ(roll().latents.size(1), kFrames);
}

TEST_F(SelfRollout, TheContextIsNoisedOnlyWhenAsked) {
  options.context_noise = 100;
  roll();
  EXPECT_EQ(calls(true).front().input.timestep.min().item<double>(), 100);
  const at::Tensor clean = calls(true).front().input.latents;
  EXPECT_THAT(asked, ::testing::Not(::testing::Contains(std::pair<int64_t, int64_t>(0, -1))));
  options.renoise_context = true;
  roll();
  const at::Tensor noise = normal({kBatch, kChunk, kChannels, kSize, kSize}, "context");
  EXPECT_LT(distance(calls(true).front().input.latents, 0.9 * clean + 0.1 * noise), 1e-5);
}

TEST_F(SelfRollout, TheFirstChunkMayHaveStepsOfItsOwn) {
  options.first_chunk_step_list = {1000, 800, 600, 400};
  options.step_list = {1000, 500};
  draws.exit_step = {3, 0, 0};
  const Rollout rollout = roll();
  EXPECT_EQ(calls(false).size(), 6U);
  EXPECT_EQ(rollout.from, 1000);
  EXPECT_EQ(rollout.to, 500);
}

TEST_F(SelfRollout, ReportsItsLevelsWhereAllChunksShareThem) {
  draws.exit_step = {1, 1, 1};
  EXPECT_EQ(roll().from, 600);
  EXPECT_EQ(roll().to, 200);
  draws.exit_step = {2, 2, 2};
  EXPECT_EQ(roll().to, 0);
  options.same_exit = false;
  EXPECT_EQ(roll().from, -1);
}

TEST_F(SelfRollout, ConstantTextHasTheSameValuesAndNoGradients) {
  const at::Tensor with = roll().latents;
  backward(with);
  const auto text_gradient = [&] {
    double largest = 0;
    for (const auto& item : model->named_parameters()) {
      const bool text = item.key().find("text_embedding") != std::string::npos ||
                        item.key().find("cross_attn.k") != std::string::npos ||
                        item.key().find("cross_attn.v") != std::string::npos;
      if (text && item.value().grad().defined()) {
        largest = std::max(largest, item.value().grad().abs().max().item<double>());
      }
    }
    return largest;
  };
  EXPECT_GT(text_gradient(), 0);
  options.text_gradient = false;
  const at::Tensor without = roll().latents;
  EXPECT_TRUE(at::equal(with, without));
  backward(without);
  EXPECT_EQ(text_gradient(), 0);
  EXPECT_GT(gradients(*model).abs().max().item<double>(), 0);
}

TEST_F(SelfRollout, AShortWindowChangesOnlyWhatNoLongerFits) {
  const at::Tensor all = roll().latents;
  options.window_frames = 4;  // chunk 2 sees chunk 1 alone
  const at::Tensor windowed = roll().latents;
  EXPECT_TRUE(at::equal(all.narrow(1, 0, 4), windowed.narrow(1, 0, 4)));
  EXPECT_GT(distance(windowed.slice(1, 4), all.slice(1, 4)), 1e-4);
}

TEST_F(SelfRollout, WhatDoesNotFitTogetherIsOneClearLine) {
  const auto message = [&](auto change) {
    const auto saved_options = options;
    const auto saved_draws = draws;
    const auto saved_input = input;
    change();
    const std::string text = minwm::testing::error_of([&] { roll(); });
    options = saved_options;
    draws = saved_draws;
    input = saved_input;
    return text;
  };
  EXPECT_THAT(message([&] { options.chunk_frames = 4; }),
              HasSubstr("6 latent frames are not a multiple of rollout.chunk_frames = 4"));
  EXPECT_THAT(message([&] { draws.exit_step = {0, 0}; }), HasSubstr("2 exit steps for 3 chunks"));
  EXPECT_THAT(message([&] {
                draws.exit_step = {0, 3, 0};
              }),
              HasSubstr("exit step 3 of chunk 1, expected 0 … 2"));
  EXPECT_THAT(message([&] { options.solver = "euler"; }), HasSubstr("needs rollout.mode = full"));
  EXPECT_THAT(message([&] { full(0, "euler"); }), HasSubstr("gradient on the last step"));
  EXPECT_THAT(message([&] { options.mode = "half"; }), HasSubstr("rollout.mode 'half'"));
  EXPECT_THAT(message([&] { options.step_list = {500, 1000, 200}; }), HasSubstr("out of order"));
  EXPECT_THAT(message([&] { options.window_frames = 1; }), HasSubstr("rollout.window_frames = 1"));
  EXPECT_THAT(message([&] { input.conditions = small_conditions(kBatch, 4); }),
              HasSubstr("4 cameras for 6 latent frames"));
  EXPECT_THAT(message([&] {
                input.first_latent = at::zeros({1, 1, 3, 4, 4});
              }),
              HasSubstr("first latent must be [B, 1, C, h, w]"));
}

}  // namespace
}  // namespace minwm::stages
