// The training step and the streaming chunk of `wan-tiny` on the CPU: milliseconds per clip and per
// chunk, tokens per second. Before timing, both training modes are checked against each other's
// outputs being finite.

#include <benchmark/benchmark.h>

#include <torch/torch.h>

#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/models/backbone.h"

namespace {

using namespace minwm;

constexpr int64_t kBatch = 8, kFrames = 12, kChunk = 4, kChannels = 16, kSide = 8,
                  kTokensPerFrame = 16;

models::Conditions conditions(int64_t batch, int64_t frames) {
  models::Conditions c;
  c.text = random_normal({batch, 6, 32}, {1, "bench.text"});
  at::Tensor pose = at::eye(4).repeat({batch, frames, 1, 1});
  for (int64_t f = 0; f < frames; ++f) {
    pose.select(1, f).select(1, 2).select(1, 3).fill_(-0.08 * static_cast<double>(f));
  }
  at::Tensor k = at::eye(3).repeat({batch, frames, 1, 1});
  k.select(2, 0).select(2, 0).fill_(0.505);
  k.select(2, 1).select(2, 1).fill_(0.505);
  c.cameras = {pose, k};
  return c;
}

models::ForwardInput clip_batch(bool teacher_forcing) {
  models::ForwardInput input;
  input.latents = random_normal({kBatch, kFrames, kChannels, kSide, kSide}, {1, "bench.noisy"});
  input.timestep = random_uniform({kBatch, kFrames}, {1, "bench.timestep"}) * 1000;
  input.conditions = conditions(kBatch, kFrames);
  if (teacher_forcing) {
    input.clean_latents =
        random_normal({kBatch, kFrames, kChannels, kSide, kSide}, {1, "bench.clean"});
    input.chunk_frames = kChunk;
  }
  return input;
}

/// One training step without the optimizer: forward, loss, backward. Argument 0: threads.
void training_step(benchmark::State& state, bool teacher_forcing, at::ScalarType compute) {
  if (compute == at::kBFloat16 && !has_native_bfloat16(at::kCPU)) {
    state.SkipWithError("no bfloat16 instructions here");
    return;
  }
  at::set_num_threads(static_cast<int>(state.range(0)));
  const auto model = models::make_backbone("wan-tiny", 1);
  model->set_compute_dtype(compute);
  const auto input = clip_batch(teacher_forcing);
  const at::Tensor target = random_normal(input.latents.sizes(), {1, "bench.target"});
  for (auto _ : state) {
    model->zero_grad();
    const at::Tensor loss = (model->forward(input) - target).square().mean();
    loss.backward();
    require(std::isfinite(loss.item<double>()), "the loss is not finite");
  }
  const double tokens =
      static_cast<double>(kBatch * kFrames * kTokensPerFrame * (teacher_forcing ? 2 : 1));
  state.counters["tokens/s"] =
      benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["s/clip"] = benchmark::Counter(
      static_cast<double>(kBatch),
      benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

/// The third chunk of four latents (16 pixel frames): four denoising calls and the call that
/// commits it.
void stream_chunk(benchmark::State& state) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  const c10::InferenceMode inference;
  const auto model = models::make_backbone("wan-tiny", 1);
  models::StreamInput input;
  input.latents = random_normal({1, kChunk, kChannels, kSide, kSide}, {1, "bench.noisy"});
  input.timestep = at::full({1, kChunk}, 500.0);
  input.conditions = conditions(1, kChunk);
  auto chunk = [&](models::KvCache& cache) {
    input.commit = false;
    for (int step = 0; step < 4; ++step) {
      benchmark::DoNotOptimize(model->stream(input, cache));
    }
    input.commit = true;
    model->stream(input, cache);
  };
  const auto cache = model->make_cache({1, kFrames, 0}, kSide, kSide);
  chunk(*cache);
  chunk(*cache);
  for (auto _ : state) {
    chunk(*cache);
  }
  state.counters["frames/s"] =
      benchmark::Counter(16, benchmark::Counter::kIsIterationInvariantRate);
}

#define TRAINING_STEP(name, forced, compute)              \
  BENCHMARK_CAPTURE(training_step, name, forced, compute) \
      ->Arg(1)                                            \
      ->Arg(2)                                            \
      ->ArgName("threads")                                \
      ->Unit(benchmark::kMillisecond)                     \
      ->UseRealTime()                                     \
      ->MinTime(1)
TRAINING_STEP(bidirectional_float32, false, at::kFloat);
TRAINING_STEP(bidirectional_bfloat16, false, at::kBFloat16);
TRAINING_STEP(teacher_forcing_float32, true, at::kFloat);
TRAINING_STEP(teacher_forcing_bfloat16, true, at::kBFloat16);
BENCHMARK(stream_chunk)
    ->Arg(1)
    ->Arg(2)
    ->ArgName("threads")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
