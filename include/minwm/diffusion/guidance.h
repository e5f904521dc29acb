#pragma once
// Classifier-free guidance, in the two conventions of the published recipes (spec stages 4).

#include <ATen/core/Tensor.h>

namespace minwm::diffusion {

/// u + scale (c - u): scale 1 = conditional, 0 = unconditional. Sampling, teachers, HY's scores.
at::Tensor guide(const at::Tensor& conditional, const at::Tensor& unconditional, double scale);

/// c + scale (c - u) = the above with scale + 1: 0 = conditional. Wan's real score ("guidance 3" of
/// its configs is 4 of the other convention).
at::Tensor guide_beyond(const at::Tensor& conditional, const at::Tensor& unconditional,
                        double scale);

}  // namespace minwm::diffusion
