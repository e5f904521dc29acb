#pragma once
// The camera gap on held-out clips, split over ranks: what a training run writes beside its loss.

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "minwm/comm/mesh.h"
#include "minwm/models/backbone.h"
#include "minwm/stages/camera_gap.h"

namespace minwm::train {

struct GapEvaluationOptions {
  std::string store, codec;
  int64_t clips = 24;  ///< at most; spread evenly over the store
  stages::GapOptions gap;
};

/// Reads this rank's clips now. The result is collective over `world`: camera_gap, gap_right,
/// gap_wrong, gap_copy in dB; of a model that reads no cameras gap_right and gap_copy alone.
/// @throws Error if the store's clips do not fit the model, or all follow the same trajectory.
std::function<std::map<std::string, double>()> make_gap_evaluation(
    const GapEvaluationOptions& options, std::shared_ptr<models::Backbone> model,
    const comm::Mesh& mesh);

}  // namespace minwm::train
