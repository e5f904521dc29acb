// What happens to a picture and its focal lengths on the way into a store.

#include "minwm/data/encode.h"

#include <array>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace minwm::data {
namespace {

/// uint8 [1, H, W, 3]: every channel shows `rows`.
at::Tensor picture(const std::vector<std::vector<int>>& rows) {
  const auto h = static_cast<int64_t>(rows.size()), w = static_cast<int64_t>(rows[0].size());
  at::Tensor frame = at::zeros({1, h, w, 3}, at::kByte);
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x) {
      frame[0][y][x].fill_(rows[static_cast<size_t>(y)][static_cast<size_t>(x)]);
    }
  }
  return frame;
}

/// The first channel of fit_frames' picture, back in 0 … 255.
at::Tensor fitted(const at::Tensor& frames, int64_t width, int64_t height, Fit fit = Fit::kCrop) {
  const at::Tensor pixels = fit_frames(frames, {.width = width, .height = height, .fit = fit});
  EXPECT_EQ(pixels.sizes(), at::IntArrayRef({1, 3, height, width}));
  EXPECT_TRUE(at::equal(pixels.select(1, 0), pixels.select(1, 2)));
  return (pixels[0][0] + 1) * 127.5;
}

void expect_picture(const at::Tensor& found, const std::vector<float>& expected) {
  EXPECT_TRUE(at::allclose(found.flatten(), at::tensor(expected), 1e-4, 1e-3)) << found;
}

TEST(CentreCrop, TakesTheLargestMiddleOfTheShape) {
  const auto expect = [](const Crop& crop, const std::array<int64_t, 4>& box) {
    const std::array<int64_t, 4> found = {crop.left, crop.top, crop.width, crop.height};
    EXPECT_EQ(found, box);
  };
  expect(centre_crop(384, 256, 64, 64), {64, 0, 256, 256});
  expect(centre_crop(256, 384, 64, 64), {0, 64, 256, 256});
  expect(centre_crop(832, 480, 832, 480), {0, 0, 832, 480});
  expect(centre_crop(1920, 1080, 64, 32), {0, 60, 1920, 960});
  expect(centre_crop(5, 3, 4, 4), {1, 0, 3, 3});
  expect(centre_crop(5, 2, 4, 4), {2, 0, 1, 2});  // odd width: one pixel less, exactly centred
  expect(centre_crop(2, 5, 4, 4), {0, 2, 2, 1});
  expect(centre_crop(1, 1000, 64, 1), {0, 499, 1, 2});  // a pixel is the least
}

TEST(FitFrames, CropShowsTheMeanOfWhatAPixelCovers) {
  expect_picture(fitted(picture({{0, 20, 100, 120}, {40, 60, 140, 200}}), 2, 1), {30, 140});
  // 3 pixels into 2: the middle one belongs half to either.
  expect_picture(fitted(picture({{30, 60, 90}, {30, 60, 90}, {90, 60, 30}}), 2, 2),
                 {40, 80, 200 / 3.F, 160 / 3.F});
  // The sides of a wide picture are cut off, not squeezed in.
  expect_picture(fitted(picture({{255, 10, 20, 255}, {255, 30, 40, 255}}), 2, 2), {10, 20, 30, 40});
  expect_picture(fitted(picture({{255, 10, 20, 255}, {255, 30, 40, 255}}), 1, 1), {25});
}

TEST(FitFrames, StretchKeepsTheSidesAndTakesNoMean) {
  // Half-pixel centres: the middle of each half.
  expect_picture(fitted(picture({{255, 10, 20, 255}, {255, 30, 40, 255}}), 2, 2, Fit::kStretch),
                 {132.5, 137.5, 142.5, 147.5});
  expect_picture(fitted(picture({{100, 0, 0, 0, 0, 0, 0, 100}, {0, 0, 0, 0, 0, 0, 0, 0}}), 2, 2,
                        Fit::kStretch),
                 {0, 0, 0, 0});
}

TEST(FitFrames, CropOfASmallPictureIsScaledUp) {
  const at::Tensor up = fitted(picture({{0, 100}, {0, 100}}), 4, 4);
  expect_picture(up[0], {0, 25, 75, 100});
}

TEST(FitIntrinsics, FollowTheCropAndForceTheCentre) {
  ManifestEntry entry;
  entry.width = 384;
  entry.height = 256;
  entry.intrinsics = at::tensor({.5, 0., .5, 0., .9, .45, 0., 0., 1.}, at::kDouble).view({3, 3});
  const auto focal = [&](int64_t width, int64_t height, Fit fit) {
    const at::Tensor k = fit_intrinsics(entry, {.width = width, .height = height, .fit = fit});
    EXPECT_EQ(k[0][2].item<double>(), .5);
    EXPECT_EQ(k[1][2].item<double>(), .5);
    return std::array<double, 2>{k[0][0].item<double>(), k[1][1].item<double>()};
  };
  EXPECT_NEAR(focal(64, 64, Fit::kCrop)[0], .75, 1e-12);
  EXPECT_NEAR(focal(64, 64, Fit::kCrop)[1], 1, 1e-12);  // .9 / (2 x .45)
  EXPECT_NEAR(focal(64, 64, Fit::kStretch)[0], .5, 1e-12);
  EXPECT_NEAR(focal(96, 64, Fit::kCrop)[0], .5, 1e-12);
}

}  // namespace
}  // namespace minwm::data
