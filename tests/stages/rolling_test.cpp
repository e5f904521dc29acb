#include "minwm/stages/rolling.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"
#include "tests/stages/small_wan.h"

namespace minwm::stages {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kBatch = 2, kFrames = 8, kChunk = 2;

class Rolling : public ::testing::Test {
 protected:
  Rolling() {
    at::set_num_threads(1);
    options.step_list = {1000, 600, 200};
    options.shift = 1;
    options.chunk_frames = kChunk;
    options.window_frames = 12;
    input.conditions = small_conditions(kBatch, kFrames);
    draws.noise = random_normal({kBatch, kFrames, kChannels, kSize, kSize}, {3, "noise"});
    draws.renoise = [](int64_t window, int64_t chunk) {
      return random_normal(
          {kBatch, kChunk, kChannels, kSize, kSize},
          {3, "renoise", static_cast<uint64_t>(window), static_cast<uint64_t>(chunk)});
    };
  }
  Rollout roll() {
    model->calls.clear();
    return rolling_rollout(*model, input, draws, options);
  }
  void give_first_latent() {
    input.first_latent = random_normal({kBatch, 1, kChannels, kSize, kSize}, {3, "given"});
  }
  at::Tensor backward(const at::Tensor& latents) {
    model->zero_grad();
    (latents * random_normal(latents.sizes(), {3, "seed"})).sum().backward();
    return gradients(*model);
  }
  /// Each call as "first level … last level" of its chunks, "c" for a commit, "*" with a graph.
  std::vector<std::string> trace() const {
    std::vector<std::string> lines;
    for (const auto& call : model->calls) {
      std::string line = call.input.commit ? "c" : "";
      for (int64_t f = 0; f < call.input.timestep.size(1) && !call.input.commit; f += kChunk) {
        line += (f > 0 ? " " : "") +
                std::to_string(std::lround(call.input.timestep[0][f].item<double>()));
      }
      lines.push_back(line + (call.grad ? "*" : ""));
    }
    return lines;
  }

