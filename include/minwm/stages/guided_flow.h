#pragma once

#include "minwm/models/backbone.h"

namespace minwm::stages {

struct GuidedFlow {
  at::Tensor flow;                        ///< [B, T, C, h, w]
  at::Tensor conditional, unconditional;  ///< what it was made of; undefined if not computed
};

/// Both, one after the other on the batch axis. What `a` does not have is left out.
models::Conditions joined(const models::Conditions& a, const models::Conditions& b);

/// u + scale (c - u), both halves in one forward of twice the batch. Scale 1 is the conditional
/// pass alone, scale 0 the unconditional one. `negative` holds the text of the unconditional half;
/// undefined text is zeros. Teacher-forcing input is passed to both halves.
GuidedFlow guided_flow(models::Backbone& model, const models::ForwardInput& input,
                       const models::Conditions& negative, double scale);

}  // namespace minwm::stages
