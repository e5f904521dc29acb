#pragma once
// Which key does the picture motion look like? Optical flow between latent frames against the flow
// each key would cause. Needs no world and no depth. Spec data-camera-eval 14.4 with the rules of
// tiny-world 10.

#include <array>
#include <vector>

#include "minwm/eval/commanded.h"

namespace minwm::eval {

/// Steps per commanded key (order of kKeys) and how many of them were recognised.
struct ActionCount {
  std::array<int, 9> steps{}, hits{};
  void add(const ActionCount& other);
  int total_steps() const;
  int total_hits() const;
  /// total_hits / total_steps; NaN without steps.
  double accuracy() const;
};

struct ActionScore {
  ActionCount one;    ///< between consecutive latent frames
  ActionCount three;  ///< "acc3": over three latent frames with the same key; larger motion, less
                      ///< harsh at 64 pixels
};

/// @param frames  uint8 [T, H, W, 3], one per latent frame; the judged ones and the last given one
/// are used.
ActionScore classify_actions(const Commanded& clip, const at::Tensor& frames);

}  // namespace minwm::eval
