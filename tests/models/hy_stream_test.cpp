// HY over its KV cache: what streams is what teacher forcing taught (spec hy-mmdit 11, 20).

#include <gtest/gtest.h>

#include "minwm/core/error.h"
#include "tests/models/small_hy.h"

namespace minwm::models {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): small_hy.h

constexpr double kTolerance = 2e-5;
constexpr int64_t kChunk = 4;

/// Runs the units as they are and counts.
class CountingUnits : public nn::UnitRunner {
 public:
  explicit CountingUnits(HyBackbone& model) : units_(model.units(), false) {}
  std::shared_ptr<void> begin() override { return units_.begin(); }
  nn::Tensors run(size_t index, const nn::UnitFunction& function,
                  const nn::Tensors& inputs) override {
    ++runs_;
    return units_.run(index, function, inputs);
  }
  bool recomputes() const override { return false; }
  /// Runs since the last call.
  int64_t take() { return std::exchange(runs_, 0); }

 private:
  nn::LocalUnits units_;
  int64_t runs_ = 0;
};

struct Clip {
  int64_t frames;
  Conditions conditions;
  at::Tensor noisy, clean, timestep;

  Clip(const HyConfig& config, int64_t batch, int64_t count)
      : frames(count),
        conditions(small_conditions(config, batch, count)),
        noisy(small_latents("noisy", batch, count)),
        clean(small_latents("clean", batch, count)),
        timestep(chunk_timesteps(batch, count, kChunk)) {}

  int64_t batch() const { return noisy.size(0); }
  StreamInput chunk(int64_t first) const {
    const int64_t count = std::min(kChunk, frames - first);
    StreamInput input;
    input.latents = noisy.narrow(1, first, count);
    input.timestep = timestep.narrow(1, first, count);
    input.conditions = conditions.frames(first, count);
    return input;
  }
  StreamInput context(int64_t first) const {
    StreamInput input = chunk(first);
    input.latents = clean.narrow(1, first, input.latents.size(1));
    input.timestep = at::zeros_like(input.timestep);
    input.commit = true;
    return input;
  }
  ForwardInput forced() const {
    ForwardInput input;
    input.latents = noisy;
    input.timestep = timestep;
    input.conditions = conditions;
    input.clean_latents = clean;
    input.chunk_frames = kChunk;
    return input;
  }
};

std::unique_ptr<KvCache> cache_for(HyBackbone& model, const Clip& clip) {
  CacheOptions options;
  options.batch = clip.batch();
  options.window_frames = clip.frames;
  return model.make_cache(options, kHeight, kWidth);
}

/// All chunks on an empty cache: [B, T, C, H, W].
at::Tensor streamed(HyBackbone& model, const Clip& clip) {
  at::NoGradGuard no_grad;
  auto cache = cache_for(model, clip);
  std::vector<at::Tensor> flows;
  for (int64_t first = 0; first < clip.frames; first += kChunk) {
    flows.push_back(model.stream(clip.chunk(first), *cache));
    EXPECT_FALSE(model.stream(clip.context(first), *cache).defined());
  }
  EXPECT_EQ(cache->frames_seen(), clip.frames);
  return at::cat(flows, 1);
}

at::Tensor taught(HyBackbone& model, const Clip& clip) {
  at::NoGradGuard no_grad;
  return model.forward(clip.forced());
}

TEST(HyStream, IsTeacherForcingOnTheSameCleanPrefix) {
  HyConfig one_block = with_camera();  // its only block is the last one
  one_block.mm_double_blocks_depth = 1;
  for (const HyConfig& config : {small_hy(), with_camera(), with_camera(true), one_block}) {
    const auto model = lively_hy(config);
    for (const int64_t frames : {8, 10}) {  // the last chunk of 10 is short
      for (const int64_t batch : {1, 3}) {  // of other text lengths
        const Clip clip(config, batch, frames);
        EXPECT_LT(relative_distance(streamed(*model, clip), taught(*model, clip)), kTolerance)
            << "camera " << config.camera << " action " << config.action << " frames " << frames
            << " batch " << batch;
      }
    }
  }
}

