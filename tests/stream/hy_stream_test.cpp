// Streams and clips of a real HY model: first latents, actions and the context memory.

#include <algorithm>

#include <gtest/gtest.h>

#include "minwm/camera/memory.h"
#include "minwm/camera/pose_string.h"
#include "minwm/core/random.h"
#include "minwm/models/hy/backbone.h"
#include "minwm/stream/generate.h"

namespace minwm::stream {
namespace {

constexpr int64_t kSize = 4, kChannels = 16;

/// Says how many frames its caches hold after each call.
class WatchedHy : public models::HyBackbone {
 public:
  using HyBackbone::HyBackbone;
  at::Tensor stream(const models::StreamInput& input, models::KvCache& cache) override {
    const at::Tensor flow = HyBackbone::stream(input, cache);
    held.push_back(dynamic_cast<models::HyKvCache&>(cache).frames_held());
    return flow;
  }
  std::vector<int64_t> held;
};

class HyStream : public ::testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    options_.fx = options_.fy = 0.5;
    options_.sigmas = {1, 0.7};
    options_.seed = 3;
  }
  /// Modulation and heads start at zero; random weights make every input matter.
  static std::shared_ptr<WatchedHy> lively(const std::string& preset) {
    models::HyConfig config = models::hy_preset(preset);
    config.mm_double_blocks_depth = 2;
    auto model = std::make_shared<WatchedHy>(config, 1);
    at::NoGradGuard no_grad;
    for (auto& parameter : model->named_parameters()) {
      parameter.value().add_(0.1 * random_normal(parameter.value().sizes(), {7, parameter.key()}));
    }
    return model;
  }
  static at::Tensor text() { return random_normal({1, 6, 32}, {5, "text"}); }
  static at::Tensor first_latent() {
    return random_normal({1, 1, kChannels, kSize, kSize}, {5, "first"});
  }
  static at::Tensor path(int64_t frames) {
    return camera::integrate(camera::parse_pose_string(fmt::format("l*20,j*20,w*{}", frames)))
        .narrow(0, 0, frames);
  }
  at::Tensor clip(const std::shared_ptr<models::Backbone>& model, Mode mode,
                  const at::Tensor& first, const at::Tensor& poses) const {
    GenerateRequest request;
    request.mode = mode;
    request.conditions.text = text();
    request.given_latents = first;
    request.camera_to_world = poses;
    request.height = request.width = kSize;
    request.stream = options_;
    return generate_latents(model, request);
  }

  StreamOptions options_;
};

TEST_F(HyStream, EveryLineGeneratesInBothModesWithAndWithoutAFirstLatent) {
  const at::Tensor poses = path(8);
  for (const char* preset : {"hy-tiny", "hy-tiny-ti2v", "hy-tiny-worldplay"}) {
    const auto model = lively(preset);
    for (const auto mode : {Mode::kStream, Mode::kBidirectional}) {
      SCOPED_TRACE(fmt::format("{}, mode {}", preset, static_cast<int>(mode)));
      const auto with = clip(model, mode, first_latent(), poses);
      const auto without = clip(model, mode, {}, poses);
      EXPECT_TRUE(with.isfinite().all().item<bool>() && without.isfinite().all().item<bool>());
      EXPECT_FALSE(at::allclose(with.narrow(1, 7, 1), without.narrow(1, 7, 1)));
      EXPECT_FALSE(at::allclose(with.narrow(1, 0, 1), first_latent()));
      // Only a model of cameras (or actions) hears of the path.
      const auto still =
          clip(model, mode, first_latent(), at::eye(4, at::kDouble).repeat({8, 1, 1}));
      EXPECT_EQ(at::equal(still, with), std::string(preset) == "hy-tiny-ti2v");
    }
  }
}

TEST_F(HyStream, GuidedStreamsAndClipsAreFinite) {
  options_.guidance_scale = 3;
  const auto model = lively("hy-tiny");
  for (const auto mode : {Mode::kStream, Mode::kBidirectional}) {
    EXPECT_TRUE(clip(model, mode, first_latent(), path(8)).isfinite().all().item<bool>());
  }
}

