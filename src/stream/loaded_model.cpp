#include "minwm/stream/loaded_model.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/diffusion/flow_match.h"

namespace minwm::stream {
namespace {

constexpr int64_t kManySteps = 50;  // what the published many-step models are sampled with

std::vector<double> level_list(const train::CheckpointInfo& info, int64_t steps) {
  const auto& list = info.step_list;
  if (!list.empty() && (steps == 0 || steps == static_cast<int64_t>(list.size()))) {
    return diffusion::few_step_sigmas(list, info.shift);
  }
  auto sigmas = diffusion::sampling_sigmas(steps == 0 ? kManySteps : steps, info.shift);
  sigmas.pop_back();  // the final 0 is implied
  return sigmas;
}

}  // namespace

void SamplerOverrides::declare(Options& options) {
  options.add("sampler.steps", &steps, "denoising steps; 0 = as the checkpoint records");
  options.add("sampler.solver", &solver, "renoise or euler; empty = as the checkpoint records");
  options.add("sampler.guidance", &guidance, "classifier-free guidance scale; 1 = off");
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
  loaded.model = models::make_backbone(info.model, info.seed);
  checkpoint.load_model(*loaded.model);
  loaded.model->to(device);
  loaded.model->eval();
  require(!info.codec.empty(), "{}: the checkpoint names no codec; train with --data.codec",
          checkpoint.path().string());
  loaded.codec = models::open_codec(checkpoint.path() / info.codec);

  auto& stream = loaded.stream;
  stream.sigmas = level_list(info, overrides.steps);
  const std::string recorded = info.sampler.empty() ? "euler" : info.sampler;
  // Renoising is for the recorded few-step list; any other number of steps follows the flow.
  const bool few = !info.step_list.empty() && stream.sigmas.size() == info.step_list.size();
  stream.solver =
      parse_solver(!overrides.solver.empty() ? overrides.solver : (few ? recorded : "euler"));
  stream.guidance_scale = overrides.guidance;
  stream.chunk_frames = info.chunk_frames > 0 ? info.chunk_frames : 4;
  stream.window_frames = std::max(info.latent_frames, stream.chunk_frames);
  stream.fx = info.fx;
  stream.fy = info.fy;
  return loaded;
}

}  // namespace minwm::stream
