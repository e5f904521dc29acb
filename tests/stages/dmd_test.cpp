#include "minwm/stages/dmd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/options.h"
#include "minwm/diffusion/flow_match.h"
#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"
#include "tests/stages/small_wan.h"

namespace minwm::stages {
namespace {

using minwm::testing::error_of;
using ::testing::ElementsAre;
using testing::FakeBackbone;
using testing::gradients;
using ::testing::HasSubstr;
using testing::small_batch;
using testing::small_wan;

constexpr int64_t kFrames = 8;

DmdOptions make_options() {
  DmdOptions options;
  options.rollout.chunk_frames = 4;
  options.score.real_guidance = 1;
  return options;
}

/// A score that answers with zeros, and remembers whether it was asked under grad mode.
std::shared_ptr<FakeBackbone> silent_score() {
  return std::make_shared<FakeBackbone>(
      [](const models::ForwardInput& input) { return at::zeros_like(input.latents); });
}

bool has_gradient(const torch::nn::Module& module) {
  return gradients(module).abs().max().item<double>() > 0;
}

class DmdLosses : public ::testing::Test {
 protected:
  DmdModels models() { return {*generator_, *fake_, *real_, {}}; }
  DmdDraws draws(const std::string& update) const {
    return draw_dmd(batch_, {3, 1, 0}, update, options_);
  }
  GeneratorTerms generator_terms() {
    return generator_loss(models(), batch_, {}, draws("generator"), options_);
  }
  CriticTerms critic_terms() { return critic_loss(models(), batch_, draws("critic"), options_); }

