#pragma once
// The flow-matching loss that bidirectional and teacher-forcing training share (spec stages 5, 6;
// golden kinds stages.{wan,hy}.{bidir,ar_tf}.step).

#include <string>

#include "minwm/stages/levels.h"
#include "minwm/stages/stage.h"

namespace minwm::stages {

/// Options of both stages; each declares them in its own section. Of the levels: sigma = shift(u;
/// s).
struct FlowOptions : LevelOptions {
  std::string density = "uniform";  ///< uniform, logit_normal, mode
  std::string weighting = "none";   ///< none, or wan_bell: the reference's training weights
  /// What is compared: flow (v with e - x0), or clean (x_sigma - sigma v with x0).
  std::string compare = "flow";
  double text_dropout = 0;      ///< probability that a clip's text is replaced by `negative`
  models::Conditions negative;  ///< undefined text is zeros; no option, given by the program
  double clean_first =
      0;  ///< probability that a clip's first latent is given: clean, t = 0, not in the loss
  int64_t last_frames = 0;  ///< only the last so many frames count in the loss; 0 = all
  double clean_noise =
      0;  ///< teacher forcing: largest sigma the clean half is noised with; 0 = off
  int64_t chunk_frames = 4;  ///< teacher forcing: frames that see each other
  bool per_chunk = true;     ///< teacher forcing: a noise level per chunk, or (HY) one per clip
  /// Adds the options to `section`; those of teacher forcing only if `causal`.
  void declare(Options& options, const std::string& section, bool causal);
};

/// Everything random of a step, drawn beforehand (reference cases provide it).
struct FlowDraws {
  at::Tensor noise;        ///< like the latents
  at::Tensor sigma;        ///< [B, T], 0 where a frame is given
  at::Tensor clean_sigma;  ///< [B, T] or undefined: noise level of the clean half
  at::Tensor text_kept;    ///< [B, 1, 1] of 0 and 1, or undefined
  /// HY's reference: elements that count, broadcasts to the latents. The loss is then one mean over
  /// those of the whole batch.
  at::Tensor mask;
};

/// What the network got and gave, and what became of it.
struct FlowTerms {
  at::Tensor noisy;                  ///< [B, T, C, h, w], in the latents' type
  at::Tensor timestep, sigma;        ///< [B, T], after the rounding that the options ask for
  at::Tensor clean, clean_timestep;  ///< teacher forcing: the clean half, [B, T] or undefined (0)
  at::Tensor flow;                   ///< [B, T, C, h, w]
  at::Tensor weight;                 ///< [B, T], or undefined (1)
  at::Tensor loss;                   ///< scalar, float32
};

/// Mean over samples of each sample's mean, over its noised frames, of w (v - (e - x0))^2; float32.
/// causal = teacher forcing on the clean latents. Latents and noise of type bfloat16 are noised in
/// bfloat16, as in HY's reference.
FlowTerms flow_loss(models::Backbone& model, const data::Batch& batch, const FlowDraws& draws,
                    const FlowOptions& options, bool causal);

/// The draws of a step: one noise level per clip, or one per chunk when causal.
FlowDraws draw_flow(const data::Batch& batch, const StepAddress& address,
                    const FlowOptions& options, bool causal);

}  // namespace minwm::stages
