#include "minwm/stages/ode_pairs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/models/wan/backbone.h"
#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"

namespace minwm::stages {
namespace {

using minwm::testing::error_of;
using testing::FakeBackbone;
using ::testing::HasSubstr;

TEST(KeptSteps, AreThoseThatStartAtTheLevelsOfTheList) {
  using Steps = std::vector<int64_t>;
  EXPECT_EQ(kept_steps(48, {1000, 750, 500, 250}), (Steps{0, 12, 24, 36}));
  EXPECT_EQ(kept_steps(12, {1000, 750, 500, 250}), (Steps{0, 3, 6, 9}));
  EXPECT_EQ(kept_steps(2, {1000, 500}), (Steps{0, 1}));
  EXPECT_EQ(kept_steps(30, {1000, 900, 100}), (Steps{0, 3, 27}));
  const auto few = diffusion::few_step_sigmas({1000, 750, 500, 250}, 5);
  const auto all = diffusion::sampling_sigmas(48, 5);
  for (size_t i = 0; i < few.size(); ++i) {
    EXPECT_DOUBLE_EQ(all[12 * i], few[i]);
  }
}

TEST(KeptSteps, NameTheLevelThatIsMissedAndStepsThatFit) {
  EXPECT_EQ(error_of([] {
              kept_steps(50, {1000, 750, 500, 250});
            }),
            "50 solver steps: none starts at timestep 750 of the step list; 52 steps fit");
  EXPECT_EQ(error_of([] {
              kept_steps(48, {1000, 314.15});
            }),
            "48 solver steps: none starts at timestep 314.15 of the step list");
  EXPECT_THAT(error_of([] { kept_steps(0, {1000}); }), HasSubstr("expected at least 1"));
  EXPECT_THAT(error_of([] { kept_steps(48, {500, 750}); }), HasSubstr("out of order"));
}

/// A small Wan with a camera whose every weight matters, and clips for it.
class OdePairs : public ::testing::Test {
 protected:
  static constexpr int64_t kClips = 2, kFrames = 6;

  void SetUp() override {
    at::set_num_threads(1);
    models::WanConfig config;
    config.in_dim = config.out_dim = 3;
    config.dim = 48;
    config.ffn_dim = 64;
    config.freq_dim = 16;
    config.text_dim = 5;
    config.text_len = 4;
    config.num_heads = 2;
    config.num_layers = 2;
    config.camera_init_zero = false;
    model_ = std::make_shared<models::WanBackbone>(config, 1);
    at::NoGradGuard no_grad;
    for (auto& parameter : model_->named_parameters()) {
      parameter.value().add_(0.1 * random_normal(parameter.value().sizes(), {7, parameter.key()}));
    }
    const std::vector<int64_t> shape = {kClips, kFrames, 3, 4, 4};
    input_.clean = random_normal(shape, {1, "clean"});
    input_.noise = random_normal(shape, {1, "noise"});
    input_.conditions.text = random_normal({kClips, 4, 5}, {1, "text"});
    at::Tensor cameras = at::eye(4).repeat({kClips, kFrames, 1, 1});
    for (int64_t t = 0; t < kFrames; ++t) {
      cameras.select(1, t).select(1, 2).select(1, 3).fill_(-0.08 * static_cast<double>(t));
    }
    input_.conditions.cameras = {cameras, at::eye(3).repeat({kClips, kFrames, 1, 1})};
    options_.steps = 4;
    options_.kept = {0, 2};
    options_.chunk_frames = 2;
  }

  at::Tensor pairs(bool cached) {
    options_.cached = cached;
    return ode_pairs(*model_, input_, options_);
  }
  /// Largest difference between the two modes.
  double difference() { return (pairs(true) - pairs(false)).abs().max().item<double>(); }

