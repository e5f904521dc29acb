#pragma once
// Transformers published by others, under our (= the published) names and shapes.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "minwm/models/backbone.h"
#include "minwm/models/state.h"

namespace minwm::models {

/// What was found.
struct Upstream {
  ParameterSource source;      ///< exactly the preset's parameters; keeps the file open
  std::filesystem::path file;  ///< what was opened
  std::string layout, state;   ///< as WeightsFile has them
  bool diffusers = false;      ///< it has the names of the diffusers library
  std::string preset;          ///< "wan-1.3b", "hy-8b@2", …
  /// Camera projections of the preset that the file lacks, as base models do: they are zero, with
  /// which a camera model equals its base model.
  std::vector<std::string> zero;
  std::string stage;  ///< of `minwm train`, by the folder's published name; "" if that says nothing
  int64_t step = 0;   ///< of "checkpoint-123" or "checkpoint_model_000123" in the path
  std::map<std::string, std::string> metadata;  ///< of a safetensors file
};

/// Opens a Wan or HY transformer at `path` (what open_weights takes): Wan folders and minWM's
/// model.pt, HY folders with transformer/, WorldPlay's, and diffusers' names for both.
///
/// `preset` = "" finds the one whose names and shapes fit, cut to the file's number of blocks. A
/// config.json beside the file is compared with it.
/// @throws Error naming the file and the first difference: a parameter that is missing, unknown or
/// of another shape; names of neither family; a config.json that says otherwise; no preset fits.
Upstream open_upstream(const std::filesystem::path& path, const std::string& state = "",
                       const std::string& preset = "");

/// "bidirectional", "teacher-forcing", "ode", "consistency" or "dmd" if a folder of the path has
/// the name under which minWM, WorldPlay or a base model's owner publishes that stage; else "".
std::string published_stage(const std::filesystem::path& path);

/// How the published models of a preset and stage stream (spec hy-mmdit 11): rope_only_history for
/// HY cameras trained by "dmd", context_action where actions are read.
StreamSwitches published_switches(const std::string& preset, const std::string& stage);

}  // namespace minwm::models
