#include "stream_measures.h"

#include <algorithm>
#include <chrono>

#include "minwm/core/error.h"
#include "minwm/core/progress.h"
#include "minwm/data/video.h"
#include "walks.h"

namespace minwm::apps {
namespace {

constexpr size_t kRepeats = 5;   // the median of these,
constexpr double kPatience = 2;  // or of as many as fit into so many seconds

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <class Body>
double median_seconds(const Body& body) {
  std::vector<double> all;
  const auto begun = std::chrono::steady_clock::now();
  do {
    const auto start = std::chrono::steady_clock::now();
    body();
    all.push_back(seconds_since(start));
  } while (all.size() < kRepeats && seconds_since(begun) < kPatience);
  return median(all);
}

/// A world's caption and first latent, encoded.
struct Start {
  at::Tensor text, first_latent;  // [1, L, D], [1, 1, C, h, w]
};

Start start_of(const stream::LoadedModel& loaded, const data::World& world,
               const data::WorldStyle& style) {
  const at::Tensor frame = data::render(world, at::eye(4, at::kDouble).unsqueeze(0)).pixels;
  return {world_text(*loaded.model, world, loaded.info.model),
          loaded.codec->encode(data::to_pixels(frame, style.height, style.width).unsqueeze(0))};
}

/// Decoded pixels, on the CPU: only then is a device done.
at::Tensor whole_clip(const stream::LoadedModel& loaded, const Start& start,
                      const at::Tensor& poses) {
  stream::GenerateRequest request;
  request.mode = stream::Mode::kBidirectional;
  request.conditions.text = start.text;
  request.given_latents = start.first_latent;
  request.camera_to_world = poses;
  request.height = loaded.info.latent_height;
  request.width = loaded.info.latent_width;
  request.stream = loaded.stream;
  return loaded.codec->decode(stream::generate_latents(loaded.model, request).to(at::kCPU));
}

void measure_bidirectional(const stream::LoadedModel& loaded, const Start& start,
                           const eval::Commanded& clip, eval::Latency& latency) {
  auto brief = loaded;  // two levels warm up as well as fifty
  brief.stream.sigmas.resize(std::min<size_t>(2, brief.stream.sigmas.size()));
  latency.first_frames = whole_clip(brief, start, clip.camera_to_world).size(1);
  latency.first_frame_seconds =
      median_seconds([&] { whole_clip(loaded, start, clip.camera_to_world); });
  latency.chunk_seconds = latency.first_frame_seconds;
  latency.frames_per_second =
      static_cast<double>(latency.first_frames) / latency.first_frame_seconds;
}

void measure_streaming(const stream::LoadedModel& loaded, const Start& start,
                       const eval::Commanded& clip, eval::Latency& latency) {
  const auto& options = loaded.stream;
  const int64_t chunk = options.chunk_frames;
  stream::WorldStream stream(loaded.model, loaded.codec, options);
  const auto next = [&] {  // the path does not matter: it is walked round and round
    const at::Tensor steps =
        at::arange(stream.frames(), stream.frames() + chunk).remainder(clip.frames());
    return stream.next(clip.camera_to_world.index_select(0, steps)).pixels.to(at::kCPU);
  };
  const auto first = [&] {
    stream.begin(start.text, start.first_latent, loaded.info.latent_height,
                 loaded.info.latent_width);
    return next();
  };
  latency.first_frames = first().size(1);
  latency.first_frame_seconds = median_seconds(first);
  // From here on every chunk costs the same.
  const int64_t full = options.memory ? options.memory->frames + 1 : options.window_frames;
  while (stream.frames() < full) {
    next();
  }
  latency.chunk_seconds = median_seconds(next);
  latency.frames_per_second = 4 * static_cast<double>(chunk) / latency.chunk_seconds;
}

}  // namespace

int64_t token_pixels(const models::Backbone& model, const models::Codec& codec) {
  return codec.spatial_factor() * model.patch()[1];
}

eval::Latency measure_latency(const stream::LoadedModel& loaded, const eval::Commanded& clip,
                              const c10::Device& device) {
  at::NoGradGuard no_grad;
  const auto& options = loaded.stream;
  eval::Latency latency;
  latency.steps = static_cast<int64_t>(
      (options.first_chunk_sigmas.empty() ? options.sigmas : options.first_chunk_sigmas).size());
  latency.threads = at::get_num_threads();
  latency.device = device.str();
  const Start start = start_of(loaded, *clip.world, clip.style);
  if (loaded.mode == stream::Mode::kStream) {
    measure_streaming(loaded, start, clip, latency);
  } else {
    measure_bidirectional(loaded, start, clip, latency);
  }
  return latency;
}

eval::Drift stream_long(const stream::LoadedModel& loaded, const data::WorldStyle& style,
                        const LongStreamOptions& options) {
  const int64_t chunk = loaded.stream.chunk_frames, trained = loaded.info.latent_frames;
  require(loaded.mode == stream::Mode::kStream,
          "--long {}: a '{}' model denoises whole clips and cannot stream", options.latents,
          loaded.info.stage);
  require(options.latents > 2 * chunk && options.worlds >= 1,
          "--long {}: expected more than two chunks of {} latents, and 1 or more worlds",
          options.latents, chunk);
  std::vector<eval::Commanded> clips;
  std::vector<at::Tensor> texts, firsts, poses;
  for (int64_t i = 0; i < options.worlds; ++i) {
    clips.push_back(eval::there_and_back(static_cast<uint64_t>(options.first_seed + i), style,
                                         options.latents, std::max<int64_t>(trained, 2)));
    const Start start = start_of(loaded, *clips.back().world, style);
    texts.push_back(start.text);
    firsts.push_back(start.first_latent);
    poses.push_back(clips.back().camera_to_world);
  }
  eval::Drift drift;
  drift.latents = options.latents;
  drift.trained_latents = trained;
  drift.chunk_frames = chunk;
  drift.worlds = options.worlds;

  stream::WorldStream stream(loaded.model, loaded.codec, loaded.stream);
  const at::Tensor path = at::stack(poses);
  std::vector<at::Tensor> shown;  // uint8 [B, n, H, W, 3] per chunk, latent-time frames
  Progress progress("long stream", options.latents, "latents");
  const auto begun = std::chrono::steady_clock::now();
  stream.begin(at::cat(texts), at::cat(firsts), loaded.info.latent_height,
               loaded.info.latent_width);
  while (stream.frames() < options.latents) {
    const int64_t first = stream.frames(), n = std::min(chunk, options.latents - first);
    const at::Tensor pixels = stream.next(path.narrow(1, first, n)).pixels.to(at::kCPU);
    drift.not_finite += at::isfinite(pixels).logical_not().sum().item<int64_t>();
    // The frame of a latent is the last of its four; the very first latent is a single frame.
    const at::Tensor frames = pixels.slice(1, first == 0 ? 0 : 3, pixels.size(1), 4);
    shown.push_back(at::stack(to_videos(frames)));
    progress.update(stream.frames());
  }
  drift.seconds = seconds_since(begun);
  progress.finish();

  const at::Tensor generated = at::cat(shown, 1);
  const int64_t tokens = token_pixels(*loaded.model, *loaded.codec);
  std::vector<std::vector<eval::ChunkLook>> model(clips.size()), truth(clips.size());
  eval::for_each_clip(clips.size(), options.threads, [&](size_t i) {
    const at::Tensor exact = eval::render_truth(clips[i]);
    const at::Tensor pixels = data::to_pixels(exact, style.height, style.width).unsqueeze(0);
    const at::Tensor through =
        to_videos(loaded.codec->decode(loaded.codec->encode(pixels))).front();
    const at::Tensor frames = eval::latent_time_frames(exact);
    truth[i] = eval::chunk_looks(eval::latent_time_frames(through), frames, chunk, tokens);
    model[i] =
        eval::chunk_looks(generated[static_cast<int64_t>(i)].contiguous(), frames, chunk, tokens);
  });
  for (size_t i = 0; i < clips.size(); ++i) {
    eval::add_looks(drift.model, model[i], options.worlds);
    eval::add_looks(drift.truth, truth[i], options.worlds);
  }
  return drift;
}

}  // namespace minwm::apps
