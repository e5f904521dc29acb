// The reconstituted context memory: which finished frames a chunk looks back at, and what it costs.

#include "minwm/camera/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/stream/generate.h"
#include "tests/core/temporary_folder.h"
#include "tests/stream/recording_model.h"

namespace minwm::stream {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::kChannels;
using testing::kSize;
using testing::RecordingModel;

class Memory : public ::testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    options_.fx = options_.fy = 0.5;
    options_.sigmas = {1, 0.5};
    options_.seed = 9;
    options_.memory.emplace();
    model_->told_first = model_->told_actions = true;
  }
  /// Turns all the way round and walks on: what lies ahead was seen long ago.
  static at::Tensor poses(int64_t frames) {
    return camera::integrate(camera::parse_pose_string(
                                 fmt::format("w*5,l*30,w*5,j*{}", std::max<int64_t>(frames, 1))))
        .narrow(0, 0, frames);
  }
  at::Tensor generate(int64_t frames, int64_t batch = 1) {
    GenerateRequest request;
    request.conditions.text = at::full({batch, 1, 1}, 2);
    request.given_latents = random_normal({batch, 1, kChannels, kSize, kSize}, {1, "given"});
    request.camera_to_world = poses(frames);
    request.height = request.width = kSize;
    request.stream = options_;
    return generate_latents(model_, request);
  }
  std::vector<models::StreamInput> commits() const {
    std::vector<models::StreamInput> all;
    std::copy_if(model_->calls.begin(), model_->calls.end(), std::back_inserter(all),
                 [](const auto& call) { return call.commit; });
    return all;
  }

  std::shared_ptr<RecordingModel> model_ = std::make_shared<RecordingModel>();
  StreamOptions options_;
};

TEST_F(Memory, EveryChunkButTheFirstBeginsWithOneCommitAndEndsWithNone) {
  generate(12);
  EXPECT_THAT(model_->timesteps(), ElementsAre(1000, 500, 14, 1000, 500, 14, 1000, 500));
  EXPECT_THAT(
      commits(),
      ElementsAre(
          ::testing::Field(&models::StreamInput::latents,
                           ::testing::ResultOf([](const at::Tensor& x) { return x.size(1); }, 4)),
          ::testing::Field(&models::StreamInput::latents,
                           ::testing::ResultOf([](const at::Tensor& x) { return x.size(1); }, 8))));
  // The cache is empty before the commit; the chunk stands right behind it.
  EXPECT_THAT(model_->positions, ElementsAre(0, 0, 0, 4, 4, 0, 8, 8));
}

TEST_F(Memory, TheFramesLookedBackAtAreThoseOfTheSelection) {
  constexpr int64_t kFrames = 60;
  const auto latents = generate(kFrames);
  const auto made = commits();
  ASSERT_EQ(made.size(), 14);
  std::vector<at::Tensor> views(1, model_->calls[0].conditions.cameras.world_to_camera[0]);
  for (const auto& call : model_->calls) {
    if (!call.commit && call.timestep[0][0].item<double>() == 500 &&
        !call.conditions.cameras.world_to_camera[0].equal(views.back())) {
      views.push_back(call.conditions.cameras.world_to_camera[0]);
    }
  }
  const at::Tensor all_views = at::cat(views);
  ASSERT_EQ(all_views.size(0), kFrames);
  const at::Tensor actions = models::actions_of({all_views.unsqueeze(0), {}});
  const at::Tensor points = camera::points_in_ball(50000, 8, {options_.seed, "stream.memory"});
  bool jumped = false;  // looked back at something neither first nor last
  for (size_t chunk = 1; chunk < 15; ++chunk) {
    const auto current = static_cast<int64_t>(chunk) * 4;
    const auto expected =
        camera::select_memory(all_views.narrow(0, 0, current + 4), current, points);
    const at::Tensor index = at::tensor(expected, at::kLong);
    const auto& call = made[chunk - 1];
    EXPECT_TRUE(at::equal(call.latents, latents.index_select(1, index))) << "chunk " << chunk;
    EXPECT_TRUE(
        at::equal(call.conditions.cameras.world_to_camera[0], all_views.index_select(0, index)));
    EXPECT_TRUE(at::equal(call.conditions.actions, actions.index_select(1, index)));
    // Frame 0 carries the image, no other does.
    const at::Tensor mask =
        call.conditions.image_latents.select(2, kChannels).select(2, 0).select(2, 0);
    EXPECT_TRUE(at::equal(mask[0], (index == 0).to(at::kFloat)));
    jumped = jumped || (current > 20 && expected[4] != 4);
  }
  EXPECT_TRUE(jumped);
}

TEST_F(Memory, AChunkCostsTheSameHoweverLongTheVideo) {
  constexpr int64_t kFrames = 60;
  EXPECT_TRUE(generate(kFrames).isfinite().all().item<bool>());
  const auto made = commits();
  for (size_t chunk = 1; chunk < 15; ++chunk) {
    EXPECT_EQ(made[chunk - 1].latents.size(1),
              std::min<int64_t>(static_cast<int64_t>(chunk) * 4, 20));
  }
  EXPECT_EQ(model_->cache_options.window_frames, 24);
  EXPECT_EQ(*std::max_element(model_->positions.begin(), model_->positions.end()), 20);
}

