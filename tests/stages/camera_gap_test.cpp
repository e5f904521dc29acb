#include "minwm/stages/camera_gap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"

namespace minwm::stages {
namespace {

using minwm::testing::error_of;
using testing::FakeBackbone;
using testing::FakeCodec;
using ::testing::HasSubstr;

constexpr int64_t kFrames = 8;

/// A clip whose cameras carry its number.
GapClip make_clip(int64_t index) {
  const auto sample = static_cast<uint64_t>(index);
  GapClip clip;
  clip.index = index;
  clip.clip.latents = random_normal({kFrames, 3, 4, 4}, {1, "latents", sample});
  clip.clip.text = at::zeros({2, 5});
  clip.clip.intrinsics = at::eye(3);
  clip.clip.world_to_camera = at::eye(4).repeat({kFrames, 1, 1});
  clip.clip.world_to_camera.select(1, 0).select(1, 3).fill_(static_cast<double>(index) + 1);
  clip.other_world_to_camera = at::eye(4).repeat({kFrames, 1, 1});
  return clip;
}

std::vector<GapClip> make_clips(int64_t count) {
  std::vector<GapClip> clips;
  for (int64_t i = 0; i < count; ++i) {
    clips.push_back(make_clip(i));
  }
  return clips;
}

/// Predicts x0 = truth + `right` with the clip's own cameras, + `wrong` with others: it finds the
/// truth by its number.
std::shared_ptr<FakeBackbone> model_with_errors(double right, double wrong) {
  return std::make_shared<FakeBackbone>([=](const models::ForwardInput& input) {
    const at::Tensor place =
        input.conditions.cameras.world_to_camera.select(2, 0).select(2, 3).select(1, 0);
    at::Tensor x0 = at::empty_like(input.latents);
    for (int64_t b = 0; b < x0.size(0); ++b) {
      const auto number = place[b].item<int64_t>();
      // With wrong cameras the number is lost; the truth is that of the batch's b-th clip.
      const at::Tensor truth = make_clip(number > 0 ? number - 1 : b).clip.latents;
      x0[b].copy_(truth + (number > 0 ? right : wrong));
    }
    return input.latents - x0;  // sigma = 1
  });
}

TEST(CameraGap, IsThePsnrOfTheErrorsTheModelMakes) {
  FakeCodec codec;
  for (const bool causal : {false, true}) {
    const auto gap =
        camera_gap(camera_gap_errors(*model_with_errors(0.1, 0.2), codec, make_clips(3), {causal}));
    EXPECT_NEAR(gap.right, 10 * std::log10(4 / 0.01), 1e-4);
    EXPECT_NEAR(gap.wrong, 10 * std::log10(4 / 0.04), 1e-4);
    EXPECT_NEAR(gap.gap, 20 * std::log10(2), 1e-4);
  }
}

TEST(CameraGap, AModelThatIgnoresCamerasHasNone) {
  FakeCodec codec;
  const auto gap =
      camera_gap(camera_gap_errors(*model_with_errors(0.3, 0.3), codec, make_clips(2), {}));
  EXPECT_NEAR(gap.gap, 0, 1e-5);
}

TEST(CameraGap, APerfectPredictionIsFinite) {
  FakeCodec codec;
  EXPECT_NEAR(
      camera_gap(camera_gap_errors(*model_with_errors(0, 0.1), codec, make_clips(1), {})).right,
      100, 1e-9);
}

TEST(CameraGap, GivesTheFirstLatentOrTheCleanPast) {
  FakeCodec codec;
  const auto clips = make_clips(2);
  const auto model = model_with_errors(0.1, 0.1);
  camera_gap_errors(*model, codec, clips, {false});
  EXPECT_TRUE(at::equal(model->last.latents[1][0], clips[1].clip.latents[0]));
  EXPECT_FALSE(at::allclose(model->last.latents[1][1], clips[1].clip.latents[1]));
  EXPECT_TRUE(at::equal(model->last.timestep[0],
                        at::tensor({0, 1000, 1000, 1000, 1000, 1000, 1000, 1000}, at::kFloat)));
  EXPECT_FALSE(model->last.clean_latents.defined());
  camera_gap_errors(*model, codec, clips, {true});
  EXPECT_TRUE((model->last.timestep == 1000).all().item<bool>());
  EXPECT_TRUE(at::equal(model->last.clean_latents[1], clips[1].clip.latents));
  EXPECT_EQ(model->last.chunk_frames, 4);
}

TEST(CameraGap, JudgesWhatComesAfterTheGivenLatentsOnly) {
  FakeCodec codec;
  const auto clips = make_clips(1);
  EXPECT_EQ(camera_gap_errors(*model_with_errors(0, 0), codec, clips, {false}).values,
            28 * 3 * 4 * 4);
  EXPECT_EQ(camera_gap_errors(*model_with_errors(0, 0), codec, clips, {true}).values,
            16 * 3 * 4 * 4);
}

TEST(CameraGap, TheCopyShowsLatentOneForAll) {
  FakeCodec codec;
  const auto clips = make_clips(1);
  const at::Tensor& truth = clips[0].clip.latents;
  const double error =
      4 * (truth.slice(0, 4) - truth[1]).square().sum().item<double>();  // 4 frames per latent
  EXPECT_NEAR(camera_gap_errors(*model_with_errors(0, 0), codec, clips, {true}).copy, error,
              1e-3 * error);
}

TEST(CameraGap, PartsOfTheClipsAddUp) {
  FakeCodec codec;
  const auto clips = make_clips(5);
  const auto noisy = std::make_shared<FakeBackbone>(
      [](const models::ForwardInput& input) { return 0.5 * input.latents; });
  const auto all = camera_gap_errors(*noisy, codec, clips, {false, 4, 1, 8});
  GapErrors sum;
  for (const auto& [first, last] : {std::pair(0, 2), std::pair(2, 5)}) {
    const auto part = camera_gap_errors(
        *noisy, codec, {clips.begin() + first, clips.begin() + last}, {false, 4, 1, 2});
    sum.right += part.right;
    sum.values += part.values;
  }
  EXPECT_NEAR(sum.right, all.right, 1e-6 * all.right);
  EXPECT_EQ(sum.values, all.values);
}

TEST(CameraGap, RefusesClipsThatLeaveNothingToJudge) {
  FakeCodec codec;
  const auto model = model_with_errors(0, 0);
  EXPECT_THAT(error_of([&] {
                camera_gap_errors(*model, codec, make_clips(1), {true, 8});
              }),
              HasSubstr("leave none to judge"));
  EXPECT_THAT(error_of([&] {
                camera_gap_errors(*model, codec, make_clips(1), {true, 3});
              }),
              HasSubstr("not a multiple of the chunk of 3"));
  EXPECT_THAT(error_of([&] { camera_gap({}); }), HasSubstr("no clip was judged"));
}

}  // namespace
}  // namespace minwm::stages
