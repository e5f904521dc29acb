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

// 1 + 4 (latents - 1) frames of one grey each, which grows by `inside` per frame and by `border`
// where a chunk begins.
at::Tensor growing(int64_t latents, int64_t chunk, int inside, int border) {
  std::vector<at::Tensor> frames;
  int value = 0;
  for (int64_t f = 0; f < 1 + 4 * (latents - 1); ++f) {
    const int64_t latent = (f + 3) / 4;
    const bool begins = f > 0 && latent % chunk == 0 && f == 4 * latent - 3;
    value += f == 0 ? 0 : begins ? border : inside;
    frames.push_back(at::full({8, 8, 3}, value, at::kByte));
  }
  return at::stack(frames);
}

TEST(VideoMetrics, ChangeIsMeasuredApartWhereChunksBegin) {
  for (const int64_t chunk : {1, 2, 4}) {
    const FrameChange change = frame_change(growing(9, chunk, 2, 7), chunk);
    EXPECT_NEAR(change.at_borders, 7, 1e-5) << chunk;
    EXPECT_NEAR(change.inside, 2, 1e-5) << chunk;
  }
  EXPECT_TRUE(std::isnan(frame_change(growing(3, 4, 2, 7), 4).at_borders));  // no border in it
}

TEST(VideoMetrics, AGridIsSeenAtItsOwnPeriodOnly) {
  const at::Tensor smooth = at::arange(32, at::kByte).view({1, 1, 32, 1}).expand({2, 32, 32, 3});
  EXPECT_NEAR(tile_grid(smooth.contiguous(), 8), 1, .05);
  const at::Tensor tiles = (at::arange(32).div(8, "floor") * 40 + at::arange(32)).to(at::kByte);
  const at::Tensor grid = tiles.view({1, 1, 32, 1}).expand({2, 32, 32, 3}).contiguous();
  EXPECT_GT(tile_grid(grid, 8), 30);
  EXPECT_LT(tile_grid(grid, 7), 2);
  EXPECT_NEAR(tile_grid(constant(90, 2, 32), 8), 1, 1e-6);
  EXPECT_THAT(error_of([] { tile_grid(constant(90), 16); }), HasSubstr("tile grid of 16"));
}

}  // namespace
}  // namespace minwm::eval