TEST_F(HyStream, ClipsSideBySideDoNotSeeEachOther) {
  const auto model = lively("hy-tiny-worldplay");
  options_.memory.emplace();
  const auto stream_of = [&](const at::Tensor& poses, int64_t frames) {
    WorldStream stream(model, nullptr, options_);
    const int64_t batch = poses.size(0);
    stream.begin(text().expand({batch, -1, -1}), first_latent(), kSize, kSize);
    std::vector<at::Tensor> chunks;
    for (int64_t first = 0; first < frames; first += 4) {
      chunks.push_back(stream.next(poses.narrow(1, first, 4)).latents);
    }
    return at::cat(chunks, 1);
  };
  const at::Tensor other = camera::integrate(camera::parse_pose_string("s*31")).unsqueeze(0);
  const at::Tensor one = path(32).unsqueeze(0);
  const auto alone = stream_of(one, 32), both = stream_of(at::cat({one, other}), 32);
  EXPECT_LT((both.narrow(0, 0, 1) - alone).abs().max().item<double>(), 1e-3);
  EXPECT_FALSE(at::allclose(both.narrow(0, 1, 1), alone, 1e-2, 1e-2));
}

// A chunk deep in a stream equals what the selected frames alone make of it, in a cache that never
// held anything else: positions begin at 0 again, and the text's keys outlive the frames'.
TEST_F(HyStream, AChunkWithAMemoryDependsOnTheSelectedFramesAlone) {
  const auto model = lively("hy-tiny-worldplay");
  constexpr int64_t kFrames = 40, kCurrent = kFrames - 4;
  options_.memory.emplace();
  options_.sigmas = {1};
  options_.noise = [](int64_t chunk, int64_t, at::IntArrayRef shape) {
    return random_normal(shape, {21, "noise", static_cast<uint64_t>(chunk)});
  };
  const auto streamed = clip(model, Mode::kStream, first_latent(), path(kFrames));

  at::NoGradGuard no_grad;
  models::Conditions all;
  all.text = text();
  all.cameras = camera::make_cameras(path(kFrames), 0.5, 0.5);
  all = models::conditions_for(*model, all, first_latent(), kFrames);
  const auto picked =
      camera::select_memory(all.cameras.world_to_camera[0], kCurrent,
                            camera::points_in_ball(50000, 8, {options_.seed, "stream.memory"}));
  ASSERT_EQ(picked[4], 4);  // back where the turn began
  const at::Tensor index = at::tensor(picked, at::kLong);
  models::StreamInput past;
  past.latents = streamed.index_select(1, index);
  past.timestep = at::full({1, 20}, 14.F);
  past.conditions = all;
  past.conditions.cameras = {all.cameras.world_to_camera.index_select(1, index),
                             all.cameras.intrinsics.index_select(1, index)};
  past.conditions.actions = all.actions.index_select(1, index);
  past.conditions.image_latents = all.image_latents.index_select(1, index);
  past.commit = true;
  models::CacheOptions of_cache;
  of_cache.window_frames = 24;
  const auto cache = model->make_cache(of_cache, kSize, kSize);
  model->stream(past, *cache);
  models::StreamInput next;
  next.latents = options_.noise(kCurrent / 4, 0, {1, 4, kChannels, kSize, kSize});
  next.timestep = at::full({1, 4}, 1000.F);
  next.conditions = all.frames(kCurrent, 4);
  // A walk of one step from pure noise: clean = noise - flow.
  const at::Tensor expected = next.latents - model->stream(next, *cache);
  EXPECT_LT((streamed.narrow(1, kCurrent, 4) - expected).abs().max().item<double>(), 1e-4);
}

TEST_F(HyStream, ALongStreamWithAMemoryAttendsToEquallyManyFramesThroughout) {
  const auto model = lively("hy-tiny-worldplay");
  options_.memory.emplace();
  const auto latents = clip(model, Mode::kStream, first_latent(), path(60));
  EXPECT_TRUE(latents.isfinite().all().item<bool>());
  EXPECT_EQ(latents.size(1), 60);
  EXPECT_EQ(*std::max_element(model->held.begin(), model->held.end()), 20);
  // From the seventh chunk on every call finds 20 frames, the committing one and two steps each.
  EXPECT_EQ(std::count(model->held.begin(), model->held.end(), 20), 3 * (15 - 5));
  options_.memory.reset();
  const auto without = clip(model, Mode::kStream, first_latent(), path(8));
  EXPECT_TRUE(at::equal(without.narrow(1, 0, 4), latents.narrow(1, 0, 4)));
}

}  // namespace
}  // namespace minwm::stream
