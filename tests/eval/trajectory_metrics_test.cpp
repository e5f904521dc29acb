#include "minwm/eval/trajectory_metrics.h"

#include <cmath>
#include <filesystem>
#include <numbers>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/camera/pose_string.h"
#include "minwm/core/safetensors.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using testing::error_of;

at::Tensor path(const char* keys) {
  return camera::integrate(camera::parse_pose_string(keys));
}

at::Tensor scaled(const at::Tensor& poses, double scale) {
  at::Tensor out = poses.clone();
  out.slice(1, 0, 3).select(2, 3).mul_(scale);
  return out;
}

// The whole path seen from elsewhere: transform * pose.
at::Tensor moved(const at::Tensor& poses, const at::Tensor& transform) {
  return at::matmul(transform, poses);
}

constexpr Alignment kAlignments[] = {Alignment::kNone,       Alignment::kRigid,
                                     Alignment::kSimilarity, Alignment::kScale,
                                     Alignment::kFirstFrame, Alignment::kFirstFrameScale};

TEST(TrajectoryMetrics, AnEqualPathHasNoError) {
  const at::Tensor p = path("w*4,l*4,d*3");
  const RelativeErrors errors = relative_errors(p, p);
  EXPECT_EQ(errors.rotation_radians, 0);
  EXPECT_EQ(errors.translation_relative, 0);
  EXPECT_EQ(errors.cam_mc_absolute, 0);
  for (const auto alignment : kAlignments) {
    const PathErrors ate = path_errors(p, p, alignment);
    EXPECT_NEAR(ate.translation_rmse, 0, 1e-12);
    EXPECT_NEAR(ate.step_rotation_rmse_degrees, 0, 1e-5);
    EXPECT_NEAR(ate.scale, 1, 1e-9);
  }
  EXPECT_NEAR(translation_gain(p, p), 1, 1e-12);
}

TEST(TrajectoryMetrics, RotationErrorSumsTheAnglesOfAllFrames) {
  // Turning 1, 2, 3 and 4 steps of 3 degrees against standing still.
  const RelativeErrors errors = relative_errors(path("l*4"), path("n*4"));
  EXPECT_NEAR(errors.rotation_radians, 30 * std::numbers::pi / 180, 1e-12);
  EXPECT_NEAR(errors.rotation_mean_degrees, 6, 1e-10);
  ASSERT_EQ(errors.rotation_per_frame.size(), 5u);
  EXPECT_NEAR(errors.rotation_per_frame[4], 12 * std::numbers::pi / 180, 1e-12);
}

TEST(TrajectoryMetrics, RotationErrorKeepsTinyAngles) {
  at::Tensor turned = path("n*1");
  const double angle = 1e-9;  // arccos of the trace would say 0
  turned[1][0][0] = turned[1][2][2] = std::cos(angle);
  turned[1][0][2] = std::sin(angle);
  turned[1][2][0] = -std::sin(angle);
  EXPECT_NEAR(relative_errors(path("n*1"), turned).rotation_radians, angle, 1e-15);
}

TEST(TrajectoryMetrics, RelativeTranslationIgnoresTheScaleAndAbsoluteDoesNot) {
  const at::Tensor p = path("w*6,d*5");
  const RelativeErrors errors = relative_errors(p, scaled(p, 2.5));
  EXPECT_NEAR(errors.translation_relative, 0, 1e-7);
  EXPECT_GT(errors.translation_absolute, 5);
  EXPECT_NEAR(translation_gain(p, scaled(p, 2.5)), 2.5, 1e-12);
  EXPECT_NEAR(translation_gain(p, scaled(p, -1)), -1, 1e-12);
}

TEST(TrajectoryMetrics, EachAlignmentForgivesExactlyWhatItSays) {
  const at::Tensor p = path("w*5,l*3,d*4,u*4");
  const at::Tensor elsewhere = moved(p, path("j*9,d*20,i*4")[-1]);
  const at::Tensor similar = moved(scaled(p, 3), path("j*9,d*20,i*4")[-1]);
  EXPECT_GT(path_errors(p, elsewhere, Alignment::kNone).translation_rmse, .5);
  EXPECT_GT(path_errors(p, elsewhere, Alignment::kScale).translation_rmse, .1);
  EXPECT_LT(path_errors(p, elsewhere, Alignment::kRigid).translation_rmse, 1e-9);
  EXPECT_LT(path_errors(p, elsewhere, Alignment::kFirstFrame).translation_rmse, 1e-9);
  EXPECT_GT(path_errors(p, similar, Alignment::kRigid).translation_rmse, .1);
  EXPECT_GT(path_errors(p, similar, Alignment::kFirstFrame).translation_rmse, .1);
  EXPECT_LT(path_errors(p, similar, Alignment::kSimilarity).translation_rmse, 1e-9);
  EXPECT_NEAR(path_errors(p, similar, Alignment::kSimilarity).scale, 1. / 3, 1e-9);
  EXPECT_LT(path_errors(p, similar, Alignment::kFirstFrameScale).translation_rmse, 1e-9);
  EXPECT_NEAR(path_errors(p, scaled(p, 3), Alignment::kScale).scale, 1. / 3, 1e-9);
}

