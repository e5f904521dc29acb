// The data path of the embedded default: rendering a clip, encoding and decoding it, writing and
// reading the store, and what the loader hands over.

#include <filesystem>

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/data/latent_store.h"
#include "minwm/data/loader.h"
#include "minwm/data/world.h"
#include "minwm/models/codec/analytic.h"

namespace {

using namespace minwm;

constexpr int64_t kLatentFrames = 12, kClips = 64, kBatch = 8;

at::Tensor path_of(int64_t clip) {
  return camera::integrate(camera::parse_pose_string(
      data::random_trajectory(static_cast<uint64_t>(clip), 0, kLatentFrames - 1)));
}

data::WorldStyle style_of(int64_t width, int64_t height) {
  data::WorldStyle style;
  style.width = width;
  style.height = height;
  return style;
}

/// Frames of one clip in their order. Arguments: width, height.
void render_clip(benchmark::State& state) {
  at::set_num_threads(1);
  const auto world = data::make_world(7, style_of(state.range(0), state.range(1)));
  const at::Tensor poses = data::interpolate_latent_poses(path_of(7));
  const int64_t frames = state.range(0) > 64 ? 5 : poses.size(0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(data::render(*world, poses.narrow(0, 0, frames)).pixels);
  }
  state.counters["frames/s"] = benchmark::Counter(static_cast<double>(frames),
                                                  benchmark::Counter::kIsIterationInvariantRate);
}

/// A few rendered clips, their codec and their store, made once.
struct Fixture {
  Fixture() {
    at::set_num_threads(1);
    std::filesystem::create_directories(folder);
    std::vector<at::Tensor> clips;
    for (int64_t i = 0; i < 8; ++i) {
      const auto world = data::make_world(static_cast<uint64_t>(i), style_of(64, 64));
      clips.push_back(data::render(*world, data::interpolate_latent_poses(path_of(i))).pixels);
    }
    codec = std::make_shared<models::AnalyticCodec>(models::AnalyticCodec::fit(clips, {}));
    block = std::make_shared<models::AnalyticCodec>(*codec);
    codec->fit_decoder(clips, {});
    pixels = clips.front()
                 .permute({0, 3, 1, 2})
                 .to(at::kFloat)
                 .div(127.5)
                 .sub(1)
                 .unsqueeze(0)
                 .contiguous();
    latents = codec->encode(pixels);
    data::StoreLayout layout;
    layout.frames = kLatentFrames;
    layout.channels = latents.size(2);
    layout.height = latents.size(3);
    layout.width = latents.size(4);
    layout.text_tokens = 6;
    layout.text_dim = 32;
    layout.pixel_height = layout.pixel_width = 64;
    layout.codec = codec->name();
    layout.provenance = "{}";
    data::LatentStoreWriter writer(folder / "store.h5", layout, kClips, comm::self_communicator());
    for (int64_t i = 0; i < kClips; ++i) {
      writer.write(i, clip(i));
    }
    writer.close();
    store = std::make_shared<data::LatentStore>(folder / "store.h5");
  }
  ~Fixture() { std::filesystem::remove_all(folder); }

  data::Clip clip(int64_t index) const {
    data::Clip out;
    out.sample_id = "bench-" + std::to_string(1000 + index);
    out.latents = latents[0];
    const auto cameras =
        camera::make_cameras(path_of(index), camera::kDefaultFx, camera::kDefaultFx);
    out.world_to_camera = cameras.world_to_camera[0];
    out.intrinsics = cameras.intrinsics[0][0];
    out.text = at::zeros({6, 32});
    return out;
  }

  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("minwm-data-bench-" + std::to_string(::getpid()));
  std::shared_ptr<models::AnalyticCodec> codec, block;  ///< block decodes every block alone
  at::Tensor pixels, latents;
  std::shared_ptr<data::LatentStore> store;
};

Fixture& fixture() {
  static Fixture made;
  return made;
}

void count(benchmark::State& state, const char* name, double each) {
  state.counters[name] = benchmark::Counter(each, benchmark::Counter::kIsIterationInvariantRate);
}

void codec_encode(benchmark::State& state) {
  auto& f = fixture();
  for (auto _ : state) {
    benchmark::DoNotOptimize(f.codec->encode(f.pixels));
  }
  count(state, "frames/s", static_cast<double>(f.pixels.size(1)));
}

void decode_with(models::AnalyticCodec& codec, benchmark::State& state) {
  auto& f = fixture();
  for (auto _ : state) {
    benchmark::DoNotOptimize(codec.decode(f.latents));
  }
  count(state, "frames/s", static_cast<double>(f.pixels.size(1)));
}

void codec_decode(benchmark::State& state) {
  decode_with(*fixture().codec, state);
}

void codec_decode_block(benchmark::State& state) {
  decode_with(*fixture().block, state);
}

/// Random reads with their checksum, without the loader.
void store_read(benchmark::State& state) {
  auto& f = fixture();
  int64_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(f.store->read(i++ * 7 % kClips).latents);
  }
  count(state, "clips/s", 1);
}

/// Batches as the training loop gets them, prefetch thread included.
void loader_batch(benchmark::State& state) {
  auto& f = fixture();
  data::Loader loader({f.store}, 1, kBatch, kBatch, 0, 1, 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(loader.next().latents);
  }
  count(state, "clips/s", static_cast<double>(kBatch));
}

BENCHMARK(render_clip)
    ->Args({64, 64})
    ->Args({832, 480})
    ->ArgNames({"width", "height"})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(codec_encode)->Unit(benchmark::kMillisecond);
BENCHMARK(codec_decode_block)->Unit(benchmark::kMillisecond);
BENCHMARK(codec_decode)->Unit(benchmark::kMillisecond);
BENCHMARK(store_read)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(loader_batch)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
