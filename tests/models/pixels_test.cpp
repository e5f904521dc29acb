// Pixels of 8 bits in and out.

#include "minwm/models/codec/pixels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "tests/core/temporary_folder.h"

namespace minwm::models {
namespace {

using ::minwm::testing::error_of;
using ::testing::HasSubstr;

TEST(LoadPixels, FramesOfTheRightSizeAreOnlyScaled) {
  const at::Tensor all = at::arange(256, at::kByte).view({1, 16, 16, 1}).expand({-1, -1, -1, 3});
  const at::Tensor pixels = load_pixels(all, 16, 16);
  ASSERT_EQ(pixels.sizes(), at::IntArrayRef({1, 3, 16, 16}));
  EXPECT_EQ(pixels.min().item<float>(), -1);
  EXPECT_EQ(pixels.max().item<float>(), 1);
  EXPECT_TRUE(at::equal(to_uint8(pixels, PixelRounding::kNearest), all.permute({0, 3, 1, 2})));
}

TEST(LoadPixels, OthersAreStretchedBetweenPixelCentres) {
  const at::Tensor frame = at::tensor({0, 255}, at::kByte).view({1, 1, 2, 1}).expand({1, 1, 2, 3});
  const at::Tensor pixels = load_pixels(frame, 1, 4);
  // Centres at -1/4, 1/4, 3/4, 5/4 of the two pixels' centres; nothing beyond the edge.
  EXPECT_TRUE(at::allclose(pixels[0][0][0], at::tensor({-1.0F, -0.5F, 0.5F, 1.0F})));
  // Halving takes the two middle pixels of four, and no wider average.
  const at::Tensor wide = at::tensor({0, 100, 200, 0, 0, 0, 0, 255}, at::kByte);
  const at::Tensor narrow = load_pixels(wide.view({1, 1, 8, 1}).expand({1, 1, 8, 3}), 1, 2);
  EXPECT_TRUE(at::allclose(narrow[0][0][0], at::tensor({300.0F / 255 - 1, -1.0F})));
}

TEST(LoadPixels, RefusesOtherShapesTypesAndSizes) {
  EXPECT_THAT(error_of([] {
                load_pixels(at::zeros({1, 4, 4, 3}), 4, 4);
              }),
              HasSubstr("frames Float [1, 4, 4, 3]: expected uint8 [F, H, W, 3]"));
  EXPECT_THAT(error_of([] {
                load_pixels(at::zeros({1, 3, 4, 4}, at::kByte), 4, 4);
              }),
              HasSubstr("expected uint8 [F, H, W, 3]"));
  EXPECT_THAT(error_of([] {
                load_pixels(at::zeros({1, 4, 4, 3}, at::kByte), 0, 4);
              }),
              HasSubstr("0 x 4 pixels"));
}

TEST(ToUint8, RoundsOrTruncatesAsAsked) {
  const at::Tensor pixels = at::tensor({-2.0F, -1.0F, 0.0F, 0.999F, 1.0F, 3.0F});
  const auto bytes = [&](PixelRounding rounding) { return to_uint8(pixels, rounding); };
  EXPECT_TRUE(
      at::equal(bytes(PixelRounding::kNearest), at::tensor({0, 0, 128, 255, 255, 255}, at::kByte)));
  for (const auto rounding : {PixelRounding::kTruncateWan, PixelRounding::kTruncateHy}) {
    EXPECT_TRUE(at::equal(bytes(rounding), at::tensor({0, 0, 127, 254, 255, 255}, at::kByte)));
  }
}

}  // namespace
}  // namespace minwm::models
