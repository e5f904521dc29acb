#pragma once
// HunyuanVideo15Transformer3DModel of the diffusers library: the same weights under other names,
// two of them cut and ordered otherwise (spec hy-mmdit 16).

#include "minwm/models/state.h"

namespace minwm::models {

/// True if the source's names are those of that class.
bool has_diffusers_names(const ParameterSource& source);

/// The source under the published names of the line: q, k and v of a refiner block as the rows of
/// one matrix, the final modulation as shift, scale. Names that are not in the map stay as they
/// are. @throws Error if a part of a joined parameter is absent or of another shape than the rest.
ParameterSource from_diffusers(const ParameterSource& source);

}  // namespace minwm::models
