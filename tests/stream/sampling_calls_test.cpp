// Which calls a stream makes of its model: levels, text, image channels, commits.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "minwm/stream/generate.h"
#include "tests/stream/recording_model.h"

namespace minwm::stream {
namespace {

using ::testing::ElementsAre;
using testing::kChannels;
using testing::kSize;
using testing::RecordingModel;

class SamplingCalls : public ::testing::Test {
 protected:
  void SetUp() override {
    request_.conditions.text = at::full({1, 1, 1}, 2);
    request_.camera_to_world = camera::integrate(camera::parse_pose_string("w*7"));
    request_.height = request_.width = kSize;
    request_.stream.fx = request_.stream.fy = 0.5;
    request_.stream.sigmas = {1, 0.5};
  }
  at::Tensor generate() { return generate_latents(model_, request_); }

  std::shared_ptr<RecordingModel> model_ = std::make_shared<RecordingModel>();
  GenerateRequest request_;
};

TEST_F(SamplingCalls, EachChunkWalksDownAndIsCommittedClean) {
  generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(1000, 500, 0, 1000, 500, 0));
  EXPECT_TRUE(model_->calls[2].commit);
  EXPECT_FALSE(model_->calls[3].commit);
}

TEST_F(SamplingCalls, TheFirstChunkHasItsOwnLevelsAndContextItsOwnTimestep) {
  request_.stream.first_chunk_sigmas = {1, 0.75, 0.25};
  request_.stream.context_timestep = 50;
  generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(1000, 750, 250, 50, 1000, 500, 50));
}

TEST_F(SamplingCalls, GivenChunksAreCommittedAtZeroAndTakeTheFirstChunksPlace) {
  request_.stream.first_chunk_sigmas = {1, 0.75, 0.25};
  request_.stream.context_timestep = 50;
  request_.given_latents = at::ones({1, 4, kChannels, kSize, kSize});
  const auto latents = generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(0, 1000, 500, 50));
  EXPECT_TRUE(at::equal(latents.narrow(1, 0, 4), request_.given_latents));
}

TEST_F(SamplingCalls, FrameWiseAGivenFrameIsAChunkOfItsOwn) {
  request_.stream.chunk_frames = 1;
  request_.camera_to_world = request_.camera_to_world.narrow(0, 0, 2);
  request_.given_latents = at::ones({1, 1, kChannels, kSize, kSize});
  generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(0, 1000, 500, 0));
  model_->calls.clear();
  WorldStream stream(model_, nullptr, request_.stream);
  stream.begin(request_.conditions.text, request_.given_latents, kSize, kSize);
  const auto chunk = stream.next(request_.camera_to_world.narrow(0, 0, 1)).latents;
  EXPECT_TRUE(at::equal(chunk, request_.given_latents));
  EXPECT_THAT(model_->timesteps(), ElementsAre(0));
}

TEST_F(SamplingCalls, MultistepSolversStartAfreshInEveryChunk) {
  request_.stream.solver = Solver::kUniPc;
  request_.stream.sigmas = diffusion::solver_sigmas(Solver::kUniPc, 3, 5);
  request_.stream.noise = [](int64_t, int64_t, at::IntArrayRef shape) { return at::ones(shape); };
  const auto latents = generate();
  EXPECT_THAT(model_->timesteps(), ElementsAre(999, 908, 713, 0, 999, 908, 713, 0));
  EXPECT_TRUE(at::equal(latents.narrow(1, 0, 4), latents.narrow(1, 4, 4)));
}

TEST_F(SamplingCalls, GuidanceGoesFromTheNegativeTextOrFromZeros) {
  request_.stream.sigmas = {1};
  request_.stream.guidance_scale = 3;
  request_.stream.noise = [](int64_t, int64_t, at::IntArrayRef shape) { return at::zeros(shape); };
  EXPECT_NEAR(generate().mean().item<double>(), -6, 1e-5);  // 0 + 3 (2 - 0)
  request_.negative.text = at::full({1, 1, 1}, 1.5);
  EXPECT_NEAR(generate().mean().item<double>(), -3, 1e-5);  // 1.5 + 3 (2 - 1.5)
  request_.mode = Mode::kBidirectional;
  EXPECT_NEAR(generate().mean().item<double>(), -3, 1e-5);
  request_.negative.text = at::Tensor();
  EXPECT_NEAR(generate().mean().item<double>(), -6, 1e-5);
}

TEST_F(SamplingCalls, BothCachesAreFilledUnderGuidance) {
  request_.stream.guidance_scale = 3;
  generate();
  EXPECT_EQ(std::count_if(model_->calls.begin(), model_->calls.end(),
                          [](const auto& call) { return call.commit; }),
            4);
  EXPECT_EQ(model_->calls.size(), 12);
}

TEST_F(SamplingCalls, ImageChannelsGoWithTheirFramesAndAreZeroPastTheEnd) {
  request_.conditions.image_latents =
      at::arange(5, at::kFloat).view({1, 5, 1, 1, 1}).expand({1, 5, 1, kSize, kSize});
  generate();
  const auto of_call = [&](size_t i) {
    return model_->calls[i].conditions.image_latents.select(2, 0).select(2, 0).select(2, 0)[0];
  };
  EXPECT_TRUE(at::equal(of_call(0), at::tensor({0.F, 1.F, 2.F, 3.F})));
  EXPECT_TRUE(at::equal(of_call(2), at::tensor({0.F, 1.F, 2.F, 3.F})));  // the committing call
  EXPECT_TRUE(at::equal(of_call(3), at::tensor({4.F, 0.F, 0.F, 0.F})));
}

TEST_F(SamplingCalls, CamerasMayBeGivenAsTheModelReadsThem) {
  generate();
  const auto expected = model_->calls[3].conditions.cameras.world_to_camera;
  auto other = request_;
  other.conditions.cameras = {
      at::cat({model_->calls[0].conditions.cameras.world_to_camera, expected}, 1),
      at::cat({model_->calls[0].conditions.cameras.intrinsics,
               model_->calls[3].conditions.cameras.intrinsics},
              1)};
  other.camera_to_world = at::Tensor();
  const auto latents = generate_latents(model_, other);
  EXPECT_TRUE(at::equal(model_->calls.back().conditions.cameras.world_to_camera, expected));
  EXPECT_TRUE(at::equal(latents, generate()));
  other.conditions.cameras = {};
  EXPECT_THAT([&] { generate_latents(model_, other); },
              ::testing::ThrowsMessage<Error>(::testing::HasSubstr("no cameras were given")));
}

}  // namespace
}  // namespace minwm::stream
