#include "minwm/stages/levels.h"

#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/diffusion/losses.h"
#include "minwm/stages/text_dropout.h"

namespace minwm::stages {
namespace {

at::Tensor values(const char* what) {
  return random_normal({2, 3, 4, 2, 2}, {1, what});
}

at::Tensor sigmas(double value) {
  return at::full({2, 3}, value);
}

TEST(Noised, EndpointsAreTheClipAndTheNoise) {
  const at::Tensor clean = values("clean"), noise = values("noise");
  EXPECT_TRUE(at::equal(noised(clean, noise, sigmas(0), {}), clean));
  EXPECT_TRUE(at::equal(noised(clean, noise, sigmas(1), {}), noise));
  EXPECT_TRUE(at::allclose(noised(clean, noise, sigmas(0.25), {}), 0.75 * clean + 0.25 * noise));
}

TEST(Noised, EveryFrameHasItsOwnLevel) {
  const at::Tensor clean = values("clean"), noise = values("noise");
  at::Tensor sigma = sigmas(0);
  sigma[1][2] = 1;
  const at::Tensor x = noised(clean, noise, sigma, {});
  EXPECT_TRUE(at::equal(x[1][2], noise[1][2]));
  EXPECT_TRUE(at::equal(x[1][1], clean[1][1]));
  EXPECT_TRUE(at::equal(x[0][2], clean[0][2]));
}

TEST(Noised, TheFlowLeadsBackToTheClip) {
  const at::Tensor clean = values("clean"), noise = values("noise");
  const auto round_trip = [&](const at::Tensor& x0, const at::Tensor& e) {
    const at::Tensor x = noised(x0, e, sigmas(0.7), {});
    EXPECT_EQ(x.scalar_type(), x0.scalar_type());
    const at::Tensor flow = diffusion::flow_target(x0.to(at::kFloat), e.to(at::kFloat));
    return (diffusion::predict_x0(x.to(at::kFloat), flow, sigmas(0.7)) - x0.to(at::kFloat))
        .abs()
        .max()
        .item<double>();
  };
  EXPECT_LT(round_trip(clean, noise), 1e-5);
  EXPECT_LT(round_trip(clean.to(at::kBFloat16), noise.to(at::kBFloat16)), 0.05);
}

TEST(Noised, OneReferenceRoundsEveryOperationTheOtherTheResult) {
  const at::Tensor clean = values("clean").to(at::kBFloat16),
                   noise = values("noise").to(at::kBFloat16);
  const at::Tensor exact = 0.3 * clean.to(at::kFloat) + 0.7 * noise.to(at::kFloat);
  LevelOptions hy;
  hy.bfloat16_sigma = true;
  const auto error = [&](const LevelOptions& options) {
    return (noised(clean, noise, sigmas(0.7), options).to(at::kFloat) - exact)
        .abs()
        .mean()
        .item<double>();
  };
  EXPECT_LT(error({}), error(hy));
}

TEST(Levels, SigmaIsTheTimestepUnlessASwitchSaysOtherwise) {
  const at::Tensor t = at::tensor({1000.0F, 833.3333F, 625.0F, 0.0F});
  LevelOptions options;
  EXPECT_TRUE(at::equal(sigma_of(t, options), t / 1000));
  EXPECT_TRUE(at::equal(network_timestep(t, options), t));
  options.table_sigma = true;
  // The table has no entry at 0; its smallest is 4.98008.
  EXPECT_TRUE(at::allclose(sigma_of(t, options), at::tensor({1.0F, 0.8333333F, 0.625F, 0.00498F}),
                           1e-4, 1e-6));
}

TEST(Levels, WanRoundsTheTimestepHyAlsoSigma) {
  const at::Tensor t = at::tensor({870.0F});
  LevelOptions options;
  options.bfloat16_timestep = true;
  EXPECT_EQ(network_timestep(t, options).item<float>(), 872);
  EXPECT_FLOAT_EQ(sigma_of(t, options).item<float>(), 0.872F);
  options.bfloat16_sigma = true;
  EXPECT_EQ(network_timestep(t, options).item<float>(), 872);
  EXPECT_EQ(sigma_of(t, options).item<float>(), 0.87109375F);
}

TEST(TextDropout, ReplacesTextGlyphsAndMasksOfTheDroppedOnly) {
  models::Conditions conditions, negative;
  conditions.text = at::ones({2, 3, 5});
  conditions.text_mask = at::ones({2, 3});
  conditions.byt5 = at::ones({2, 4, 6});
  conditions.byt5_mask = at::ones({2, 4});
  conditions.vision = at::ones({2, 1, 5});
  negative.text = at::full({1, 3, 5}, 0.5);
  negative.text_mask = at::tensor({1.0F, 0.0F, 0.0F}).unsqueeze(0);
  negative.byt5 = at::zeros({1, 4, 6});
  negative.byt5_mask = at::zeros({1, 4});
  const at::Tensor kept = at::tensor({1.0F, 0.0F}).view({2, 1, 1});
  const auto out = keep_text(conditions, kept, negative);
  for (const auto& [ours, positive, dropped] :
       {std::tuple(out.text, conditions.text, negative.text),
        std::tuple(out.text_mask, conditions.text_mask, negative.text_mask),
        std::tuple(out.byt5, conditions.byt5, negative.byt5),
        std::tuple(out.byt5_mask, conditions.byt5_mask, negative.byt5_mask)}) {
    EXPECT_TRUE(at::equal(ours[0], positive[0]));
    EXPECT_TRUE(at::equal(ours[1], dropped[0]));
  }
  EXPECT_TRUE(at::equal(out.vision, conditions.vision));
}

TEST(TextDropout, WithoutANegativeTextIsZerosAndWithoutDrawsStays) {
  models::Conditions conditions;
  conditions.text = at::ones({2, 3, 5});
  const auto out = keep_text(conditions, at::zeros({2, 1, 1}), {});
  EXPECT_TRUE(at::equal(out.text, at::zeros({2, 3, 5})));
  EXPECT_TRUE(keep_text(conditions, {}, {}).text.is_same(conditions.text));
  EXPECT_FALSE(draw_text_kept({}, {}, "test.text", 0).defined());
}

}  // namespace
}  // namespace minwm::stages