TEST_F(Memory, TheFirstChunkIsAsWithout) {
  const auto with = generate(8).narrow(1, 0, 4);
  options_.memory.reset();
  EXPECT_TRUE(at::equal(generate(4), with));
}

TEST_F(Memory, UnderGuidanceBothCachesAreMadeAnew) {
  options_.guidance_scale = 3;
  generate(12);
  EXPECT_EQ(commits().size(), 4);
  EXPECT_EQ(RecordingModel::text_of(commits()[0].conditions), 2);
  EXPECT_EQ(RecordingModel::text_of(commits()[1].conditions), 0);
  EXPECT_THAT(model_->positions, ElementsAre(0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 8, 8, 8, 8));
}

TEST_F(Memory, ClipsSideBySideLookBackEachOnItsOwn) {
  WorldStream stream(model_, nullptr, options_);
  stream.begin(at::full({2, 1, 1}, 2), {}, kSize, kSize);
  const at::Tensor round = camera::integrate(camera::parse_pose_string("l*20,j*19")),
                   back = camera::integrate(camera::parse_pose_string("s*39"));
  std::vector<at::Tensor> latents;
  for (int64_t first = 0; first < 40; first += 4) {
    latents.push_back(stream.next(at::stack({round, back}).narrow(1, first, 4)).latents);
  }
  const at::Tensor all = at::cat(latents, 1),
                   views = commits().back().conditions.cameras.world_to_camera;
  const auto alone = [&](int64_t clip) {
    at::Tensor points = camera::points_in_ball(50000, 8, {options_.seed, "stream.memory"});
    std::vector<at::Tensor> own;
    for (const auto& call : model_->calls) {
      if (!call.commit && call.timestep[0][0].item<double>() == 500) {
        own.push_back(call.conditions.cameras.world_to_camera[clip]);
      }
    }
    return at::tensor(camera::select_memory(at::cat(own), 36, points), at::kLong);
  };
  EXPECT_FALSE(at::equal(alone(0), alone(1)));
  for (const int64_t clip : {0, 1}) {
    EXPECT_TRUE(at::equal(commits().back().latents[clip], all[clip].index_select(0, alone(clip))));
  }
}

TEST_F(Memory, AModelWithoutCamerasStillSelectsByPoses) {
  model_->told_cameras = false;
  generate(28);
  EXPECT_FALSE(commits().back().conditions.cameras.defined());
  WorldStream stream(model_, nullptr, options_);
  model_->told_actions = false;
  stream.begin(at::full({1, 1, 1}, 2), {}, kSize, kSize);
  stream.next(camera::Cameras{}, 4);
  EXPECT_THAT(error_of([&] { stream.next(camera::Cameras{}, 4); }),
              HasSubstr("a context memory compares poses"));
}

TEST_F(Memory, SizesThatDoNotFitAreRefused) {
  options_.memory->temporal = 30;
  EXPECT_THAT(error_of([&] { generate(4); }),
              HasSubstr("a memory of 20 frames, 30 of them the last"));
  options_.memory = ContextMemory{};
  options_.memory->timestep = 2000;
  EXPECT_THAT(error_of([&] { generate(4); }), HasSubstr("timestep in 0"));
  options_.memory = ContextMemory{};
  WorldStream stream(model_, nullptr, options_);
  stream.begin(at::full({1, 1, 1}, 2), {}, kSize, kSize);
  stream.next(poses(4));
  EXPECT_THAT(error_of([&] { stream.next(poses(8)); }), HasSubstr("chunks of 4 frames, not of 8"));
}

/// A real model, on which positions and the held frames can be seen.
class WanMemory : public Memory {};

TEST_F(WanMemory, ALongStreamRunsAndLooksBack) {
  const auto wan = models::make_backbone("wan-tiny@1", 1);
  at::NoGradGuard no_grad;
  for (auto& parameter : wan->named_parameters()) {
    parameter.value().add_(0.05 * random_normal(parameter.value().sizes(), {7, parameter.key()}));
  }
  GenerateRequest request;
  request.conditions.text = random_normal({1, 6, 32}, {5, "text"});
  request.camera_to_world = poses(60);
  request.height = request.width = 4;
  request.stream = options_;
  const auto with = generate_latents(wan, request);
  EXPECT_TRUE(with.isfinite().all().item<bool>());
  request.stream.memory.reset();
  const auto without = generate_latents(wan, request);
  EXPECT_TRUE(at::equal(with.narrow(1, 0, 4), without.narrow(1, 0, 4)));
  EXPECT_FALSE(at::allclose(with.narrow(1, 4, 4), without.narrow(1, 4, 4)));
}

}  // namespace
}  // namespace minwm::stream
