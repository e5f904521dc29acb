#pragma once
// WanTransformer3DModel of the diffusers library: the same weights under other names (spec wan-dit
// 10).

#include "minwm/models/state.h"

namespace minwm::models {

/// True if the source's names are those of that class.
bool has_wan_diffusers_names(const ParameterSource& source);

/// The source under the published names. Names that are not in the map stay as they are.
/// @throws Error if two names are one.
ParameterSource from_wan_diffusers(const ParameterSource& source);

}  // namespace minwm::models
