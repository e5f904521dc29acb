// Reference images before an encoder: sizes and edges that no golden case shows (spec encoders 5).

#include "minwm/models/vision/resize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/random.h"
#include "tests/core/temporary_folder.h"

namespace minwm::models {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

constexpr auto kFilters = {ResizeFilter::kBilinear, ResizeFilter::kBicubic, ResizeFilter::kLanczos};

at::Tensor noise_image(int64_t height, int64_t width) {
  return (random_normal({height, width, 3}, {2, "image"}) * 60 + 128).clamp(0, 255).to(at::kByte);
}

/// Every pixel has the value of its column.
at::Tensor columns_image(int64_t height, int64_t width) {
  return at::arange(width).view({1, width, 1}).expand({height, width, 3}).to(at::kByte);
}

int64_t largest_step(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kLong) - b.to(at::kLong)).abs().max().item<int64_t>();
}

TEST(PillowResize, KeepsAPlainImagePlainAtAnySize) {
  const at::Tensor plain = at::full({7, 5, 3}, 201, at::kByte);
  for (const auto filter : kFilters) {
    for (const auto& size : std::vector<ImageSize>{{1, 1}, {3, 11}, {13, 2}, {97, 31}, {7, 4}}) {
      const at::Tensor out = pillow_resize(plain, size.height, size.width, filter);
      ASSERT_EQ(out.sizes(), at::IntArrayRef({size.height, size.width, 3}));
      EXPECT_TRUE(out.eq(201).all().item<bool>()) << size.height << " x " << size.width;
    }
  }
}

TEST(PillowResize, MirroredImagesGiveMirroredResults) {
  const at::Tensor image = noise_image(23, 17);
  for (const auto filter : kFilters) {
    const at::Tensor out = pillow_resize(image, 9, 29, filter);
    const at::Tensor mirrored = pillow_resize(image.flip({0, 1}), 9, 29, filter).flip({0, 1});
    EXPECT_LE(largest_step(out, mirrored), 1);
  }
}

TEST(PillowResize, GivesPillowsNumbersForAStep) {
  const at::Tensor step = at::tensor({0, 100}, at::kByte).view({1, 2, 1}).expand({1, 2, 3});
  const at::Tensor wide = pillow_resize(step, 1, 4, ResizeFilter::kBilinear);
  EXPECT_TRUE(at::equal(wide[0].select(1, 0), at::tensor({0, 25, 75, 100}, at::kByte)));
  // Down to one pixel: the mean of both.
  const at::Tensor single = pillow_resize(step, 1, 1, ResizeFilter::kBilinear);
  EXPECT_EQ(single.flatten()[1].item<int64_t>(), 50);
}

TEST(PillowResize, ReadsViewsAndLeavesTheInputAlone) {
  const at::Tensor image = noise_image(12, 10), before = image.clone();
  const at::Tensor view = image.slice(1, 2, 9);
  const at::Tensor out = pillow_resize(view, 5, 7, ResizeFilter::kLanczos);
  EXPECT_TRUE(at::equal(out, pillow_resize(view.contiguous(), 5, 7, ResizeFilter::kLanczos)));
  pillow_resize(image, 12, 10, ResizeFilter::kBicubic).zero_();
  EXPECT_TRUE(at::equal(image, before));
}

TEST(ResizeCenterCrop, HasExactlyTheAskedSizeWhateverTheImage) {
  for (int64_t height = 9; height < 13; ++height) {
    for (int64_t width = 9; width < 24; ++width) {
      const at::Tensor out = resize_center_crop(noise_image(height, width), 11, 15);
      ASSERT_EQ(out.sizes(), at::IntArrayRef({11, 15, 3})) << height << " x " << width;
    }
  }
}

TEST(ResizeCenterCrop, CutsBothSidesEquallyWithHalvesToEven) {
  const auto first_column = [](int64_t width) {
    return resize_center_crop(columns_image(8, width), 8, 8)[0][0][0].item<int64_t>();
  };
  EXPECT_EQ(first_column(20), 6);
  EXPECT_EQ(first_column(9), 0);   // half a pixel goes to 0
  EXPECT_EQ(first_column(11), 2);  // one and a half to 2
}

TEST(SizeBuckets, AreSizesOfAboutTheBaseFromTallToWide) {
  const auto buckets = size_buckets(480, 16);
  ASSERT_FALSE(buckets.empty());
  for (size_t i = 0; i < buckets.size(); ++i) {
    const auto& [height, width] = buckets[i];
    EXPECT_TRUE(height % 16 == 0 && width % 16 == 0 && height * width <= 480 * 480);
    EXPECT_TRUE(height <= 4 * width && width <= 4 * height);
    EXPECT_TRUE(i == 0 || (height <= buckets[i - 1].height && width >= buckets[i - 1].width));
  }
  EXPECT_EQ(choose_bucket(buckets, {1000, 1000}), (ImageSize{480, 480}));
  EXPECT_EQ(choose_bucket(buckets, {9000, 10}), buckets.front());
  EXPECT_EQ(choose_bucket(buckets, {10, 9000}), buckets.back());
}

TEST(SiglipPixels, SpanMinusOneToOneChannelsFirst) {
  at::Tensor image = at::zeros({5, 9, 3}, at::kByte);
  image.select(2, 1).fill_(255);
  const at::Tensor pixels = siglip_pixels(image, 7);
  ASSERT_EQ(pixels.sizes(), at::IntArrayRef({1, 3, 7, 7}));
  EXPECT_TRUE(pixels.select(1, 0).eq(-1).all().item<bool>());
  EXPECT_TRUE(pixels.select(1, 1).eq(1).all().item<bool>());
}

TEST(ImageOfFrame, TruncatesAndClampsLikeTheTrainer) {
  const at::Tensor frame = at::tensor({-3.f, -1.f, 0.f, 0.999f, 1.f, 2.f}).view({1, 1, 6});
  const at::Tensor image = image_of_frame(at::cat({frame, frame.neg(), frame}));
  ASSERT_EQ(image.sizes(), at::IntArrayRef({1, 6, 3}));
  EXPECT_TRUE(at::equal(image[0].select(1, 0), at::tensor({0, 0, 127, 254, 255, 255}, at::kByte)));
  EXPECT_TRUE(at::equal(image[0].select(1, 1), at::tensor({255, 255, 127, 0, 0, 0}, at::kByte)));
}

TEST(Images, RefuseWhatIsNone) {
  const at::Tensor image = noise_image(4, 4);
  EXPECT_THAT(error_of([&] { siglip_pixels(image.to(at::kFloat)); }),
              HasSubstr("image is Float [4, 4, 3], expected Byte [H, W, 3]"));
  EXPECT_THAT(error_of([&] { resize_center_crop(image.slice(2, 1), 4, 4); }),
              HasSubstr("[4, 4, 2]"));
  EXPECT_THAT(error_of([&] { pillow_resize(image, 0, 4, ResizeFilter::kLanczos); }),
              HasSubstr("0 x 4"));
  EXPECT_THAT(error_of([&] { resize_center_crop(image, 4, -1); }), HasSubstr("4 x -1"));
  EXPECT_THAT(error_of([&] { size_buckets(8, 16); }), HasSubstr("base >= step"));
  EXPECT_THAT(error_of([&] { choose_bucket({}, {4, 4}); }), HasSubstr("no size bucket"));
  EXPECT_THAT(error_of([&] { image_of_frame(at::zeros({4, 2, 2})); }), HasSubstr("[3, H, W]"));
}

}  // namespace
}  // namespace minwm::models