  DmdOptions options_ = make_options();
  data::Batch batch_ = small_batch(kFrames, {0, 1});
  std::shared_ptr<models::Backbone> generator_ = small_wan(), fake_ = small_wan(1),
                                    real_ = small_wan();
};

TEST_F(DmdLosses, TheGeneratorsLossHasTheScoresGradientAsItsDerivative) {
  const auto terms = generator_terms();
  const at::Tensor& g = terms.score.gradient;
  EXPECT_NEAR(terms.loss.item<double>(), 0.5 * g.square().mean().item<double>(), 1e-5);
  const auto derivative = torch::autograd::grad({terms.loss}, {terms.rollout.latents});
  EXPECT_TRUE(at::allclose(derivative[0], g / static_cast<double>(g.numel()), 1e-4, 1e-9));
}

TEST_F(DmdLosses, AGeneratorsUpdateReachesTheGeneratorOnly) {
  generator_terms().loss.backward();
  EXPECT_TRUE(has_gradient(*generator_));
  EXPECT_FALSE(has_gradient(*fake_));
  EXPECT_FALSE(has_gradient(*real_));
}

TEST_F(DmdLosses, ACriticsUpdateReachesTheCriticOnly) {
  const auto terms = critic_terms();
  EXPECT_FALSE(terms.rollout.latents.requires_grad());
  terms.loss.backward();
  EXPECT_FALSE(has_gradient(*generator_));
  EXPECT_TRUE(has_gradient(*fake_));
  EXPECT_FALSE(has_gradient(*real_));
}

TEST_F(DmdLosses, TheCriticsLossIsFlowMatchingOnTheRollout) {
  fake_ = silent_score();
  const auto terms = critic_terms();
  const at::Tensor flow = draws("critic").score.noise - terms.rollout.latents;
  EXPECT_NEAR(terms.loss.item<double>(), flow.square().mean().item<double>(), 1e-5);
  EXPECT_TRUE(at::equal(dynamic_cast<FakeBackbone&>(*fake_).last.timestep, terms.input.timestep));
}

TEST_F(DmdLosses, ScoresThatAgreeTeachNothing) {
  real_ = fake_;
  const auto terms = generator_terms();
  EXPECT_EQ(terms.loss.item<double>(), 0);
  terms.loss.backward();
  EXPECT_FALSE(has_gradient(*generator_));
}

TEST_F(DmdLosses, AStepAgainstTheGradientBringsTheRolloutNearerToTheRealClips) {
  const auto expert = [](const at::Tensor& truth) {
    return std::make_shared<FakeBackbone>([truth](const models::ForwardInput& input) {
      return (input.latents - truth) / diffusion::per_frame(input.timestep / 1000, truth);
    });
  };
  const at::Tensor before = generator_terms().rollout.latents.detach(), real_clips = before + 1;
  fake_ = expert(before);
  real_ = expert(real_clips);
  generator_terms().loss.backward();
  {
    at::NoGradGuard no_grad;
    for (at::Tensor& p : generator_->parameters()) {
      if (p.grad().defined()) {
        p.sub_(p.grad(), 0.01);
      }
    }
  }
  const at::Tensor after = generator_terms().rollout.latents.detach();
  EXPECT_LT((after - real_clips).abs().mean().item<double>(), 1);
}

TEST_F(DmdLosses, AGivenFirstLatentIsCleanForTheScoresAndInNoLoss) {
  options_.clean_first = 1;
  const auto fake = silent_score();
  fake_ = fake;
  const auto terms = generator_terms();
  EXPECT_TRUE(at::equal(terms.rollout.latents.select(1, 0), batch_.latents.select(1, 0)));
  EXPECT_TRUE(at::equal(fake->last.latents.select(1, 0), batch_.latents.select(1, 0)));
  EXPECT_EQ(fake->last.timestep.select(1, 0).abs().max().item<double>(), 0);
  const at::Tensor g = terms.score.gradient.slice(1, 1);
  EXPECT_NEAR(terms.loss.item<double>(), 0.5 * g.square().mean().item<double>(), 1e-5);
  const auto critic = critic_terms();
  const at::Tensor flow = (draws("critic").score.noise - critic.rollout.latents).slice(1, 1);
  EXPECT_NEAR(critic.loss.item<double>(), flow.square().mean().item<double>(), 1e-5);
}

TEST_F(DmdLosses, AShortenedRolloutIsJudgedUnderItsOwnCamerasWithoutItsFirstChunk) {
  options_.rollout.chunk_frames = 2;
  options_.rollout.gradient_frames = 4;
  const auto fake = silent_score();
  fake_ = fake;
  DmdModels shortening = models();
  shortening.first_latent_of = [](const at::Tensor& latents) { return latents.slice(1, -1) * 0.5; };
  const auto terms = generator_loss(shortening, batch_, {}, draws("generator"), options_);
  ASSERT_EQ(terms.rollout.latents.size(1), 4);
  EXPECT_TRUE(at::equal(fake->last.conditions.cameras.world_to_camera,
                        batch_.conditions.cameras.world_to_camera.slice(1, 4)));
  const auto derivative = torch::autograd::grad({terms.loss}, {terms.rollout.latents})[0];
  EXPECT_EQ(derivative.narrow(1, 0, 2).abs().max().item<double>(), 0);
  EXPECT_TRUE(at::allclose(
      derivative.slice(1, 2),
      terms.score.gradient.slice(1, 2) / static_cast<double>(derivative.slice(1, 2).numel()), 1e-4,
      1e-9));
}

TEST_F(DmdLosses, RolloutsMayRoll) {
  options_.rolling = 1;
  options_.rollout.chunk_frames = 2;
  const auto given = draws("generator");
  ASSERT_TRUE(given.rolling.has_value());
  const auto terms = generator_loss(models(), batch_, {}, given, options_);
  EXPECT_EQ(terms.rollout.latents.sizes(), batch_.latents.sizes());
  EXPECT_EQ(terms.rollout.from, -1);
  terms.loss.backward();
  EXPECT_TRUE(has_gradient(*generator_));
}

TEST(DmdDraws, DecisionsAreTheSameOnAllRanks) {
  DmdOptions options = make_options();
  options.clean_first = options.rolling = 0.5;
  int64_t given = 0, rolling = 0;
  for (int64_t step = 0; step < 40; ++step) {
    const auto one = draw_dmd(small_batch(kFrames, {0, 1}), {5, step, 0}, "generator", options);
    const auto other = draw_dmd(small_batch(kFrames, {6}), {5, step, 1}, "generator", options);
    EXPECT_EQ(one.given, other.given);
    ASSERT_EQ(one.rolling.has_value(), other.rolling.has_value());
    if (one.rolling) {
      EXPECT_EQ(one.rolling->exit_window, other.rolling->exit_window);
    } else {
      EXPECT_EQ(one.rollout.exit_step, other.rollout.exit_step);
    }
    given += one.given ? 1 : 0;
    rolling += one.rolling ? 1 : 0;
  }
  EXPECT_GT(given, 8);
  EXPECT_LT(given, 32);
  EXPECT_GT(rolling, 8);
  EXPECT_LT(rolling, 32);
}

class DmdStage : public ::testing::Test {
 protected:
  Dmd stage() const { return Dmd(generator_, fake_, real_, {}, options_); }
  std::string complaint() const {
    return error_of([&] { stage(); });
  }
  DmdOptions options_ = make_options();
  std::shared_ptr<models::Backbone> generator_ = small_wan(), fake_ = small_wan(1),
                                    real_ = small_wan();
};

TEST_F(DmdStage, UpdatesTheCriticAlwaysAndTheGeneratorEveryFewIterations) {
  options_.ratio = 3;
  const Dmd wan = stage();
  EXPECT_THAT(wan.updates(0), ElementsAre(0, 1));
  EXPECT_THAT(wan.updates(1), ElementsAre(1));
  EXPECT_THAT(wan.updates(2), ElementsAre(1));
  EXPECT_THAT(wan.updates(3), ElementsAre(0, 1));
  options_.schedule = "hy";
  const Dmd hy = stage();
  EXPECT_THAT(hy.updates(0), ElementsAre(0));
  EXPECT_THAT(hy.updates(1), ElementsAre(1));
  EXPECT_THAT(hy.updates(3), ElementsAre(0));
}

TEST_F(DmdStage, TrainsTheGeneratorAndTheCriticAndFreezesTheRealScore) {
  const Dmd dmd = stage();
  EXPECT_EQ(dmd.name(), "dmd");
  const auto networks = dmd.networks();
  ASSERT_EQ(networks.size(), 2U);
  EXPECT_EQ(networks[0].name, "model");
  EXPECT_EQ(networks[0].module, generator_);
  EXPECT_EQ(networks[1].name, "critic");
  EXPECT_EQ(networks[1].module, fake_);
  for (const auto& p : real_->parameters()) {
    EXPECT_FALSE(p.requires_grad());
  }
}

TEST_F(DmdStage, LogsWhatTellsAHealthyRun) {
  Dmd dmd = stage();
  const auto batch = small_batch(kFrames, {0, 1});
  const auto generator = dmd.loss(0, batch, {1, 0, 0});
  EXPECT_EQ(generator.values.at("generator_loss").item<double>(), generator.loss.item<double>());
  EXPECT_GT(generator.values.at("dmd_gradient").item<double>(), 0);
  EXPECT_EQ(generator.values.at("nonfinite").item<double>(), 0);
  const auto critic = dmd.loss(1, batch, {1, 0, 0});
  EXPECT_EQ(critic.values.at("critic_loss").item<double>(), critic.loss.item<double>());
  for (const auto& output : {generator, critic}) {
    EXPECT_GE(output.values.at("score_sigma").item<double>(), 0.02);
    EXPECT_LE(output.values.at("exit_step").item<double>(), 3);
    for (const auto& [name, value] : output.values) {
      EXPECT_FALSE(value.requires_grad()) << name;
    }
  }
  EXPECT_FALSE(at::equal(generator.values.at("score_sigma"), critic.values.at("score_sigma")));
}

TEST_F(DmdStage, ReadsItsOptions) {
  Options options("test", "");
  options_.declare(options);
  const char* arguments[] = {"test",
                             "--dmd.ratio",
                             "2",
                             "--dmd.shift",
                             "3",
                             "--rollout.shift",
                             "4",
                             "--dmd.clean_first",
                             "0.5",
                             "--dmd.schedule",
                             "hy",
                             "--dmd.timestep_convention",
                             "upstream_index"};
  ASSERT_TRUE(options.parse(static_cast<int>(std::size(arguments)), arguments));
  EXPECT_EQ(options_.ratio, 2);
  EXPECT_EQ(options_.score.level.shift, 3);
  EXPECT_EQ(options_.rollout.shift, 4);
  EXPECT_EQ(options_.schedule, "hy");
  EXPECT_THAT(complaint(), HasSubstr("dmd.clean_first 0.5: a given frame has no entry"));
}

TEST_F(DmdStage, RefusesOptionsThatMakeNoSense) {
  options_.ratio = 0;
  EXPECT_THAT(complaint(), HasSubstr("dmd.ratio 0: expected at least 1"));
  options_.ratio = 1;
  options_.schedule = "hy";
  EXPECT_THAT(complaint(), HasSubstr("never updates the critic"));
  options_ = make_options();
  options_.clean_first = 2;
  EXPECT_THAT(complaint(), HasSubstr("dmd.clean_first 2: expected a probability"));
  options_ = make_options();
  options_.rolling = -1;
  EXPECT_THAT(complaint(), HasSubstr("dmd.rolling -1"));
  options_ = make_options();
  options_.score.max_sigma = 2;
  EXPECT_THAT(complaint(), HasSubstr("dmd.max_sigma 2"));
}

}  // namespace
}  // namespace minwm::stages
