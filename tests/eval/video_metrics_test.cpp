#include "minwm/eval/video_metrics.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

at::Tensor constant(int value, int64_t frames = 2, int64_t side = 16) {
  return at::full({frames, side, side, 3}, value, at::kByte);
}

// Grey stripes one pixel wide: the finest texture there is.
at::Tensor stripes(int low, int high, int64_t frames = 2) {
  const at::Tensor column = at::arange(16).remainder(2).mul(high - low).add(low).to(at::kByte);
  return column.view({1, 1, 16, 1}).expand({frames, 16, 16, 3}).contiguous();
}

TEST(VideoMetrics, PsnrFollowsItsFormulaAndIsCappedForEqualFrames) {
  EXPECT_NEAR(mean_psnr(constant(100), constant(110)), 20 * std::log10(255. / 10), 1e-4);
  EXPECT_NEAR(mean_psnr(constant(100), constant(100)), 60, 1e-4);
}

TEST(VideoMetrics, PsnrIsTheMeanOfTheFramesPsnr) {
  const at::Tensor a = constant(100), b = at::cat({constant(110, 1), constant(101, 1)});
  EXPECT_NEAR(mean_psnr(a, b), 10 * std::log10(255. / 10) + 10 * std::log10(255.), 1e-4);
}

TEST(VideoMetrics, SsimIsOneForEqualPicturesAndFollowsItsFormulaForFlatOnes) {
  EXPECT_NEAR(mean_ssim(stripes(0, 200), stripes(0, 200)), 1, 1e-5);
  const double c1 = 2.55 * 2.55;
  EXPECT_NEAR(mean_ssim(constant(100), constant(150)),
              (2 * 100 * 150 + c1) / (100. * 100 + 150. * 150 + c1), 1e-4);
  EXPECT_LT(mean_ssim(stripes(0, 200), stripes(200, 0)), -.9);  // same means, opposite structure
}

TEST(VideoMetrics, SsimRefusesFramesSmallerThanItsWindow) {
  EXPECT_THAT(error_of([] { mean_ssim(constant(1, 2, 10), constant(1, 2, 10)); }),
              HasSubstr("11x11 window"));
}

TEST(VideoMetrics, VideosOfDifferentSizeOrTypeAreRefused) {
  EXPECT_THAT(error_of([] { mean_psnr(constant(1, 2), constant(1, 3)); }), HasSubstr("one size"));
  EXPECT_THAT(error_of([] { mean_psnr(constant(1), constant(1).to(at::kFloat)); }),
              HasSubstr("uint8"));
}

TEST(VideoMetrics, TheGradientMeasuresTexture) {
  EXPECT_NEAR(mean_gradient(constant(90)), 0, 1e-4);
  EXPECT_NEAR(mean_gradient(stripes(50, 90)), 40, 1e-3);
}

TEST(VideoMetrics, FlickerIsOneForAFrozenVideo) {
  EXPECT_EQ(temporal_flickering(constant(90)), 1);
  EXPECT_NEAR(temporal_flickering(at::cat({constant(90, 1), constant(141, 1)})), .8, 1e-6);
  EXPECT_THAT(error_of([] { temporal_flickering(constant(90, 1)); }), HasSubstr("two frames"));
}

}  // namespace
}  // namespace minwm::eval
