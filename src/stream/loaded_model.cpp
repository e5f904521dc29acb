#include "minwm/stream/loaded_model.h"

#include "minwm/core/error.h"

namespace minwm::stream {

StreamOptions stream_options(const train::CheckpointInfo& info, const SamplerOverrides& overrides,
                             const std::string& where) {
  const SamplerChoice choice = choose_sampler(info, overrides, where);
  StreamOptions stream;
  stream.solver = choice.solver;
  stream.sigmas = choice.sigmas;
  stream.first_chunk_sigmas = choice.first_chunk_sigmas;
  stream.guidance_scale = overrides.guidance == 0 ? info.guidance : overrides.guidance;
  stream.context_timestep = info.context_noise;
  stream.chunk_frames = info.chunk_frames > 0 ? info.chunk_frames : 4;
  // As long as the clips it learned from, unless its rollouts had a window of their own.
  stream.window_frames = std::max(info.window_frames > 0 ? info.window_frames : info.latent_frames,
                                  stream.chunk_frames);
  stream.sink_frames = info.sink_frames;
  require(overrides.memory == "none" || overrides.memory == "worldplay",
          "--memory {}: expected none or worldplay", overrides.memory);
  if (overrides.memory == "worldplay") {
    require(
        info.stage != "bidirectional",
        "{}: --memory worldplay does not fit: a 'bidirectional' checkpoint denoises all frames at "
        "once and has no past to look back at: drop --memory",
        where);
    stream.memory.emplace();
  }
  stream.fx = info.fx;
  stream.fy = info.fy;
  return stream;
}

models::StreamSwitches stream_switches(const train::CheckpointInfo& info,
                                       const SamplerOverrides& overrides,
                                       const std::string& where) {
  const std::string& asked = overrides.camera_cache;
  require(asked.empty() || asked == "dual" || asked == "rope_only",
          "--camera_cache {}: expected dual or rope_only", asked);
  require(
      asked.empty() || info.stage != "bidirectional",
      "{}: --camera_cache {} does not fit: a 'bidirectional' checkpoint does not stream and has "
      "no cache: drop --camera_cache",
      where, asked);
  return {(asked.empty() ? info.camera_cache : asked) == "rope_only", info.context_action};
}

LoadedModel open_model(const std::filesystem::path& path, const SamplerOverrides& overrides,
                       const c10::Device& device) {
  train::Checkpoint checkpoint(path);
  LoadedModel loaded;
  loaded.info = checkpoint.info();
  const auto& info = loaded.info;
  const bool bidirectional = info.stage == "bidirectional";
  loaded.mode = bidirectional ? Mode::kBidirectional : Mode::kStream;
  if (!overrides.mode.empty()) {
    require(overrides.mode == "stream" || overrides.mode == "bidirectional",
            "--mode {}: expected stream or bidirectional", overrides.mode);
    require(bidirectional == (overrides.mode == "bidirectional"),
            "{}: a checkpoint of stage '{}' cannot run with --mode {}: use --mode {}",
            checkpoint.path().string(), info.stage, overrides.mode,
            bidirectional ? "bidirectional" : "stream");
  }
  loaded.stream = stream_options(info, overrides, checkpoint.path().string());
  const auto switches = stream_switches(info, overrides, checkpoint.path().string());
  loaded.model = models::make_backbone(info.model, info.seed);
  require(overrides.camera_cache.empty() || loaded.model->reads_cameras(),
          "{}: --camera_cache {} does not fit: {} reads no cameras: drop --camera_cache",
          checkpoint.path().string(), overrides.camera_cache, info.model);
  try {
    loaded.model->set_stream_switches(switches);
  } catch (const Error& error) {
    fail("{}: {}: {}", checkpoint.path().string(), info.model, error.what());
  }
  checkpoint.load_model(*loaded.model);
  loaded.model->to(device);
  loaded.model->eval();
  require(!info.codec.empty(), "{}: the checkpoint names no codec; train with --data.codec",
          checkpoint.path().string());
  loaded.codec = models::open_codec(checkpoint.path() / info.codec);

  return loaded;
}

}  // namespace minwm::stream
