#pragma once
// Probes of a training run: what the model generates on fixed worlds and paths, every so many
// steps, as pictures and videos that can be laid side by side.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "minwm/models/backbone.h"
#include "minwm/train/checkpoint.h"

namespace minwm {
class Options;
}

namespace minwm::apps {

struct ProbeOptions {
  int64_t worlds = 2;                                ///< held-out: seeds 900000, 900001, …
  std::vector<std::string> paths = {"w", "d", "l"};  ///< as parse_walks takes them
  std::string style = "detail";
  void declare(Options& options);  ///< section "probe"
};

/// Prepares worlds, paths and the exact videos now; every call then writes
/// `output`/probes/step-NNNNNN.png (a contact sheet; the first row of a world is the truth through
/// the codec along the first path) and .mp4. The model's weights are used as they are and its
/// train or eval state is restored; no gradients, and noise is addressed, so training goes on bit
/// for bit as without probes. Ranks that share the weights all call it, those without `writes`
/// write nothing. Sampled as `info` records: few-step models by their list and solver,
/// others in 16 Euler steps; bidirectional ones denoise whole clips, causal ones stream.
/// @throws Error naming the option, codec or model that does not fit; on writing, the file.
std::function<void(int64_t step)> make_probe(const ProbeOptions& options,
                                             std::shared_ptr<models::Backbone> model,
                                             const std::filesystem::path& codec,
                                             const train::CheckpointInfo& info,
                                             const std::filesystem::path& output,
                                             bool writes = true);

}  // namespace minwm::apps
