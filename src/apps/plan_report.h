#pragma once
// What `minwm plan` prints.

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "minwm/parallel/planning.h"

namespace minwm::apps {

struct PlannedStep {
  parallel::StepShape step;
  int64_t ranks;
  std::optional<parallel::MeshShape> mesh;  ///< none fits
};

/// Every figure under its name in planning.h: bytes, seconds, FLOP; where no mesh fits, what would
/// help.
nlohmann::ordered_json to_json(const PlannedStep& plan);
/// One plan in full; its mesh is set.
std::string plan_text(const PlannedStep& plan);
/// One line for each plan.
std::string table_text(const std::vector<PlannedStep>& plans);

}  // namespace minwm::apps
