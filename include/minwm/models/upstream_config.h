#pragma once
// config.json of the published transformers, beside whose weights it lies.

#include <filesystem>
#include <string>

#include "minwm/models/backbone.h"

namespace minwm::models {

/// The config.json from which upstream builds such a network: WanModel (spec wan-dit 1) or
/// HunyuanTransformer3DAR…Model (spec hy-mmdit 1). The model may be hollow.
std::string upstream_config(const Backbone& model);

/// Compares a config.json with a model, which may be hollow: what shapes of tensors do not show,
/// such as the number of heads. Keys that only one of them has are fine.
/// @throws Error naming the file, the key and both values; if it is no JSON object.
void require_config(const std::filesystem::path& file, const Backbone& model,
                    const std::string& preset);

}  // namespace minwm::models
