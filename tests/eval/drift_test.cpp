#include "minwm/eval/drift.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

TEST(Drift, ThePathComesBackToItsStartAndStaysNearIt) {
  constexpr int64_t kPiece = 5;
  const Commanded clip =
      there_and_back(900001, {.width = 16, .height = 16, .samples = 1}, 41, kPiece);
  ASSERT_EQ(clip.frames(), 41);
  const at::Tensor& path = clip.camera_to_world;
  for (int64_t back = 0; back < 41; back += 2 * (kPiece - 1)) {
    EXPECT_TRUE(at::allclose(path[back], at::eye(4, at::kDouble), 0, 1e-9)) << back;
  }
  const double furthest = path.slice(1, 0, 3).select(2, 3).abs().max().item<double>();
  EXPECT_LE(furthest, .08 * (kPiece - 1) + 1e-9);
  EXPECT_FALSE(at::allclose(path.narrow(0, 0, 9), path.narrow(0, 8, 9), 0, 1e-9));  // other pieces
}

TEST(Drift, LooksAreThoseOfEachChunk) {
  const at::Tensor frames = at::zeros({5, 32, 32, 3}, at::kByte);
  frames.narrow(0, 2, 2).fill_(100);
  const auto looks = chunk_looks(frames, at::zeros_like(frames), 2, 16);
  ASSERT_EQ(looks.size(), 3u);
  EXPECT_NEAR(looks[0].brightness, 0, 1e-4);
  EXPECT_NEAR(looks[1].brightness, 100, 1e-3);
  EXPECT_NEAR(looks[1].contrast, 0, 1e-3);
  EXPECT_NEAR(looks[1].tile_grid, 1, 1e-6);
  EXPECT_NEAR(looks[0].psnr, 60, 1e-4);
  EXPECT_NEAR(looks[1].psnr, 20 * std::log10(255. / 100), 1e-3);
}

Drift drifting(double end_brightness, double end_truth) {
  Drift drift;
  drift.latents = 32;
  drift.trained_latents = 8;
  drift.chunk_frames = 4;
  drift.worlds = 2;
  for (int i = 0; i < 8; ++i) {
    ChunkLook look{100, 30, 5, 1, 20}, truth = look;
    if (i >= 6) {
      look.brightness = end_brightness;
      truth.brightness = end_truth;
    }
    drift.model.push_back(look);
    drift.truth.push_back(truth);
  }
  return drift;
}

TEST(Drift, TheSummaryTakesOutWhatTheTruthDoesItself) {
  EXPECT_NEAR(summarize(drifting(150, 100)).brightness, 1.5, 1e-9);
  EXPECT_NEAR(summarize(drifting(150, 150)).brightness, 1, 1e-9);
  EXPECT_NEAR(summarize(drifting(150, 100)).sharpness, 1, 1e-9);
}

TEST(Drift, IsToldInNumbersPicturesAndWords) {
  Drift drift = drifting(150, 100);
  const auto json = nlohmann::json::parse(to_json(drift).dump());
  EXPECT_NEAR(json["end_over_start"]["brightness"].get<double>(), 1.5, 1e-9);
  EXPECT_EQ(json["chunks"]["model"]["brightness"].size(), 8u);
  EXPECT_EQ(json["values_not_finite"], 0);
  EXPECT_EQ(drift_figures(drift).size(), 5u);
  EXPECT_THAT(in_words(drift), HasSubstr("4 times the training length of 8"));
  EXPECT_THAT(in_words(drift), HasSubstr("every value finite"));
  drift.not_finite = 3;
  EXPECT_THAT(in_words(drift), HasSubstr("3 values not finite"));
}

TEST(Drift, WhatWasNotMeasuredIsNotSummarized) {
  EXPECT_FALSE(Drift{}.measured());
  EXPECT_THAT(error_of([] { summarize({}); }), HasSubstr("nothing was measured"));
  EXPECT_THAT(error_of([] { there_and_back(1, {}, 8, 1); }), HasSubstr("pieces of 1"));
}

}  // namespace
}  // namespace minwm::eval
