#include "minwm/diffusion/losses.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"

namespace minwm::diffusion {
namespace {

constexpr int64_t kFrames = 3;

at::Tensor clip(const char* purpose) {
  return random_normal({2, kFrames, 4, 2, 2}, {1, purpose});
}
double value(const at::Tensor& scalar) {
  return scalar.item<double>();
}

TEST(SquaredError, IsZeroAtEqualityAndOneForOnesAgainstZeros) {
  const auto x = clip("x");
  EXPECT_EQ(value(squared_error(x, x)), 0);
  EXPECT_EQ(value(squared_error(at::ones_like(x), at::zeros_like(x))), 1);
}

TEST(SquaredError, AMaskLeavesFramesOutOfSumAndCount) {
  auto prediction = at::zeros({2, kFrames, 4, 2, 2});
  prediction.select(1, 2).fill_(3);
  const auto target = at::zeros_like(prediction);
  EXPECT_NEAR(value(squared_error(prediction, target)), 3, 1e-6);
  EXPECT_EQ(value(squared_error(prediction, target, at::tensor({1, 1, 0}))), 0);
  EXPECT_EQ(value(squared_error(prediction, target, at::tensor({0, 0, 1}))), 9);
  EXPECT_EQ(value(squared_error(prediction, target, at::zeros({kFrames}))), 0);
}

TEST(SquaredError, AWeightMultipliesFrames) {
  const auto ones = at::ones({2, kFrames, 4, 2, 2}), zeros = at::zeros_like(ones);
  const auto weight = at::tensor({1.F, 2.F, 6.F}).expand({2, kFrames});
  EXPECT_NEAR(value(squared_error(ones, zeros, {}, weight)), 3, 1e-6);
  EXPECT_NEAR(value(squared_error(ones, zeros, at::tensor({1, 1, 0}), weight)), 1.5, 1e-6);
}

TEST(SquaredError, OfBfloat16IsComputedInFloat32) {
  const auto half = at::full({1, 1, 1, 1, 1}, 1.0078125, at::kBFloat16);
  EXPECT_NEAR(value(squared_error(half, at::ones_like(half))), 0.0078125 * 0.0078125, 1e-9);
}

TEST(SquaredError, NamesAMaskOfAnotherLength) {
  EXPECT_THAT([] { squared_error(clip("a"), clip("b"), at::ones({kFrames + 1})); },
              ::testing::ThrowsMessage<Error>(::testing::HasSubstr("4 entries per clip for 3")));
}

TEST(CriticLoss, IsTheFlowMatchingErrorOfTheGeneratedClip) {
  const auto generated = clip("generated"), noise = clip("noise"), flow = clip("flow");
  EXPECT_EQ(value(critic_loss(noise - generated, generated, noise)), 0);
  EXPECT_NEAR(value(critic_loss(flow, generated, noise)),
              value((flow - (noise - generated)).square().mean()), 1e-5);
}

TEST(TeacherStep, ScaleOneIsConditionalEulerAndThreeGoesBeyond) {
  const auto x = clip("x"), c = clip("c"), u = clip("u");
  const auto now = at::full({2, kFrames}, 0.8), next = at::full({2, kFrames}, 0.7);
  EXPECT_TRUE(at::allclose(teacher_step(x, c, u, 1, now, next), x - 0.1 * c, 1e-5, 1e-5));
  // Conditional 2, unconditional 1, scale 3: flow 4; a step over the whole range from 0 gives -4.
  const auto zero = at::zeros_like(x);
  const auto whole = teacher_step(zero, at::full_like(x, 2), at::full_like(x, 1), 3,
                                  at::ones({2, kFrames}), at::zeros({2, kFrames}));
  EXPECT_TRUE(at::equal(whole, at::full_like(x, -4)));
}

TEST(DmdGradient, UnnormalisedIsFakeMinusReal) {
  const auto x = clip("x"), fake_flow = clip("fake"), real_flow = clip("real");
  const auto sigma = random_uniform({2, kFrames}, {1, "sigma"});
  const auto difference = score_difference(fake_flow, real_flow, sigma);
  const auto expected = predict_x0(x, fake_flow, sigma) - predict_x0(x, real_flow, sigma);
  EXPECT_TRUE(
      at::allclose(dmd_gradient(difference, x, x, Normalizer::kNone), expected, 1e-4, 1e-5));
}

TEST(DmdGradient, IsNormalisedPerSampleOrOverTheBatch) {
  const auto difference = at::ones({2, kFrames, 4, 2, 2}), real = at::zeros_like(difference);
  auto generated = at::ones_like(difference);
  generated[1].fill_(4);
  const auto each = dmd_gradient(difference, real, generated, Normalizer::kPerSample);
  EXPECT_NEAR(value(each[0].mean()), 1, 1e-6);
  EXPECT_NEAR(value(each[1].mean()), 0.25, 1e-6);
  const auto all = dmd_gradient(difference, real, generated, Normalizer::kGlobal);
  EXPECT_NEAR(value(all[0].mean()), 0.4, 1e-6);
  EXPECT_NEAR(value(all[1].mean()), 0.4, 1e-6);
}

TEST(DmdGradient, StaysFiniteWhateverTheScoresSay) {
  const auto x = clip("x");
  auto broken = clip("difference");
  broken.flatten()[0] = std::numeric_limits<float>::quiet_NaN();
  broken.flatten()[1] = std::numeric_limits<float>::infinity();
  for (const auto normalizer : {Normalizer::kNone, Normalizer::kPerSample, Normalizer::kGlobal}) {
    EXPECT_TRUE(dmd_gradient(broken, x, x, normalizer).isfinite().all().item<bool>());
  }
}

TEST(DmdLoss, IsHalfTheMeanSquareAndItsDerivativeIsTheGradient) {
  const auto x = clip("x").requires_grad_(), gradient = clip("gradient");
  const auto loss = dmd_loss(x, gradient);
  loss.backward();
  EXPECT_NEAR(value(loss), 0.5 * value(gradient.square().mean()), 1e-5);
  EXPECT_TRUE(at::allclose(x.grad(), gradient / static_cast<double>(x.numel()), 1e-4, 1e-8));
  EXPECT_EQ(value(dmd_loss(x, at::zeros_like(gradient))), 0);
}

TEST(DmdLoss, AMaskedFrameGetsNoGradient) {
  const auto x = clip("x").requires_grad_(), gradient = clip("gradient");
  dmd_loss(x, gradient, at::tensor({0, 1, 1})).backward();
  EXPECT_EQ(value(x.grad().select(1, 0).abs().max()), 0);
  EXPECT_TRUE(at::allclose(x.grad().narrow(1, 1, 2),
                           gradient.narrow(1, 1, 2) * 1.5 / static_cast<double>(x.numel()), 1e-4,
                           1e-8));
}

TEST(KeepGradient, KeepsValuesAndStopsGradientsOfOtherFrames) {
  EXPECT_TRUE(at::equal(last_frames(4, 1), at::tensor({0.F, 0.F, 0.F, 1.F})));
  EXPECT_TRUE(at::equal(last_frames(4, 0), at::ones({4})));
  EXPECT_TRUE(at::equal(last_frames(4, 9), at::ones({4})));
  const auto x = clip("x").requires_grad_();
  const auto kept = keep_gradient(x, last_frames(kFrames, 2));
  EXPECT_TRUE(at::equal(kept, x));
  kept.sum().backward();
  EXPECT_EQ(value(x.grad().select(1, 0).abs().max()), 0);
  EXPECT_TRUE(at::equal(x.grad().narrow(1, 1, 2), at::ones({2, 2, 4, 2, 2})));
}

}  // namespace
}  // namespace minwm::diffusion
