#pragma once
// What a step runs: the calls of its networks, in frames.

#include <string>
#include <vector>

#include "minwm/parallel/planning.h"

namespace minwm::parallel {

/// Calls of one network that are alike, per micro-batch, averaged over iterations.
struct Pass {
  double count = 1;   ///< passes per iteration
  int64_t calls = 1;  ///< model calls that a pass consists of: each gathers every block
  bool backward = false;
  double query_frames = 0;  ///< over all calls
  double key_frames = 0;    ///< over all calls
  double pairs = 0;         ///< query frames times the frames they see, over all calls
  /// Times that the root is gathered: what is recorded keeps it until its backward is over.
  double root_gathers = 1;
  bool text_sees_image = false;  ///< joint text: text queries see all tokens (else text alone)
};

/// A float32 average of a trained network: none, kept aside, or a network that the stage runs.
enum class Average { kNone, kKept, kRuns };

/// How a network takes part in a stage.
struct NetworkUse {
  std::string name;
  bool trained = false;
  Average average = Average::kNone;
  double updates = 0;  ///< optimizer steps per iteration
  std::vector<Pass> passes;
};

constexpr const char* kOffloadNeedsShards =
    "parallel.offload needs parallel.shard x parallel.context > 1";

/// The networks of a stage, each once. @throws Error on an unknown stage.
std::vector<NetworkUse> networks_of(const StepShape& step);

/// Micro-batches of one data rank in a step.
int64_t accumulation_of(const StepShape& step, const MeshShape& mesh);

/// Tokens of one rank in `frames` frames (rows of every frame are split over context ranks).
int64_t rank_tokens(const StepShape& step, const MeshShape& mesh, int64_t frames);

}  // namespace minwm::parallel