TEST(TrajectoryMetrics, AMirroredPathIsNotRescuedByANegativeScale) {
  const at::Tensor p = path("w*5,d*5"), mirrored = path("s*5,a*5");
  const PathErrors errors = path_errors(p, mirrored, Alignment::kFirstFrameScale);
  EXPECT_EQ(errors.scale, 0);
  EXPECT_GT(errors.translation_rmse, .2);
}

TEST(TrajectoryMetrics, AStraightOrStillPathHasNoUmeyamaAlignment) {
  for (const char* keys : {"w*8", "n*8", "l*8"}) {
    const at::Tensor p = path(keys);
    for (const auto alignment : {Alignment::kRigid, Alignment::kSimilarity, Alignment::kScale}) {
      const PathErrors errors = path_errors(p, p, alignment);
      EXPECT_TRUE(std::isnan(errors.translation_rmse) &&
                  std::isnan(errors.step_rotation_rmse_degrees))
          << keys;
    }
    EXPECT_EQ(path_errors(p, p, Alignment::kNone).translation_rmse, 0) << keys;
  }
  EXPECT_TRUE(std::isnan(translation_gain(path("l*8"), path("w*8"))));
}

TEST(TrajectoryMetrics, StepErrorsComparePosesDeltaFramesApart) {
  const at::Tensor p = path("w*6"), half = scaled(p, .5);
  EXPECT_NEAR(path_errors(p, half, Alignment::kNone).step_translation_rmse, .04, 1e-12);
  EXPECT_NEAR(path_errors(p, half, Alignment::kNone, 3).step_translation_rmse, .12, 1e-12);
  EXPECT_TRUE(std::isnan(path_errors(p, half, Alignment::kNone, 7).step_translation_rmse));
}

TEST(TrajectoryMetrics, PathsOfAnotherLengthOrShapeAreRefused) {
  EXPECT_NE(error_of([] { relative_errors(path("w*3"), path("w*4")); }).find("4 and 5 poses"),
            std::string::npos);
  EXPECT_NE(
      error_of([] { path_errors(at::eye(4), at::eye(4), Alignment::kNone); }).find("[T, 4, 4]"),
      std::string::npos);
  EXPECT_NE(error_of([] {
              path_errors(path("w*3"), path("w*3"), Alignment::kNone, 0);
            }).find("at least 1"),
            std::string::npos);
}

// The reference's own numbers; the whole table is a golden case of kind camera.metrics too.
TEST(TrajectoryMetrics, AgreesWithTheReferenceTools) {
  const std::filesystem::path file =
      std::filesystem::path(MINWM_SHARED_DATA) / "golden/camera/metrics.safetensors";
  if (!std::filesystem::exists(file)) {
    GTEST_SKIP() << "no " << file;
  }
  const Safetensors golden(file);
  const auto near = [](double ours, double reference, const std::string& what) {
    EXPECT_NEAR(ours, reference, 1e-6 + 1e-6 * std::abs(reference)) << what;
  };
  int undefined = 0;
  const nlohmann::json config = nlohmann::json::parse(golden.metadata().at("config"));
  for (const std::string pair : config.at("pairs")) {
    const at::Tensor truth = golden.get("in/" + pair + "/gt_c2w"),
                     estimate = golden.get("in/" + pair + "/est_c2w");
    const RelativeErrors errors = relative_errors(truth, estimate);
    const at::Tensor sums = golden.get("out/" + pair + "/cami2v");
    const double ours[] = {errors.rotation_radians, errors.translation_relative,
                           errors.cam_mc_relative, errors.translation_absolute,
                           errors.cam_mc_absolute};
    for (int64_t i = 0; i < 5; ++i) {
      near(ours[i], sums[i].item<double>(), pair + " column " + std::to_string(i));
    }
    const at::Tensor table = golden.get("out/" + pair + "/evo");
    for (int64_t row = 0; row < 4; ++row) {
      const PathErrors e = path_errors(truth, estimate, kAlignments[row]);
      const double cells[] = {e.translation_rmse, e.translation_mean, e.rotation_rmse_degrees,
                              e.step_translation_rmse, e.step_rotation_rmse_degrees};
      for (int64_t i = 0; i < 5; ++i) {
        const double reference = table[row][i].item<double>();
        const std::string where =
            pair + " row " + std::to_string(row) + " column " + std::to_string(i);
        EXPECT_EQ(std::isnan(cells[i]), std::isnan(reference)) << where;
        std::isnan(reference) ? static_cast<void>(++undefined) : near(cells[i], reference, where);
      }
    }
  }
  EXPECT_GT(undefined, 0);  // the degenerate pair
}

}  // namespace
}  // namespace minwm::eval
