#include "convert_settings.h"

#include <algorithm>

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/train/weights_step.h"

namespace minwm::apps {
namespace {

const std::vector<std::string> kStages = {"bidirectional", "teacher-forcing", "ode", "consistency",
                                          "dmd"};

// 480 x 832 and 77 frames, for codecs of 8 and of 16 pixels per latent.
constexpr int64_t kFrames = 20, kChunk = 4;
constexpr int64_t kWanHeight = 60, kWanWidth = 104, kHyHeight = 30, kHyWidth = 52;
// Of all published camera data, normalised by width and height.
constexpr double kFx = 0.5050505, kFy = 0.89786756;

bool is_published_size(const std::string& preset) {
  return preset.starts_with("wan-1.3b") || preset.starts_with("wan-14b") ||
         preset.starts_with("hy-8b");
}

}  // namespace

train::CheckpointInfo published_settings(const std::string& preset, const std::string& stage) {
  require(std::find(kStages.begin(), kStages.end(), stage) != kStages.end(),
          "--stage {}: expected {}", stage, fmt::join(kStages, ", "));
  const bool hy = preset.starts_with("hy");
  train::CheckpointInfo info;
  info.model = preset;
  info.stage = stage;
  info.shift = 5;
  info.chunk_frames = stage == "bidirectional" ? 0 : kChunk;
  if (stage == "bidirectional" || stage == "teacher-forcing") {
    info.sampler = hy ? "euler" : "unipc";
  } else {
    info.sampler = stage == "dmd" || !hy ? "renoise" : "euler";
    info.step_list = {1000, 750, 500, 250};
  }
  const auto switches = models::published_switches(preset, stage);
  info.camera_cache = switches.rope_only_history ? "rope_only" : "dual";
  info.context_action = switches.context_action;
  info.fx = kFx;
  info.fy = kFy;
  if (is_published_size(preset)) {
    info.latent_frames = kFrames;
    info.latent_height = hy ? kHyHeight : kWanHeight;
    info.latent_width = hy ? kHyWidth : kWanWidth;
    info.window_frames = stage == "bidirectional" ? 0 : kFrames;
  }
  return info;
}

train::CheckpointInfo settings_of(const models::Upstream& upstream, const std::string& stage) {
  const std::string where = upstream.file.string();
  if (const auto note = upstream.metadata.find(kCheckpointNote); note != upstream.metadata.end()) {
    const auto info = train::checkpoint_of_note(note->second, where);
    require(info.model == upstream.preset, "{}: was exported as '{}', --model {} was asked for",
            where, info.model, upstream.preset);
    require(stage.empty() || stage == info.stage,
            "{}: was exported from stage '{}', not --stage {}", where, info.stage, stage);
    return info;
  }
  const std::string known = stage.empty() ? upstream.stage : stage;
  require(!known.empty(),
          "{}: neither the file nor its folder's name says which stage made it: give --stage ({})",
          where, fmt::join(kStages, ", "));
  auto info = published_settings(upstream.preset, known);
  info.step = upstream.step;
  return info;
}

}  // namespace minwm::apps
