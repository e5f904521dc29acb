#pragma once
// Descriptions of the models that `minwm plan` knows, also of those too large to build here.

#include <string>
#include <vector>

#include "minwm/models/wan/config.h"
#include "minwm/parallel/planning.h"

namespace minwm::apps {

/// A Wan model as its configuration says.
parallel::ModelShape wan_shape(const std::string& name, const models::WanConfig& config);

/// The HunyuanVideo-1.5 MMDiT with 54 blocks (spec hy-mmdit 1, 3). `action`: with the discrete
/// action embedding.
parallel::ModelShape hy_8b_shape(bool camera, bool action);

/// hy-8b (with cameras) or a Wan preset. @throws Error naming the nearest known model.
parallel::ModelShape model_shape(const std::string& name);
std::vector<std::string> model_shapes();

}  // namespace minwm::apps
