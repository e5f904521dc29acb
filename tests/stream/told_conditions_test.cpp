// Models that are told the first latent, or actions, or no cameras: what reaches them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/camera/action_labels.h"
#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/stream/generate.h"
#include "tests/core/temporary_folder.h"
#include "tests/stream/recording_model.h"

namespace minwm::stream {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::kChannels;
using testing::kSize;
using testing::RecordingModel;

class ToldConditions : public ::testing::Test {
 protected:
  void SetUp() override {
    model_->told_first = true;
    request_.conditions.text = at::full({2, 1, 1}, 2);
    request_.given_latents = random_normal({2, 1, kChannels, kSize, kSize}, {1, "given"});
    request_.camera_to_world = camera::integrate(camera::parse_pose_string("w*3,l*2,s*2"));
    request_.height = request_.width = kSize;
    request_.stream.fx = request_.stream.fy = 0.5;
    request_.stream.sigmas = {1, 0.5};
  }
  at::Tensor generate() { return generate_latents(model_, request_); }
  const models::Conditions& told(size_t call) const { return model_->calls.at(call).conditions; }
  void expect_image(const models::Conditions& conditions, int64_t first_frame) const {
    const at::Tensor& channels = conditions.image_latents;
    const at::Tensor here =
        channels.narrow(1, first_frame == 0 ? 1 : 0, channels.size(1) - (first_frame == 0 ? 1 : 0));
    EXPECT_EQ(here.count_nonzero().item<int64_t>(), 0);
    if (first_frame == 0) {
      EXPECT_TRUE(at::equal(channels.select(1, 0).narrow(1, 0, kChannels),
                            request_.given_latents.select(1, 0)));
      EXPECT_TRUE(
          at::equal(channels.select(1, 0).select(1, kChannels), at::ones({2, kSize, kSize})));
    }
    EXPECT_TRUE(conditions.vision.defined());
    EXPECT_FALSE(conditions.text_to_video);
  }

  std::shared_ptr<RecordingModel> model_ = std::make_shared<RecordingModel>();
  GenerateRequest request_;
};

TEST_F(ToldConditions, AStreamTellsTheFirstLatentInFrameZeroAndKeepsNothingClean) {
  const auto latents = generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(1000, 500, 0, 1000, 500, 0));
  for (size_t call = 0; call < 6; ++call) {
    SCOPED_TRACE(call);
    expect_image(told(call), call < 3 ? 0 : 4);
    EXPECT_TRUE(told(call).vision.is_same(told(0).vision));  // the cached text stays valid
  }
  EXPECT_TRUE(at::equal(model_->calls[0].timestep, at::full({2, 4}, 1000.F)));
  EXPECT_FALSE(at::allclose(latents.narrow(1, 0, 1), request_.given_latents));
}

TEST_F(ToldConditions, OtherModelsKeepTheFirstLatentCleanInTheSequence) {
  model_->told_first = false;
  const auto latents = generate();
  EXPECT_FALSE(told(0).image_latents.defined());
  EXPECT_TRUE(at::equal(model_->calls[0].timestep[0], at::tensor({0.F, 1000.F, 1000.F, 1000.F})));
  EXPECT_TRUE(at::equal(latents.narrow(1, 0, 1), request_.given_latents));
}

TEST_F(ToldConditions, BidirectionalIsToldTheSameAtOnce) {
  request_.mode = Mode::kBidirectional;
  generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(1000, 500));
  EXPECT_EQ(told(0).image_latents.size(1), 8);
  expect_image(told(0), 0);
  EXPECT_TRUE(at::equal(model_->calls[0].timestep, at::full({2, 8}, 1000.F)));
}

TEST_F(ToldConditions, WithoutAFirstLatentTheTaskIsTextToVideo) {
  request_.given_latents = at::Tensor();
  for (const auto mode : {Mode::kStream, Mode::kBidirectional}) {
    model_->calls.clear();
    request_.mode = mode;
    generate();
    EXPECT_TRUE(told(0).text_to_video);
    EXPECT_FALSE(told(0).image_latents.defined() || told(0).vision.defined());
  }
}

TEST_F(ToldConditions, ImageChannelsOfTheCallersOwnStay) {
  request_.given_latents = at::Tensor();
  request_.conditions.image_latents = at::full({2, 8, kChannels + 1, kSize, kSize}, 3.F);
  generate();
  EXPECT_TRUE(at::equal(told(3).image_latents, request_.conditions.image_latents.narrow(1, 4, 4)));
}

TEST_F(ToldConditions, TheUnconditionalPassSeesTheImageToo) {
  request_.stream.guidance_scale = 3;
  for (const auto mode : {Mode::kStream, Mode::kBidirectional}) {
    model_->calls.clear();
    request_.mode = mode;
    generate();
    EXPECT_EQ(RecordingModel::text_of(told(1)), 0);
    expect_image(told(1), 0);
  }
}

