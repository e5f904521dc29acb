#include "minwm/diffusion/flow_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/diffusion/guidance.h"
#include "minwm/diffusion/losses.h"

namespace minwm::diffusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

at::Tensor clip(const char* purpose) {
  return random_normal({2, 3, 4, 2, 2}, {1, purpose});
}

TEST(ShiftSigma, EndpointsStayAndTheMiddleMovesUp) {
  EXPECT_EQ(shift_sigma(0, 5), 0);
  EXPECT_EQ(shift_sigma(1, 5), 1);
  EXPECT_DOUBLE_EQ(shift_sigma(0.5, 5), 2.5 / 3);
  EXPECT_DOUBLE_EQ(shift_sigma(0.3, 1), 0.3);
}

TEST(AddNoise, SigmaZeroIsCleanAndSigmaOneIsNoise) {
  const auto x0 = clip("x0"), noise = clip("noise");
  EXPECT_TRUE(at::equal(add_noise(x0, noise, at::zeros({2, 3})), x0));
  EXPECT_TRUE(at::equal(add_noise(x0, noise, at::ones({2, 3})), noise));
}

TEST(AddNoise, TheTrueFlowLeadsBackToTheCleanClip) {
  const auto x0 = clip("x0"), noise = clip("noise"), sigma = random_uniform({2, 3}, {1, "sigma"});
  const auto noisy = add_noise(x0, noise, sigma);
  EXPECT_TRUE(at::allclose(predict_x0(noisy, flow_target(x0, noise), sigma), x0, 1e-5, 1e-5));
}

TEST(FewStepSigmas, AreTheShiftedListAndRefuseAnotherOrder) {
  EXPECT_THAT(few_step_sigmas({1000, 750, 500, 250}, 5),
              ::testing::ElementsAre(1, 0.9375, ::testing::DoubleEq(2.5 / 3), 0.625));
  EXPECT_THAT([] { few_step_sigmas({500, 750}, 5); }, ThrowsMessage<Error>(HasSubstr("750")));
  EXPECT_THAT([] { few_step_sigmas({1000, 0}, 5); }, ThrowsMessage<Error>(HasSubstr("0 is out")));
}

TEST(FlowMatchTable, FlowToX0AndBackIsARoundTrip) {
  const FlowMatchTable table({});
  const auto x = clip("x"), flow = clip("flow");
  const auto t = 1000 * random_uniform({2, 3}, {1, "t"});
  const auto x0 = table.x0_from_flow(flow, x, t);
  EXPECT_TRUE(at::allclose(table.flow_from_x0(x0, x, t), flow, 1e-3, 1e-4));
}

TEST(FlowMatchTable, TimestepZeroIsTheSmallestEntryNotZero) {
  const FlowMatchTable table({});
  EXPECT_NEAR(table.sigma(at::zeros({1})).item<double>(), 0.00498008, 1e-7);
  EXPECT_EQ(table.training_weights()[0].item<float>(), 0);
  EXPECT_NEAR(table.training_weights().mean().item<double>(), 1, 1e-5);
}

TEST(Guidance, ScaleOneIsConditionalAndZeroUnconditional) {
  const auto c = clip("c"), u = clip("u");
  EXPECT_TRUE(at::allclose(guide(c, u, 1), c, 1e-5, 1e-6));
  EXPECT_TRUE(at::equal(guide(c, u, 0), u));
}

TEST(Guidance, BeyondIsTheOtherConventionWithOneMore) {
  const auto c = clip("c"), u = clip("u");
  EXPECT_TRUE(at::equal(guide_beyond(c, u, 0), c));
  EXPECT_TRUE(at::allclose(guide_beyond(c, u, 3), guide(c, u, 4), 1e-5, 1e-5));
}

}  // namespace
}  // namespace minwm::diffusion
