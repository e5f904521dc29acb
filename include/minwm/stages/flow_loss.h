#pragma once
// The flow-matching loss that bidirectional and teacher-forcing training share.

#include <string>

#include "minwm/stages/stage.h"

namespace minwm::stages {

/// Options of both stages; each declares them in its own section.
struct FlowOptions {
  double shift = 5;                 ///< sigma = shift(u; s)
  std::string density = "uniform";  ///< uniform, logit_normal, mode
  std::string weighting = "none";   ///< none, or wan_bell: the reference's training weights
  double text_dropout = 0;          ///< probability that a clip's text is all zeros
  double clean_first =
      0;  ///< probability that a clip's first latent is given: clean, t = 0, not in the loss
  double clean_noise =
      0;  ///< teacher forcing: largest sigma the clean half is noised with; 0 = off
  int64_t chunk_frames =
      4;  ///< teacher forcing: frames that share a noise level and see each other
  /// Adds the options to `section`; those of teacher forcing only if `causal`.
  void declare(Options& options, const std::string& section, bool causal);
};

/// Everything random of a step, drawn beforehand (reference cases provide it).
struct FlowDraws {
  at::Tensor noise;        ///< like the latents
  at::Tensor sigma;        ///< [B, T], 0 where a frame is given
  at::Tensor clean_sigma;  ///< [B, T] or undefined: noise level of the clean half
  at::Tensor text_kept;    ///< [B, 1, 1] of 0 and 1, or undefined
};

struct FlowTerms {
  at::Tensor noisy, timestep, flow, loss;
};

/// Mean over samples of each sample's mean, over its noised frames, of w (v - (e - x0))^2; float32.
/// causal = teacher forcing on the clean latents.
FlowTerms flow_loss(models::Backbone& model, const data::Batch& batch, const FlowDraws& draws,
                    const FlowOptions& options, bool causal);

/// The draws of a step: one noise level per clip, or one per chunk when causal.
FlowDraws draw_flow(const data::Batch& batch, const StepAddress& address,
                    const FlowOptions& options, bool causal);

}  // namespace minwm::stages