  std::shared_ptr<models::WanBackbone> model_;
  OdePairInput input_;
  OdePairOptions options_;
};

TEST_F(OdePairs, StartAtTheNoiseAndEndWithTheRealClip) {
  const at::Tensor states = pairs(true);
  EXPECT_EQ(states.sizes(), (std::vector<int64_t>{kClips, 4, kFrames, 3, 4, 4}));
  EXPECT_TRUE(at::equal(states.select(1, 0), input_.noise));
  EXPECT_TRUE(at::equal(states.select(1, 3), input_.clean));
  for (int64_t k = 0; k < 3; ++k) {
    EXPECT_GT((states.select(1, k + 1) - states.select(1, k)).abs().mean().item<double>(), 1e-2);
  }
  EXPECT_FALSE(states.requires_grad());
}

TEST_F(OdePairs, OverTheCacheAreThoseOfTheWholePass) {
  EXPECT_LT(difference(), 2e-5);
}

TEST_F(OdePairs, OverTheCacheAreThoseOfTheWholePassUnderGuidance) {
  const at::Tensor unguided = pairs(true);
  options_.guidance_scale = 4;
  input_.negative.text = random_normal({1, 4, 5}, {2, "text"});
  EXPECT_LT(difference(), 1e-4);
  EXPECT_GT((pairs(true) - unguided).abs().max().item<double>(), 1e-2);
}

TEST_F(OdePairs, OverTheCacheAreThoseOfTheWholePassWithGivenLatents) {
  input_.given = at::tensor({int64_t{1}, int64_t{0}}, at::kLong);
  EXPECT_LT(difference(), 2e-5);
}

TEST_F(OdePairs, GivenLatentsStayCleanInEveryState) {
  const at::Tensor free = pairs(true);
  input_.given = at::tensor({int64_t{1}, int64_t{0}}, at::kLong);
  const at::Tensor states = pairs(true);
  for (int64_t k = 0; k < 4; ++k) {
    EXPECT_TRUE(at::equal(states[0][k][0], input_.clean[0][0]));
  }
  EXPECT_FALSE(at::allclose(states[0][2][1], free[0][2][1])) << "the rest of the chunk sees it";
  EXPECT_TRUE(at::allclose(states[1], free[1], 1e-4, 1e-5));
}

TEST_F(OdePairs, AChunkDependsOnTheRealPastNotOnTheGeneratedOne) {
  const at::Tensor before = pairs(true);
  input_.noise.narrow(1, 0, 2).neg_();
  const at::Tensor other_noise = pairs(true);
  EXPECT_TRUE(at::allclose(other_noise.narrow(2, 2, 4), before.narrow(2, 2, 4), 1e-4, 1e-5));
  input_.clean.narrow(1, 0, 2).neg_();
  const at::Tensor other_past = pairs(true);
  EXPECT_FALSE(at::allclose(other_past[0][2][2], before[0][2][2], 1e-3, 1e-3));
}

TEST_F(OdePairs, OfOneClipAreThoseOfABatch) {
  const at::Tensor both = pairs(true);
  OdePairInput second = input_;
  second.clean = input_.clean.narrow(0, 1, 1);
  second.noise = input_.noise.narrow(0, 1, 1);
  second.conditions.text = input_.conditions.text.narrow(0, 1, 1);
  second.conditions.cameras = {input_.conditions.cameras.world_to_camera.narrow(0, 1, 1),
                               input_.conditions.cameras.intrinsics.narrow(0, 1, 1)};
  EXPECT_TRUE(at::allclose(ode_pairs(*model_, second, options_)[0], both[1], 1e-4, 1e-5));
}

TEST_F(OdePairs, OfChunksThatDoNotDivideTheClipAreRefused) {
  options_.chunk_frames = 4;
  EXPECT_THAT(error_of([&] { pairs(true); }),
              HasSubstr("6 latent frames are not a multiple of the chunk of 4"));
}

/// A straight flow: Euler is exact, and every state lies on the line from noise to target.
TEST(OdePairSolver, FollowsAStraightFlowExactly) {
  const at::Tensor target = random_normal({1, 2, 3, 2, 2}, {3, "target"});
  OdePairInput input;
  input.noise = random_normal({1, 2, 3, 2, 2}, {3, "noise"});
  input.clean = at::zeros({1, 2, 3, 2, 2});
  FakeBackbone model([&](const models::ForwardInput&) { return input.noise - target; });
  OdePairOptions options;
  options.cached = false;
  options.chunk_frames = 2;
  const at::Tensor states = ode_pairs(model, input, options);
  const auto sigmas = diffusion::few_step_sigmas({1000, 750, 500, 250}, options.shift);
  for (int64_t k = 0; k < 4; ++k) {
    const double sigma = sigmas[static_cast<size_t>(k)];
    EXPECT_TRUE(
        at::allclose(states.select(1, k), (1 - sigma) * target + sigma * input.noise, 1e-4, 1e-5));
  }
  EXPECT_TRUE(at::allclose(states.select(1, 4), target, 1e-4, 1e-5));
  EXPECT_NEAR(model.last.timestep[0][0].item<double>(), 1000 * diffusion::shift_sigma(1. / 48, 5),
              1e-3);
}

}  // namespace
}  // namespace minwm::stages