  std::shared_ptr<Recorder> model = std::make_shared<Recorder>(small_wan());
  RolloutOptions options;
  RolloutInput input;
  RollingDraws draws;
};

TEST_F(Rolling, WalksStaggeredLevelsAndCommitsFinishedChunksOnly) {
  draws.exit_window = 1;
  EXPECT_FALSE(roll().loss_mask.defined());
  EXPECT_THAT(trace(), ElementsAre("1000", "600 1000*", "200 600 1000", "c", "200 600 1000", "c",
                                   "200 600*", "c", "200"));
}

TEST_F(Rolling, FewerChunksThanLevelsAreAWindowThatNeverFills) {
  draws.noise = draws.noise.narrow(1, 0, 2 * kChunk);
  draws.exit_window = 2;
  EXPECT_EQ(roll().latents.size(1), 2 * kChunk);
  EXPECT_THAT(trace(), ElementsAre("1000", "600 1000", "200 600*", "c", "200"));
}

TEST_F(Rolling, WithOneLevelItIsAPlainRollout) {
  options.step_list = {1000};
  RolloutDraws plain;
  plain.noise = draws.noise;
  plain.exit_step.assign(kFrames / kChunk, 0);
  for (const bool given : {false, true}) {
    if (given) {
      give_first_latent();
    }
    const Rollout ours = roll(), reference = self_rollout(*model, input, plain, options);
    EXPECT_LT(distance(ours.latents, reference.latents), 1e-6);
    EXPECT_EQ(ours.loss_mask.defined(), given);
    EXPECT_LT(distance(backward(ours.latents), backward(reference.latents)), 1e-5);
  }
}

TEST_F(Rolling, GradientsAreThoseOfEachWindowOnItsOwn) {
  for (int64_t exit = 0; exit < 3; ++exit) {
    draws.exit_window = exit;
    const at::Tensor latents = roll().latents, ours = backward(latents);
    const auto calls = model->calls;
    const at::Tensor seed = random_normal(latents.sizes(), {3, "seed"});
    model->zero_grad();
    std::vector<models::StreamInput> committed;
    int64_t start = 0;
    for (const auto& call : calls) {
      if (call.input.commit) {
        committed.push_back(call.input);
      }
      if (!call.grad) {
        continue;
      }
      const auto cache = model->make_cache({kBatch, options.window_frames}, kSize, kSize);
      for (const auto& past : committed) {
        model->stream(past, *cache);
      }
      const int64_t frames = call.input.latents.size(1);
      const at::Tensor sigma = (call.input.timestep / 1000).view({kBatch, frames, 1, 1, 1});
      const at::Tensor x0 = call.input.latents - sigma * model->stream(call.input, *cache);
      EXPECT_LT(distance(latents.narrow(1, start, frames), x0), 1e-4);
      (x0 * seed.narrow(1, start, frames)).sum().backward();
      start += frames;
    }
    EXPECT_EQ(start, kFrames);
    EXPECT_LT(distance(ours, gradients(*model)), 1e-4) << exit;
  }
}

TEST_F(Rolling, KeepsTheGivenFirstLatentWhileItsChunkIsThere) {
  give_first_latent();
  const Rollout rollout = roll();
  EXPECT_TRUE(at::equal(rollout.latents.narrow(1, 0, 1), input.first_latent));
  EXPECT_EQ(rollout.loss_mask.sum().item<double>(), kFrames - 1);
  for (size_t i = 0; i < model->calls.size(); ++i) {
    const auto& in = model->calls[i].input;
    const bool kept = at::equal(in.latents.narrow(1, 0, 1), input.first_latent) &&
                      in.timestep.select(1, 0).max().item<double>() == 0;
    EXPECT_EQ(kept, i < 4) << i;  // three windows and the commit of chunk 0
  }
}

TEST_F(Rolling, OldWindowsAndChunksAreConstant) {
  options.gradient_frames = 3;  // chunk 3 alone starts there
  draws.exit_window = 1;
  const at::Tensor latents = roll().latents;
  EXPECT_THAT(trace(), ElementsAre("1000", "600 1000", "200 600 1000", "c", "200 600 1000", "c",
                                   "200 600*", "c", "200"));
  latents.narrow(1, 0, 6).sum().backward({}, true);
  EXPECT_EQ(gradients(*model).abs().max().item<double>(), 0);
}

TEST_F(Rolling, GeneratesFarPastItsWindow) {
  at::NoGradGuard no_grad;
  options.window_frames = 10;
  options.sink_frames = kChunk;
  options.sink_follows_window = true;
  RollingWindow window(*model, options, {});
  int64_t finished = 0;
  for (int64_t chunk = 0; chunk < 40; ++chunk) {
    window.enter(random_normal({1, kChunk, kChannels, kSize, kSize},
                               {3, "noise", static_cast<uint64_t>(chunk)}),
                 small_conditions(1, kChunk));
    const auto pass = window.advance([](int64_t w, int64_t c) {
      return random_normal({1, kChunk, kChannels, kSize, kSize},
                           {3, "renoise", static_cast<uint64_t>(w), static_cast<uint64_t>(c)});
    });
    EXPECT_EQ(pass.finished, chunk >= 2);
    EXPECT_EQ(pass.first_chunk, finished);
    finished += pass.finished ? 1 : 0;
    EXPECT_TRUE(at::isfinite(pass.x0).all().item<bool>());
    EXPECT_LT(pass.x0.abs().max().item<double>(), 1e3);
  }
  EXPECT_EQ(finished, 38);
}

TEST_F(Rolling, StreamingEqualsTheRollout) {
  at::NoGradGuard no_grad;
  draws.exit_window = 2;  // the last window of chunks 0 and 3
  const at::Tensor whole = roll().latents;
  RollingWindow window(*model, options, {});
  std::vector<at::Tensor> chunks;
  for (int64_t c = 0; chunks.size() < kFrames / kChunk; ++c) {
    if (c < kFrames / kChunk) {
      window.enter(draws.noise.narrow(1, c * kChunk, kChunk),
                   input.conditions.frames(c * kChunk, kChunk));
    }
    const auto pass = window.advance(draws.renoise);
    if (pass.finished) {
      chunks.push_back(pass.x0.narrow(1, 0, kChunk));
    }
  }
  EXPECT_TRUE(window.empty());
  EXPECT_TRUE(at::equal(chunks[0], whole.narrow(1, 0, kChunk)));
  EXPECT_TRUE(at::equal(chunks[3], whole.narrow(1, 6, kChunk)));
}

TEST_F(Rolling, RanksShareTheExitWindowAndDrawTheirOwnNoise) {
  std::set<int64_t> exits;
  for (int64_t step = 0; step < 30; ++step) {
    const auto all = draw_rolling(small_batch(8, {0, 1, 2}), {9, step, 0}, "generator", options),
               rank = draw_rolling(small_batch(8, {2}), {9, step, 1}, "generator", options);
    EXPECT_EQ(all.exit_window, rank.exit_window);
    EXPECT_TRUE(at::equal(all.noise.narrow(0, 2, 1), rank.noise));
    EXPECT_TRUE(at::equal(all.renoise(1, 0).narrow(0, 2, 1), rank.renoise(1, 0)));
    EXPECT_FALSE(at::equal(all.renoise(1, 0), all.renoise(1, 1)));
    exits.insert(all.exit_window);
  }
  EXPECT_THAT(exits, ElementsAre(0, 1, 2));
}

TEST_F(Rolling, WhatDoesNotFitIsOneClearLine) {
  const auto message = [&](auto change) {
    const auto saved = options;
    change();
    const std::string text = minwm::testing::error_of([&] { roll(); });
    options = saved;
    return text;
  };
  EXPECT_THAT(message([&] {
                options.window_frames = 7;
                options.sink_frames = 2;
              }),
              HasSubstr("window_frames = 7 does not hold 3 chunks of 2 frames and 2 sink frames"));
  EXPECT_THAT(message([&] { options.renoise_context = true; }), HasSubstr("renoise_context"));
  draws.exit_window = 3;
  EXPECT_THAT(message([] {}), HasSubstr("exit window 3, expected 0 … 2"));
  RollingWindow window(*model, options, {});
  EXPECT_THAT(minwm::testing::error_of([&] { window.advance(draws.renoise); }),
              HasSubstr("window is empty"));
  const auto enter = [&] {
    window.enter(draws.noise.narrow(1, 0, kChunk), input.conditions.frames(0, kChunk));
  };
  enter();
  EXPECT_THAT(minwm::testing::error_of(enter), HasSubstr("chunk 1 enters before"));
}

/// One layer: a frame's keys and values then depend on nothing but the frame.
TEST(SinkFollowsWindow, ADistantSinkLooksAsIfNothingLayBetween) {
  at::NoGradGuard no_grad;
  const auto model = small_wan(1);
  const auto flow = [&](bool follows, int64_t between) {
    const auto cache = model->make_cache({1, 6, 2, follows}, kSize, kSize);
    const auto chunk = [&](const char* name, uint64_t step, bool commit) {
      models::StreamInput in;
      in.latents = random_normal({1, 2, kChannels, kSize, kSize}, {4, name, step});
      in.timestep = at::zeros({1, 2});
      in.conditions = small_conditions(1, 2);
      in.commit = commit;
      return model->stream(in, *cache);
    };
    chunk("sink", 0, true);
    for (int64_t i = 0; i < between; ++i) {
      chunk("between", static_cast<uint64_t>(i), true);
    }
    chunk("recent", 0, true);
    return chunk("current", 0, false);
  };
  const at::Tensor near = flow(true, 0);
  EXPECT_TRUE(at::equal(near, flow(false, 0)));  // nothing evicted: no difference
  EXPECT_LT(distance(flow(true, 5), near), 1e-5);
  EXPECT_GT(distance(flow(false, 5), near), 1e-3);
}

}  // namespace
}  // namespace minwm::stages
