#include "minwm/stages/dmd_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"
#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"

namespace minwm::stages {
namespace {

using minwm::testing::error_of;
using testing::FakeBackbone;
using ::testing::HasSubstr;

constexpr int64_t kFrames = 4;

Rollout make_rollout(int64_t batch = 2) {
  Rollout rollout;
  rollout.latents = random_normal({batch, kFrames, 3, 2, 2}, {1, "rollout"});
  return rollout;
}

ScoreDraws draws_at(const std::vector<double>& u) {
  ScoreDraws draws;
  draws.u = at::tensor(u, at::kFloat);
  draws.noise =
      random_normal({static_cast<int64_t>(u.size()), kFrames, 3, 2, 2}, {1, "score noise"});
  return draws;
}

/// sigma of every sample for the places `u` in the range of levels.
std::vector<double> sigmas(const std::vector<double>& u, const ScoreOptions& options,
                           double from = -1, double to = -1) {
  Rollout rollout = make_rollout(static_cast<int64_t>(u.size()));
  rollout.from = from;
  rollout.to = to;
  const at::Tensor sigma = score_input(rollout, draws_at(u), 0, options).sigma;
  EXPECT_TRUE(at::equal(sigma, sigma.narrow(1, 0, 1).expand_as(sigma)));
  std::vector<double> out;
  for (int64_t i = 0; i < sigma.size(0); ++i) {
    out.push_back(sigma[i][0].item<double>());
  }
  return out;
}

void expect_near(const std::vector<double>& ours, const std::vector<double>& expected) {
  ASSERT_EQ(ours.size(), expected.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_NEAR(ours[i], expected[i], 1e-6) << "sample " << i;
  }
}

/// A model whose flow is the clip's truth: (x - x0) / sigma.
std::shared_ptr<FakeBackbone> expert(const at::Tensor& truth) {
  return std::make_shared<FakeBackbone>([truth](const models::ForwardInput& input) {
    const at::Tensor sigma = diffusion::per_frame(input.timestep / 1000, truth);
    return at::where(sigma > 0, (input.latents - truth) / sigma, at::zeros_like(truth));
  });
}

/// Its flow is 2 for samples with text and 1 for those without.
std::shared_ptr<FakeBackbone> text_reader() {
  return std::make_shared<FakeBackbone>([](const models::ForwardInput& input) {
    const at::Tensor has_text = (input.conditions.text.abs().sum({1, 2}) > 0).to(at::kFloat);
    return (1 + has_text).view({-1, 1, 1, 1, 1}).expand_as(input.latents).clone();
  });
}

models::ForwardInput question(int64_t batch = 2) {
  models::ForwardInput input;
  input.latents = random_normal({batch, kFrames, 3, 2, 2}, {1, "x"});
  input.timestep = at::full({batch, kFrames}, 500.0);
  input.conditions.text = at::ones({batch, 3, 5});
  input.conditions.cameras = {at::eye(4).expand({batch, kFrames, 4, 4}),
                              at::eye(3).expand({batch, kFrames, 3, 3})};
  return input;
}

TEST(ScoreLevel, IsUniformBeforeTheShiftAndKeptFromTheEnds) {
  ScoreOptions options;
  options.level.shift = 3;
  expect_near(sigmas({0, 0.25, 0.5, 0.999}, options), {0.02, 0.5, 0.75, 0.98});
}

TEST(ScoreLevel, MayFollowTheExitStepAtEitherEnd) {
  ScoreOptions options;
  options.level.shift = 1;
  options.ts_schedule = true;
  expect_near(sigmas({0, 0.5}, options, 750, 500), {0.5, 0.75});
  options.ts_schedule_max = true;
  expect_near(sigmas({0, 0.5}, options, 750, 500), {0.5, 0.625});
  options.ts_schedule = false;
  options.min_timestep = 100;
  expect_near(sigmas({0, 0.5}, options, 750, 500), {0.1, 0.425});
  // Chunks with exits of their own have no common range.
  expect_near(sigmas({0, 0.5}, options, -1, -1), {0.1, 0.55});
}

TEST(ScoreLevel, CanBeATableEntryThatTheScoresAreToldByItsIndex) {
  ScoreOptions options;  // spec stages 10.3: sigma .9994 is told as 3
  options.truncate_index = true;
  options.max_sigma = 1;
  options.min_sigma = 0;
  options.timestep_convention = "upstream_index";
  const ScoreInput told_index = score_input(make_rollout(1), draws_at({0.9967}), 0, options);
  EXPECT_NEAR(told_index.sigma[0][0].item<double>(), 0.9994, 1e-4);
  EXPECT_EQ(told_index.timestep[0][0].item<double>(), 3);
  options.timestep_convention = "sigma";
  const ScoreInput told_sigma = score_input(make_rollout(1), draws_at({0.9967}), 0, options);
  EXPECT_TRUE(at::equal(told_sigma.sigma, told_index.sigma));
  EXPECT_NEAR(told_sigma.timestep[0][0].item<double>(), 999.4, 0.1);
}

TEST(ScoreLevel, KeepsTableEntriesInTheirRange) {
  ScoreOptions options;
  options.truncate_index = true;
  options.level.shift = 1;
  options.min_sigma = 0;
  options.max_sigma = 1;
  expect_near(sigmas({0, 0.9999}, options), {0.001, 1});  // entry 1000 does not exist
  options.min_index = 0.02;
  options.max_index = 0.98;
  expect_near(sigmas({0, 0.9999}, options), {0.02, 0.98});
}

TEST(ScoreInput, NoisesTheRolloutWithoutAGraphAndLeavesGivenFramesClean) {
  Rollout rollout = make_rollout();
  rollout.latents.requires_grad_();
  const ScoreDraws draws = draws_at({0.3, 0.6});
  const ScoreInput input = score_input(rollout, draws, 1, {});
  EXPECT_FALSE(input.noisy.requires_grad());
  EXPECT_TRUE(at::equal(input.noisy.select(1, 0), rollout.latents.detach().select(1, 0)));
  EXPECT_EQ(input.timestep.select(1, 0).abs().max().item<double>(), 0);
  const at::Tensor s = diffusion::per_frame(input.sigma, draws.noise).slice(1, 1);
  EXPECT_TRUE(at::allclose(
      input.noisy.slice(1, 1),
      (1 - s) * rollout.latents.detach().slice(1, 1) + s * draws.noise.slice(1, 1), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(input.timestep, 1000 * input.sigma));
}

TEST(GuidedFlow, IsOneForwardOfTwiceTheBatch) {
  const auto model = text_reader();
  const GuidedFlow answer = guided_flow(*model, question(), {}, 3);
  EXPECT_EQ(model->last.latents.size(0), 4);
  EXPECT_EQ(model->last.conditions.cameras.intrinsics.size(0), 4);
  EXPECT_TRUE(at::equal(answer.conditional, at::full_like(answer.flow, 2)));
  EXPECT_TRUE(at::equal(answer.unconditional, at::full_like(answer.flow, 1)));
  EXPECT_TRUE(at::equal(answer.flow, at::full_like(answer.flow, 4)));  // 1 + 3 (2 - 1)
}

TEST(GuidedFlow, SkipsTheHalfThatDoesNotCount) {
  const auto model = text_reader();
  const GuidedFlow conditional = guided_flow(*model, question(), {}, 1);
  EXPECT_EQ(model->last.latents.size(0), 2);
  EXPECT_TRUE(at::equal(conditional.flow, at::full_like(conditional.flow, 2)));
  EXPECT_FALSE(conditional.unconditional.defined());
  const GuidedFlow unconditional = guided_flow(*model, question(), {}, 0);
  EXPECT_EQ(model->last.latents.size(0), 2);
  EXPECT_TRUE(at::equal(unconditional.flow, at::full_like(unconditional.flow, 1)));
  EXPECT_FALSE(unconditional.conditional.defined());
}

TEST(GuidedFlow, AsksTheUnconditionalHalfWithTheNegativeText) {
  const auto model = text_reader();
  models::Conditions negative;
  negative.text = at::full({1, 3, 5}, 7.0);
  guided_flow(*model, question(), negative, 3);
  const at::Tensor text = model->last.conditions.text;
  EXPECT_TRUE(at::equal(text.narrow(0, 0, 2), at::ones({2, 3, 5})));
  EXPECT_TRUE(at::equal(text.narrow(0, 2, 2), at::full({2, 3, 5}, 7.0)));
}

class ScoreGradient : public ::testing::Test {
 protected:
  ScoreTerms terms(models::Backbone& fake, models::Backbone& real, int64_t given = 0) {
    input_ = score_input(rollout_, draws_, given, options_);
    return score_gradient(fake, real, rollout_, input_, question().conditions, {}, given, options_);
  }
  Rollout rollout_ = make_rollout();
  ScoreDraws draws_ = draws_at({0.3, 0.6});
  ScoreOptions options_ = [] {
    ScoreOptions options;
    options.real_guidance = 1;
    return options;
  }();
  ScoreInput input_;
  /// Two clips at different distances from the rollout.
  at::Tensor target_ = rollout_.latents + at::tensor({1.0F, 4.0F}).view({2, 1, 1, 1, 1}) *
                                              random_normal({2, kFrames, 3, 2, 2}, {1, "off"});
};

TEST_F(ScoreGradient, LeadsFromTheFakeClipToTheRealOneAtUnitScalePerSample) {
  const at::Tensor& x = rollout_.latents;
  const auto found = terms(*expert(x), *expert(target_));
  for (int64_t i = 0; i < 2; ++i) {
    const at::Tensor away = x[i] - target_[i];
    EXPECT_TRUE(at::allclose(found.gradient[i], away / away.abs().mean(), 1e-3, 1e-4));
  }
}

TEST_F(ScoreGradient, CanBeScaledByTheWholeBatch) {
  options_.normalizer = "global";
  const auto found = terms(*expert(rollout_.latents), *expert(target_));
  const at::Tensor away = rollout_.latents - target_;
  EXPECT_TRUE(at::allclose(found.gradient, away / away.abs().mean(), 1e-3, 1e-4));
}

TEST_F(ScoreGradient, IsZeroWhereTheScoresAgree) {
  const auto found = terms(*expert(target_), *expert(target_));
  EXPECT_EQ(found.gradient.abs().max().item<double>(), 0);
  EXPECT_EQ(found.nonfinite.item<double>(), 0);
}

TEST_F(ScoreGradient, StaysFiniteWhereNothingIsLeftToNormaliseBy) {
  rollout_.latents.zero_();
  draws_.noise.zero_();
  const auto zero = text_reader();
  const auto still = std::make_shared<FakeBackbone>(
      [](const models::ForwardInput& input) { return at::zeros_like(input.latents); });
  const auto found = terms(*zero, *still);  // x = x0_real = 0, the scores differ
  EXPECT_TRUE(at::isfinite(found.gradient).all().item<bool>());
}

TEST_F(ScoreGradient, CountsWhatIsNotFiniteAndLeavesItOut) {
  const auto broken = std::make_shared<FakeBackbone>([](const models::ForwardInput& input) {
    at::Tensor flow = at::zeros_like(input.latents);
    flow[0][1][0][0][0] = std::nan("");
    return flow;
  });
  const auto found = terms(*broken, *expert(target_));
  EXPECT_EQ(found.nonfinite.item<double>(), 1);
  EXPECT_EQ(found.gradient[0][1][0][0][0].item<double>(), 0);
  EXPECT_TRUE(at::isfinite(found.gradient).all().item<bool>());
}

TEST_F(ScoreGradient, LeavesGivenFramesOutOfItsScaleToo) {
  const auto before = terms(*expert(rollout_.latents), *expert(target_), 1).gradient;
  target_.select(1, 0).add_(100);
  const auto after = terms(*expert(rollout_.latents), *expert(target_), 1).gradient;
  EXPECT_TRUE(at::equal(before, after));
  EXPECT_EQ(before.select(1, 0).abs().max().item<double>(), 0);
  EXPECT_NEAR(before.slice(1, 1).abs().mean().item<double>(), 1, 1e-3);
}

TEST_F(ScoreGradient, KnowsBothConventionsOfGuidance) {
  options_.real_guidance = 4;
  const auto standard = terms(*text_reader(), *text_reader());
  EXPECT_TRUE(at::equal(standard.real.flow, at::full_like(standard.real.flow, 5)));
  EXPECT_TRUE(at::equal(standard.fake.flow, at::full_like(standard.fake.flow, 2)));
  options_.guidance_form = "plus";
  options_.real_guidance = 3;
  options_.fake_guidance = 0;
  const auto plus = terms(*text_reader(), *text_reader());
  EXPECT_TRUE(at::equal(plus.gradient, standard.gradient));
  EXPECT_FALSE(plus.fake.unconditional.defined());
}

TEST_F(ScoreGradient, BuildsNoGraph) {
  std::vector<bool> grad_modes;
  const auto watching = std::make_shared<FakeBackbone>([&](const models::ForwardInput& input) {
    grad_modes.push_back(at::GradMode::is_enabled());
    return at::zeros_like(input.latents);
  });
  rollout_.latents.requires_grad_();
  EXPECT_FALSE(terms(*watching, *watching).gradient.requires_grad());
  EXPECT_THAT(grad_modes, ::testing::ElementsAre(false, false));
}

TEST(ScoreDraws, BelongToTheSampleUnlessTheyShallBeShared) {
  data::Batch batch;
  batch.latents = at::zeros({3, kFrames, 3, 2, 2});
  batch.global_samples = {4, 5, 6};
  data::Batch part;
  part.latents = at::zeros({1, kFrames, 3, 2, 2});
  part.global_samples = {5};
  const auto all = draw_score(batch, {1, 2, 0}, "critic", {});
  const auto one = draw_score(part, {1, 2, 0}, "critic", {});
  EXPECT_TRUE(at::equal(all.u.narrow(0, 1, 1), one.u));
  EXPECT_TRUE(at::equal(all.noise.narrow(0, 1, 1), one.noise));
  EXPECT_FALSE(at::equal(all.u[0], all.u[1]));
  EXPECT_FALSE(at::equal(draw_score(part, {1, 2, 0}, "generator", {}).noise, one.noise));
  EXPECT_FALSE(at::equal(draw_score(part, {1, 3, 0}, "critic", {}).noise, one.noise));
  ScoreOptions shared;
  shared.shared_draw = true;
  const auto same = draw_score(batch, {1, 2, 0}, "critic", shared);
  EXPECT_TRUE(at::equal(same.noise[0], same.noise[2]));
  EXPECT_TRUE(at::equal(same.noise[0], draw_score(part, {1, 2, 0}, "critic", shared).noise[0]));
  EXPECT_EQ(same.u.numel(), 1);
}

TEST(ScoreOptions, RefusesValuesThatMakeNoSense) {
  const auto complaint = [](const std::function<void(ScoreOptions&)>& change) {
    ScoreOptions options;
    change(options);
    return error_of([&] { options.check(); });
  };
  EXPECT_THAT(complaint([](auto& o) { o.min_sigma = 0.99; }), HasSubstr("dmd.min_sigma 0.99"));
  EXPECT_THAT(complaint([](auto& o) { o.max_index = 2; }), HasSubstr("dmd.max_index 2"));
  EXPECT_THAT(complaint([](auto& o) { o.min_timestep = 1000; }), HasSubstr("dmd.min_timestep"));
  EXPECT_THAT(complaint([](auto& o) { o.level.shift = 0; }), HasSubstr("dmd.shift 0"));
  EXPECT_THAT(complaint([](auto& o) { o.real_guidance = -1; }), HasSubstr("dmd.real_guidance -1"));
  EXPECT_THAT(complaint([](auto& o) { o.real_guidance = 0; }),
              HasSubstr("1 switches guidance off in the standard form"));
  EXPECT_NO_THROW(ScoreOptions().check());
}

}  // namespace
}  // namespace minwm::stages
