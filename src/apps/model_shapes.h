#pragma once
// Descriptions of models for `minwm plan`, counted from models without memory.

#include <string>

#include "minwm/models/backbone.h"
#include "minwm/parallel/planning.h"

namespace minwm::apps {

/// What the planner has to know of a model, hollow or not. `name` is what it is to be called.
parallel::ModelShape shape_of(const std::string& name, models::Backbone& model);

/// The same of a preset, or of "PRESET@BLOCKS". @throws Error naming the nearest known one.
parallel::ModelShape model_shape(const std::string& name);

}  // namespace minwm::apps
