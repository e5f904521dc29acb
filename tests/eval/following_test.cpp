// The rulers against videos whose camera path is known: the prototype's table
// (data-camera-eval 14.5, tiny-world 10) on a few worlds.

#include "minwm/eval/following.h"

#include <cmath>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/random.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

// The picture quality of a decent model: blur of 0.7 pixels, noise of 3 % of the range.
at::Tensor worn(const at::Tensor& video, uint64_t seed) {
  const at::Tensor offset = at::arange(-2, 3, at::kFloat);
  at::Tensor kernel = at::exp(-offset.square() / (2 * .7 * .7));
  kernel = kernel / kernel.sum();
  at::Tensor x =
      video.permute({0, 3, 1, 2}).to(at::kFloat).reshape({-1, 1, video.size(1), video.size(2)});
  x = at::replication_pad2d(x, {2, 2, 2, 2});
  x = at::conv2d(at::conv2d(x, kernel.view({1, 1, 5, 1})), kernel.view({1, 1, 1, 5}));
  x = x.view({video.size(0), 3, video.size(1), video.size(2)}).permute({0, 2, 3, 1});
  const at::Tensor noise = random_normal(x.sizes(), {seed, "test.noise"});
  return (x + .03 * 255 * noise).round().clamp(0, 255).to(at::kByte).contiguous();
}

class Following : public ::testing::Test {
 protected:
  static constexpr uint64_t kFirstWorld = 900000;
  static constexpr size_t kClips = 4;

  static void SetUpTestSuite() {
    std::vector<Commanded> clips;
    const char* paths[kClips] = {"w*6,l*5", "d*5,i*6", "j*5,s*6", "a*4,w*4,k*3"};
    for (size_t i = 0; i < kClips; ++i) {
      clips.push_back(command_clip(kFirstWorld + i, {}, 12, 1, paths[i]));
    }
    judges_ = new auto(make_judges(clips, 1));
  }
  static void TearDownTestSuite() { delete judges_; }

  /// Scores of videos that show `path_of(clip)` instead of the commanded path.
  template <class PathOf>
  static RowScores show(const PathOf& path_of) {
    std::vector<at::Tensor> videos;
    for (size_t i = 0; i < kClips; ++i) {
      const Commanded& clip = (*judges_)[i]->clip();
      const at::Tensor poses = data::interpolate_latent_poses(path_of(clip));
      videos.push_back(worn(data::render(*clip.world, poses).pixels, i));
    }
    return pool("row", score_clips(*judges_, videos, 1));
  }
  static RowScores show_scaled(double scale) {
    return show([&](const Commanded& clip) { return scaled_path(clip.camera_to_world, 1, scale); });
  }

  static std::vector<std::unique_ptr<Judge>>* judges_;
};
std::vector<std::unique_ptr<Judge>>* Following::judges_ = nullptr;

TEST_F(Following, AVideoOfTheCommandedPathIsRecognisedByEveryMeasure) {
  const RowScores row = show_scaled(1);
  EXPECT_GT(row.margin.value, 4);
  EXPECT_EQ(row.top1.value, 1);
  EXPECT_GT(row.vs_mirror.value, 6);
  EXPECT_NEAR(row.best_scale.value, 1, .1);
  EXPECT_NEAR(row.gain_translation.value, 1, .1);
  EXPECT_NEAR(row.gain_rotation.value, 1, .1);
  EXPECT_LT(row.rotation_error.value, 1);
  EXPECT_LT(row.translation_error.value, .03);
  EXPECT_GT(row.ok_share.value, .9);
  EXPECT_GT(row.accuracy.value, .8);
  EXPECT_GT(row.accuracy3.value, .9);
}

TEST_F(Following, HalfTheAmplitudeShowsInGainAndScale) {
  const RowScores row = show_scaled(.5);
  EXPECT_NEAR(row.gain_translation.value, .5, .1);
  EXPECT_NEAR(row.gain_rotation.value, .5, .1);
  EXPECT_NEAR(row.best_scale.value, .5, .1);
  EXPECT_LT(row.margin.value, -3);
  EXPECT_EQ(row.top1.value, 0);
}

TEST_F(Following, AMirroredPathHasNegativeGainAndScale) {
  const RowScores row = show_scaled(-1);
  EXPECT_NEAR(row.gain_translation.value, -1, .15);
  EXPECT_NEAR(row.gain_rotation.value, -1, .15);
  EXPECT_LT(row.best_scale.value, -.9);
  EXPECT_LT(row.vs_mirror.value, -6);
  EXPECT_LT(row.accuracy3.value, .1);
  EXPECT_EQ(row.top1.value, 0);
}

TEST_F(Following, AStillVideoHasNoGainAndNoScale) {
  const RowScores row = show_scaled(0);
  EXPECT_NEAR(row.gain_translation.value, 0, .05);
  EXPECT_NEAR(row.gain_rotation.value, 0, .05);
  EXPECT_NEAR(row.best_scale.value, 0, .1);
  EXPECT_NEAR(row.vs_mirror.value, 0, 1.5);
  EXPECT_LT(row.accuracy3.value, .1);
  EXPECT_EQ(row.top1.value, 0);
}