TEST_F(ToldConditions, AFrameWiseStreamIsToldItsFirstLatentInsteadOfTakingIt) {
  request_.stream.chunk_frames = 1;
  request_.camera_to_world = request_.camera_to_world.narrow(0, 0, 2);
  generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(1000, 500, 0, 1000, 500, 0));
  expect_image(told(0), 0);
}

TEST_F(ToldConditions, GivenChunksAreAcceptedAndTheirFirstLatentIsTold) {
  request_.given_latents = random_normal({2, 4, kChannels, kSize, kSize}, {1, "given"});
  const auto latents = generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(0, 1000, 500, 0));
  EXPECT_TRUE(at::equal(latents.narrow(1, 0, 4), request_.given_latents));
  EXPECT_TRUE(at::equal(told(0).image_latents.select(1, 0).narrow(1, 0, kChannels),
                        request_.given_latents.select(1, 0)));
  request_.mode = Mode::kBidirectional;
  EXPECT_THAT(error_of([&] { generate(); }), HasSubstr("4 given latents: this model is told its"));
}

TEST_F(ToldConditions, ActionsAtChunkBordersAreThoseOfTheWholeClip) {
  model_->told_actions = true;
  const auto whole = [&](const models::Conditions& conditions) {
    return camera::action_labels(conditions.cameras.world_to_camera[1]);
  };
  request_.mode = Mode::kBidirectional;
  generate();
  const at::Tensor expected = whole(told(0));
  EXPECT_EQ(expected[0].item<int64_t>(), 0);
  EXPECT_NE(expected[4].item<int64_t>(), 0);
  EXPECT_TRUE(at::equal(told(0).actions[1], expected));
  request_.mode = Mode::kStream;
  for (const int64_t chunk : {4, 1}) {
    request_.stream.chunk_frames = chunk;
    model_->calls.clear();
    generate();
    std::vector<at::Tensor> streamed, committed;
    for (const auto& call : model_->calls) {
      (call.commit ? committed : streamed).push_back(call.conditions.actions[1]);
    }
    EXPECT_TRUE(at::equal(at::cat(committed), expected)) << "chunks of " << chunk;
    EXPECT_TRUE(at::equal(streamed.at(1), streamed.at(0)));
  }
}

TEST_F(ToldConditions, ActionsStartAnewWithEveryClip) {
  model_->told_actions = true;
  WorldStream stream(model_, nullptr, request_.stream);
  for (int clip = 0; clip < 2; ++clip) {
    stream.begin(request_.conditions.text, {}, kSize, kSize);
    stream.next(request_.camera_to_world.narrow(0, 0, 4));
    EXPECT_EQ(model_->calls.back().conditions.actions[0][0].item<int64_t>(), 0);
  }
}

TEST_F(ToldConditions, ActionsMayBeGivenAndMustReachToTheEnd) {
  model_->told_actions = true;
  request_.conditions.actions = at::arange(16).view({2, 8});
  generate();
  EXPECT_TRUE(at::equal(told(3).actions, request_.conditions.actions.narrow(1, 4, 4)));
  request_.conditions.actions = request_.conditions.actions.narrow(1, 0, 6);
  EXPECT_THAT(error_of([&] { generate(); }), HasSubstr("given for 6 frames, not for 8"));
}

TEST_F(ToldConditions, AModelWithoutCamerasIsGivenNoneAndNeedsNone) {
  model_->told_cameras = false;
  for (const auto mode : {Mode::kStream, Mode::kBidirectional}) {
    model_->calls.clear();
    request_.mode = mode;
    generate();
    EXPECT_FALSE(told(0).cameras.defined());
  }
  request_.camera_to_world = at::Tensor();
  EXPECT_THAT(error_of([&] { generate(); }), HasSubstr("neither cameras nor a number of frames"));
  request_.frames = 6;
  request_.stream.fx = request_.stream.fy = 0;
  for (const auto mode : {Mode::kStream, Mode::kBidirectional}) {
    request_.mode = mode;
    EXPECT_EQ(generate().size(1), 6);
  }
}

TEST_F(ToldConditions, ActionsWithoutPosesAreRefused) {
  model_->told_cameras = false;
  model_->told_actions = true;
  request_.camera_to_world = at::Tensor();
  request_.frames = 8;
  for (const auto mode : {Mode::kStream, Mode::kBidirectional}) {
    request_.mode = mode;
    EXPECT_THAT(error_of([&] { generate(); }), HasSubstr("reads the actions of poses"));
  }
}

}  // namespace
}  // namespace minwm::stream
