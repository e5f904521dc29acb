// A stream that runs many times longer than its model was trained for.

#include <algorithm>

#include <gtest/gtest.h>

#include "minwm/camera/pose_string.h"
#include "minwm/core/random.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/stream/world_stream.h"

namespace minwm::stream {
namespace {

constexpr int64_t kSize = 4, kChunk = 4, kTrained = 12;  // latents

/// A Wan model that says how many frames its caches hold.
class WatchedModel : public models::WanBackbone {
 public:
  using WanBackbone::WanBackbone;
  at::Tensor stream(const models::StreamInput& input, models::KvCache& cache) override {
    at::Tensor flow = WanBackbone::stream(input, cache);
    most_held = std::max(most_held, dynamic_cast<models::WanKvCache&>(cache).frames_held());
    return flow;
  }
  int64_t most_held = 0;
};

std::shared_ptr<WatchedModel> random_model(int64_t layers) {
  models::WanConfig config = models::wan_preset("wan-tiny");
  config.num_layers = layers;
  config.dim = 64;
  config.num_heads = 2;
  config.ffn_dim = 64;
  auto model = std::make_shared<WatchedModel>(config, 1);
  at::NoGradGuard no_grad;
  for (auto& parameter : model->named_parameters()) {
    parameter.value().add_(0.05 * random_normal(parameter.value().sizes(), {7, parameter.key()}));
  }
  return model;
}

class LongStream : public ::testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    options_.fx = options_.fy = 0.5;
    options_.sigmas = {1, 0.8};
    options_.chunk_frames = kChunk;
    options_.window_frames = kTrained;
  }
  static at::Tensor text() { return random_normal({1, 6, 32}, {5, "text"}); }
  /// A walk that turns and goes on: positions and angles keep changing.
  static at::Tensor walk(int64_t chunks) {
    return camera::integrate(camera::parse_pose_string(fmt::format("w+l*{}", chunks * kChunk - 1)));
  }
  StreamOptions options_;
};

TEST_F(LongStream, RunsTwentyTimesTheTrainedLengthWithoutGrowth) {
  const auto model = random_model(3);
  options_.sink_frames = kChunk;
  WorldStream stream(model, nullptr, options_);
  stream.begin(text(), {}, kSize, kSize);
  constexpr int64_t kChunks = 20 * kTrained / kChunk;
  const auto poses = walk(kChunks);
  double first_size = 0, size = 0;
  for (int64_t i = 0; i < kChunks; ++i) {
    const auto latents = stream.next(poses.narrow(0, i * kChunk, kChunk)).latents;
    ASSERT_TRUE(latents.isfinite().all().item<bool>()) << "chunk " << i;
    size = latents.square().mean().sqrt().item<double>();
    first_size = i == 0 ? size : first_size;
  }
  EXPECT_EQ(stream.frames(), 20 * kTrained);
  EXPECT_EQ(model->most_held, kTrained);
  EXPECT_LT(size, 10 * first_size);
}

// With one layer, keys and values depend on a frame's own latents alone. What comes 1000 frames
// into a stream must then equal what a new stream generates behind the same window of frames:
// rotary positions, cameras and the order of the ring buffer count from the window, not from the
// start.
TEST_F(LongStream, FarFromTheStartAChunkDependsOnItsWindowAlone) {
  const auto model = random_model(1);
  const at::Tensor noise = random_normal({1, kChunk, 16, kSize, kSize}, {3, "noise"});
  options_.noise = [&](int64_t, int64_t step, at::IntArrayRef) {
    return noise * (step == 0 ? 1 : -1);
  };
  constexpr int64_t kPast = kTrained / kChunk - 1;
  const auto last_chunk = [&](int64_t chunks_before) {
    WorldStream stream(model, nullptr, options_);
    stream.begin(text(), {}, kSize, kSize);
    const auto poses = walk(kPast + 1);
    for (int64_t i = 0; i < chunks_before; ++i) {
      // The last ones are the window: the same latents and poses, however many came before.
      const int64_t k = i - (chunks_before - kPast);
      const at::Tensor latents = random_normal({1, kChunk, 16, kSize, kSize},
                                               {3, "past", static_cast<uint64_t>(k + 1000)});
      stream.accept(latents, poses.narrow(0, std::max<int64_t>(k, 0) * kChunk, kChunk));
    }
    return stream.next(poses.narrow(0, kPast * kChunk, kChunk)).latents;
  };
  const at::Tensor near = last_chunk(kPast), far = last_chunk(kPast + 250);
  EXPECT_LT((far - near).abs().max().item<double>(), 1e-3);
  // And the window matters: with one chunk of it missing the result is another.
  EXPECT_GT((last_chunk(kPast - 1) - near).abs().max().item<double>(), 1e-2);
}

}  // namespace
}  // namespace minwm::stream
