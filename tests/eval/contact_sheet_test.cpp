#include "minwm/eval/contact_sheet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

// Frame f is all of the value 100 + 10 f.
at::Tensor ramp(int64_t frames, int64_t side = 8) {
  const at::Tensor values = (at::arange(frames) * 10 + 100).to(at::kByte);
  return values.view({frames, 1, 1, 1}).expand({frames, side, side, 3}).contiguous();
}

// How many pixels have exactly this value in all three colours.
int64_t pixels_of(const at::Tensor& picture, int64_t value) {
  return (picture == value).all(-1).sum().item<int64_t>();
}

TEST(ContactSheet, ShowsEvenlySpacedFramesWithBothEndsEnlarged) {
  const at::Tensor sheet = contact_sheet({{"", ramp(9)}}, {.columns = 3, .scale = 2});
  for (const int frame : {0, 4, 8}) {
    EXPECT_EQ(pixels_of(sheet, 100 + 10 * frame), 16 * 16) << frame;
  }
  for (const int frame : {1, 2, 3, 5, 6, 7}) {
    EXPECT_EQ(pixels_of(sheet, 100 + 10 * frame), 0) << frame;
  }
}

TEST(ContactSheet, ARowWithFewFramesShowsAllOfThemOnce) {
  const at::Tensor sheet =
      contact_sheet({{"", ramp(2)}, {"", ramp(9)}}, {.columns = 9, .scale = 1});
  EXPECT_EQ(pixels_of(sheet, 110), 2 * 8 * 8);
  EXPECT_EQ(pixels_of(sheet, 180), 8 * 8);
}

TEST(ContactSheet, LabelsAndCaptionAreBrightOnDarkAndMakeRoomForThemselves) {
  const SheetRow plain{"", ramp(2)}, named{"turn left", ramp(2)};
  const at::Tensor bare = contact_sheet({plain}, {}), labelled = contact_sheet({named}, {}),
                   captioned = contact_sheet({named}, {.caption = "wan-tiny, step 500"});
  EXPECT_EQ(pixels_of(bare, 226), 0);
  EXPECT_GT(labelled.size(1), bare.size(1));
  EXPECT_EQ(labelled.size(0), bare.size(0));
  EXPECT_GT(captioned.size(0), labelled.size(0));
  const at::Tensor label = labelled.narrow(1, 0, labelled.size(1) - bare.size(1)).to(at::kInt);
  EXPECT_GT(label.max().item<int>(), 200);                   // the letters
  EXPECT_LT(label.to(at::kFloat).mean().item<float>(), 60);  // the ground
  EXPECT_LT(bare.narrow(0, 0, 4).max().item<int>(), 40);
}

TEST(ContactSheet, RefusesRowsItCannotShowByTheirLabel) {
  EXPECT_THAT(error_of([&] { contact_sheet({}, {}); }), HasSubstr("no rows"));
  EXPECT_THAT(error_of([&] {
                contact_sheet({{"a", ramp(2)}, {"b", ramp(2, 6)}}, {});
              }),
              HasSubstr("row 'b' has frames of 6x6"));
  EXPECT_THAT(error_of([&] {
                contact_sheet({{"a", ramp(2).to(at::kFloat)}}, {});
              }),
              HasSubstr("row 'a'"));
  EXPECT_THAT(error_of([&] {
                contact_sheet({{"a", ramp(2)}}, {.columns = 0});
              }),
              HasSubstr("0 columns"));
}

TEST(TiledVideo, PlaysAllVideosAtOnceAndHoldsTheLastFrameOfShortOnes) {
  const at::Tensor video =
      tiled_video({{"a", ramp(2)}, {"b", ramp(4)}, {"c", ramp(4)}}, {.columns = 2, .scale = 1});
  EXPECT_EQ(video.size(0), 4);
  EXPECT_EQ(video.size(1) % 2 + video.size(2) % 2, 0);
  EXPECT_EQ(pixels_of(video[0], 100), 3 * 64);
  EXPECT_EQ(pixels_of(video[3], 110), 64);
  EXPECT_EQ(pixels_of(video[3], 130), 2 * 64);
}

}  // namespace
}  // namespace minwm::eval
