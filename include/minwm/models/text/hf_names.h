#pragma once
// T5 encoders under the names of the Hugging Face library (google/umt5-xxl, google/byt5-small) and
// under Wan's (spec encoders 1.2).

#include <string>

#include "minwm/models/state.h"

namespace minwm::models {

/// The Hugging Face name of a parameter, without the leading "encoder.":
/// "blocks.0.norm1.weight" → "block.0.layer.0.layer_norm.weight". A bias table that all blocks
/// share ("pos_embedding.embedding.weight") stands in block 0 there.
/// Names that are in no T5 encoder stay as they are.
std::string t5_hf_name(const std::string& wan_name);

/// True if the source's names are those of that library.
bool has_t5_hf_names(const ParameterSource& source);

/// The encoder of such a source under Wan's names. The decoder, lm_head and the second copy of the
/// embedding are left out; of a bias table in block 0 alone the one for all blocks is made.
/// @throws Error if two names are one.
ParameterSource from_t5_hf(const ParameterSource& source);

}  // namespace minwm::models