/// Chunk 0, and everything behind it.
std::pair<double, double> distances(const at::Tensor& a, const at::Tensor& b) {
  return {relative_distance(a.narrow(1, 0, kChunk), b.narrow(1, 0, kChunk)),
          relative_distance(a.slice(1, kChunk), b.slice(1, kChunk))};
}

TEST(HyStream, ReadsItsHistoryAsPublishedModelsDoOnlyIfAsked) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  const Clip clip(config, 1, 12);
  const at::Tensor expected = taught(*model, clip);
  for (const StreamSwitches& switches :
       {StreamSwitches{true, false}, StreamSwitches{false, true}}) {
    model->set_stream_switches(switches);
    const auto [first, rest] = distances(streamed(*model, clip), expected);
    EXPECT_LT(first, kTolerance);
    EXPECT_GT(rest, 1e-3);
  }
  model->set_stream_switches({});
  EXPECT_LT(distances(streamed(*model, clip), expected).second, kTolerance);
}

TEST(HyStream, MakesTheTextOfAPromptOnce) {
  at::NoGradGuard no_grad;
  const auto config = with_camera();
  const auto model = lively_hy(config);
  const auto units = std::make_shared<CountingUnits>(*model);
  model->set_unit_runner(units);
  const int64_t blocks = config.mm_double_blocks_depth;
  const Clip clip(config, 1, 8);
  const auto cache = cache_for(*model, clip);
  model->stream(clip.chunk(0), *cache);
  EXPECT_EQ(units->take(), 2 * blocks);  // the text, then the chunk
  model->stream(clip.context(0), *cache);
  model->stream(clip.chunk(4), *cache);
  EXPECT_EQ(units->take(), 2 * blocks);  // the chunks alone
  auto other = clip.chunk(4);
  other.conditions.text = other.conditions.text + 1;
  model->stream(other, *cache);
  EXPECT_EQ(units->take(), 2 * blocks);  // another prompt
  model->stream(other, *cache);
  EXPECT_EQ(units->take(), blocks);
  cache->reset();
  model->stream(other, *cache);
  EXPECT_EQ(units->take(), 2 * blocks);
}

TEST(HyStream, MakesTheTextAnewForAnotherTask) {
  at::NoGradGuard no_grad;
  const auto config = small_hy();
  const auto model = lively_hy(config);
  const Clip clip(config, 1, 4);
  auto input = clip.chunk(0);
  input.conditions.vision = at::zeros_like(input.conditions.vision);  // counts for i2v only
  const auto cache = cache_for(*model, clip);
  const at::Tensor image_to_video = model->stream(input, *cache);
  input.conditions.text_to_video = true;
  const at::Tensor text_to_video = model->stream(input, *cache);
  EXPECT_GT(relative_distance(text_to_video, image_to_video), 1e-3);
  EXPECT_TRUE(at::equal(text_to_video, model->stream(input, *cache_for(*model, clip))));
}

TEST(HyStream, ForgetsFramesButNotTheText) {
  at::NoGradGuard no_grad;
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  const auto units = std::make_shared<CountingUnits>(*model);
  model->set_unit_runner(units);
  const Clip clip(config, 1, 8);
  const auto cache = cache_for(*model, clip);
  const at::Tensor first = model->stream(clip.chunk(0), *cache);
  model->stream(clip.context(0), *cache);
  const at::Tensor second = model->stream(clip.chunk(4), *cache);
  model->stream(clip.context(4), *cache);
  cache->forget_frames();
  EXPECT_EQ(cache->frames_seen(), 0);
  units->take();
  EXPECT_TRUE(at::equal(model->stream(clip.chunk(0), *cache), first));
  EXPECT_EQ(units->take(), config.mm_double_blocks_depth);
  model->stream(clip.context(0), *cache);
  EXPECT_TRUE(at::equal(model->stream(clip.chunk(4), *cache), second));
}

