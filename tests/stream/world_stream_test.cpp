#include "minwm/stream/world_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/stream/generate.h"

namespace minwm::stream {
namespace {

constexpr int64_t kSize = 4;  // latent height and width

class WorldStreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    model_ = models::make_backbone("wan-tiny", 1);
    at::NoGradGuard no_grad;
    // The head starts at zero; random weights make every input matter.
    for (auto& parameter : model_->named_parameters()) {
      parameter.value().add_(0.05 * random_normal(parameter.value().sizes(), {7, parameter.key()}));
    }
    options_.fx = options_.fy = 0.5;
    options_.seed = 3;
  }

  at::Tensor text(int64_t batch) const {
    return random_normal({1, 6, model_->text_dim()}, {5, "text"}).expand({batch, -1, -1});
  }
  static at::Tensor poses(const std::string& pose_string) {
    return camera::integrate(camera::parse_pose_string(pose_string));
  }
  at::Tensor clip(const std::string& pose_string, const at::Tensor& given,
                  int64_t batch = 1) const {
    GenerateRequest request;
    request.conditions.text = text(batch);
    request.given_latents = given;
    request.camera_to_world = poses(pose_string);
    request.height = request.width = kSize;
    request.stream = options_;
    return generate_latents(model_, request);
  }

  std::shared_ptr<models::Backbone> model_;
  StreamOptions options_;
};

TEST_F(WorldStreamTest, SameSeedGivesTheSameBits) {
  EXPECT_TRUE(at::equal(clip("w*7", {}), clip("w*7", {})));
}

TEST_F(WorldStreamTest, AnotherSeedGivesAnotherWorld) {
  const auto first = clip("w*7", {});
  options_.seed = 4;
  EXPECT_FALSE(at::allclose(first, clip("w*7", {})));
}

TEST_F(WorldStreamTest, FutureCamerasDoNotChangeThePast) {
  const auto straight = clip("w*7", {}), turning = clip("w*3,l*4", {});
  EXPECT_TRUE(at::equal(straight.narrow(1, 0, 4), turning.narrow(1, 0, 4)));
  EXPECT_FALSE(at::allclose(straight.narrow(1, 4, 4), turning.narrow(1, 4, 4)));
}

TEST_F(WorldStreamTest, GivenFirstFrameIsKept) {
  const auto given = random_normal({1, 1, 16, kSize, kSize}, {9, "given"});
  EXPECT_TRUE(at::equal(clip("w*7", given).narrow(1, 0, 1), given));
}

TEST_F(WorldStreamTest, GivenChunkIsCommittedAsIs) {
  const auto whole = clip("w*7", {});
  EXPECT_TRUE(
      at::allclose(clip("w*7", whole.narrow(1, 0, 4)).narrow(1, 0, 4), whole.narrow(1, 0, 4)));
}

TEST_F(WorldStreamTest, ClipsSideBySideDoNotSeeEachOther) {
  const auto one = clip("w*3,j*4", {}), two = clip("w*3,j*4", {}, 2);
  EXPECT_TRUE(at::allclose(two.narrow(0, 0, 1), one, 1e-4, 1e-5));
  EXPECT_FALSE(at::allclose(two.narrow(0, 1, 1), one));
}

TEST_F(WorldStreamTest, RunsFarPastTheWindow) {
  options_.window_frames = 8;
  const auto clip_latents = clip("w*39", {});
  EXPECT_EQ(clip_latents.size(1), 40);
  EXPECT_TRUE(clip_latents.isfinite().all().item<bool>());
}

TEST_F(WorldStreamTest, BidirectionalKeepsGivenFramesAndIsFinite) {
  GenerateRequest request;
  request.mode = Mode::kBidirectional;
  request.conditions.text = text(1);
  request.given_latents = random_normal({1, 2, 16, kSize, kSize}, {9, "given"});
  request.camera_to_world = poses("d*7");
  request.height = request.width = kSize;
  request.stream = options_;
  const auto latents = generate_latents(model_, request);
  EXPECT_TRUE(at::equal(latents.narrow(1, 0, 2), request.given_latents));
  EXPECT_TRUE(latents.isfinite().all().item<bool>());
}

TEST_F(WorldStreamTest, WrongUseIsOneClearLine) {
  WorldStream stream(model_, nullptr, options_);
  EXPECT_THAT([&] { stream.next(poses("w*3")); },
              ::testing::ThrowsMessage<Error>(::testing::HasSubstr("begin() comes before")));
  options_.window_frames = 2;
  EXPECT_THAT([&] { WorldStream(model_, nullptr, options_); },
              ::testing::ThrowsMessage<Error>(::testing::HasSubstr("does not hold a chunk")));
}

}  // namespace
}  // namespace minwm::stream