TEST_F(Following, AnotherPathIsClearlyWrong) {
  const RowScores row = show([](const Commanded& clip) {
    return other_path(clip.camera_to_world, 1, data::random_trajectory(clip.world_seed, 77, 11));
  });
  EXPECT_LT(row.margin.value, -1);
  EXPECT_EQ(row.top1.value, 0);
  EXPECT_LT(row.accuracy3.value, .35);
  EXPECT_GT(row.rotation_error.value, 5);
  EXPECT_LT(row.best_scale.value, .5);
}

TEST_F(Following, ACommandObeyedOneChunkLateLosesToTheRivalThatIsLate) {
  const RowScores row =
      show([](const Commanded& clip) { return delayed_path(clip.camera_to_world, 1, 4); });
  EXPECT_LT(row.margin.value, -2);
  EXPECT_EQ(row.top1.value, 0);
}

TEST_F(Following, TheGivenFrameIsNotJudged) {
  const Judge& judge = *judges_->front();
  at::Tensor video = judge.truth().clone();
  const ClipScores before = judge.score(video);
  video[0].fill_(0);
  const ClipScores after = judge.score(video);
  EXPECT_EQ(after.rerender.psnr, before.rerender.psnr);
  EXPECT_EQ(after.ssim, before.ssim);
  EXPECT_EQ(after.path.rotation_error, before.path.rotation_error);
  EXPECT_NEAR(before.rerender.psnr, 60, 1e-3);
  EXPECT_NEAR(before.sharpness, 1, 1e-6);
}

TEST_F(Following, ScoresDoNotDependOnTheNumberOfThreads) {
  std::vector<at::Tensor> videos;
  for (const auto& judge : *judges_) {
    videos.push_back(worn(judge->truth(), 5));
  }
  const auto one = pool("", score_clips(*judges_, videos, 1));
  const auto three = pool("", score_clips(*judges_, videos, 3));
  EXPECT_EQ(to_json(one).dump(), to_json(three).dump());
}

TEST_F(Following, AVideoOfAnotherShapeIsRefusedByTheClipsName) {
  const Judge& judge = *judges_->front();
  EXPECT_THAT(error_of([&] { judge.score(judge.truth().slice(0, 0, 41)); }),
              HasSubstr("world 900000"));
  EXPECT_THAT(error_of([&] { judge.score(judge.truth().to(at::kFloat)); }), HasSubstr("uint8"));
  EXPECT_THAT(error_of([&] { score_clips(*judges_, {judge.truth()}, 1); }),
              HasSubstr("1 videos for 4 clips"));
}

TEST(FollowingOfAStillClip, HasNoAmplitudeAndNoMirror) {
  const Judge judge(command_clip(900001, {}, 5, 1, "n*4"));
  const ClipScores scores = judge.score(judge.truth());
  EXPECT_TRUE(std::isnan(scores.rerender.best_scale));
  EXPECT_TRUE(std::isnan(scores.rerender.vs_mirror));
  EXPECT_TRUE(scores.rerender.top1);
  EXPECT_EQ(scores.actions.one.hits[kStill], 4);
  EXPECT_THAT(to_json(scores).dump(), HasSubstr("\"best_scale\":null"));
}

TEST(Pooling, LeavesOutUndefinedClips) {
  const Mean mean = mean_of({1, std::nan(""), 3});
  EXPECT_EQ(mean.count, 2);
  EXPECT_DOUBLE_EQ(mean.value, 2);
  EXPECT_DOUBLE_EQ(mean.error, 1);
  EXPECT_TRUE(std::isnan(mean_of({}).value));
  EXPECT_TRUE(std::isnan(mean_of({4}).error));
}

TEST(Pooling, WeighsClipsByHowMuchTheyMove) {
  std::vector<ClipScores> clips(2);
  clips[0].path.translation_dot = 1;
  clips[0].path.translation_norm = 1;
  clips[1].path.translation_norm = 3;
  clips[0].actions.three.steps[0] = 2;
  clips[0].actions.three.hits[0] = 2;
  clips[1].actions.three.steps[4] = 6;
  const RowScores row = pool("row", clips);
  EXPECT_DOUBLE_EQ(row.gain_translation.value, .25);
  EXPECT_TRUE(std::isnan(row.gain_rotation.value));
  EXPECT_DOUBLE_EQ(row.accuracy3.value, .25);
  EXPECT_GT(row.accuracy3.error, .2);
}

TEST(Pooling, TheFirstFailureOfAThreadIsThrown) {
  EXPECT_THROW(for_each_clip(20, 3,
                             [](size_t i) {
                               if (i == 7) {
                                 throw std::runtime_error("clip 7");
                               }
                             }),
               std::runtime_error);
}

TEST(ParabolaPeak, LiesBetweenUnequalSamplesAndStaysAtAnEnd) {
  const auto y = [](double x) { return 3 - (x - .6) * (x - .6); };
  EXPECT_NEAR(parabola_peak({0, .5, 1.25}, {y(0), y(.5), y(1.25)}), .6, 1e-12);
  EXPECT_EQ(parabola_peak({0, 1, 2}, {0, 1, 2}), 2);
  EXPECT_THAT(error_of([] { parabola_peak({0, 1}, {0}); }), HasSubstr("2 abscissas"));
}

}  // namespace
}  // namespace minwm::eval