/// All parameter gradients in one row; those that are missing are zero. Clears them.
at::Tensor take_gradients(HyBackbone& model) {
  std::vector<at::Tensor> rows;
  for (auto& p : model.parameters()) {
    rows.push_back((p.grad().defined() ? p.grad() : at::zeros_like(p)).flatten());
    p.mutable_grad().reset();
  }
  return at::cat(rows);
}

at::Tensor loss(const at::Tensor& flow) {
  return (flow * random_normal(flow.sizes(), {17, "loss"})).sum();
}

TEST(HyStream, SendsTheGradientsOfTeacherForcingThroughChunkAndText) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  const Clip clip(config, 2, 4);
  for (const bool recompute : {false, true}) {
    model->set_activation_checkpointing(recompute);
    loss(model->forward(clip.forced())).backward();
    const at::Tensor expected = take_gradients(*model);
    const auto cache = cache_for(*model, clip);
    loss(model->stream(clip.chunk(0), *cache)).backward();
    EXPECT_LT(relative_distance(take_gradients(*model), expected), kTolerance);
  }
}

TEST(HyStream, RecomputedChunksOnACacheGiveTheSameGradients) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  const Clip clip(config, 3, 10);
  const auto gradients = [&](bool recompute) {
    model->set_activation_checkpointing(recompute);
    const auto cache = cache_for(*model, clip);
    std::vector<at::Tensor> flows;
    for (int64_t first = 0; first < clip.frames; first += kChunk) {
      flows.push_back(model->stream(clip.chunk(first), *cache));
      model->stream(clip.context(first), *cache);
    }
    const at::Tensor flow = at::cat(flows, 1);
    EXPECT_LT(relative_distance(flow.detach(), taught(*model, clip)), kTolerance);
    loss(flow).backward();
    return take_gradients(*model);
  };
  const at::Tensor kept = gradients(false);
  EXPECT_LT(relative_distance(gradients(true), kept), kTolerance);
}

TEST(HyStream, HoldsATextConstantIfAsked) {
  const auto config = small_hy();
  const auto model = lively_hy(config);
  const Clip clip(config, 2, 4);
  const auto cache = cache_for(*model, clip);
  auto input = clip.chunk(0);
  const at::Tensor moving = model->stream(input, *cache);
  input.constant_text = true;
  const at::Tensor constant = model->stream(input, *cache);
  EXPECT_LT(relative_distance(constant, moving), kTolerance);
  loss(constant).backward();
  for (const auto& item : model->named_parameters()) {
    const auto& name = item.key();
    const bool text = name.starts_with("txt_in") || name.starts_with("byt5_in") ||
                      name.starts_with("vision_in") || name.starts_with("cond_type") ||
                      name.find(".txt_") != std::string::npos;
    const at::Tensor& grad = item.value().grad();
    EXPECT_EQ(grad.defined() && grad.abs().max().item<double>() > 0, !text) << name;
  }
}

TEST(HyStream, RefusesWrongChunksAndLeavesTheCacheAlone) {
  at::NoGradGuard no_grad;
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  const Clip clip(config, 1, 8);
  const auto cache = cache_for(*model, clip);
  model->stream(clip.context(0), *cache);
  const at::Tensor expected = model->stream(clip.chunk(4), *cache);
  auto wrong = clip.context(4);
  wrong.latents = wrong.latents.slice(2, 1);
  EXPECT_THROW(model->stream(wrong, *cache), Error);
  wrong = clip.context(4);
  wrong.timestep = wrong.timestep.slice(1, 1);
  EXPECT_THROW(model->stream(wrong, *cache), Error);
  wrong = clip.context(4);
  wrong.conditions.cameras = wrong.conditions.cameras.frames(0, 1);
  EXPECT_THROW(model->stream(wrong, *cache), Error);
  wrong = clip.chunk(4);
  wrong.conditions.actions = at::Tensor();
  EXPECT_THROW(model->stream(wrong, *cache), Error);
  EXPECT_EQ(cache->frames_seen(), kChunk);
  EXPECT_TRUE(at::equal(model->stream(clip.chunk(4), *cache), expected));
}

}  // namespace
}  // namespace minwm::models
