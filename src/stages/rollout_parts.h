#pragma once
// What the plain and the rolling rollout share.

#include "minwm/stages/self_rollout.h"

namespace minwm::stages {

/// `latents` with the given first latent, if there is one, in place of frame 0.
at::Tensor with_given(const at::Tensor& latents, const at::Tensor& given);

/// [B, n] timesteps at one level; 0 for frame 0 if `given`.
at::Tensor level_timesteps(const at::Tensor& latents, double level, bool given);

/// Sigma of timesteps by the options' rule.
at::Tensor rollout_sigma(const at::Tensor& timestep, const RolloutOptions& options);

/// A cache for a rollout of `frames` frames like `latents`, no larger than the window.
std::unique_ptr<models::KvCache> rollout_cache(models::Backbone& model, const at::Tensor& latents,
                                               int64_t frames, const RolloutOptions& options);

/// What both check of their options and inputs.
void check_rollout(const RolloutInput& input, const at::Tensor& noise,
                   const RolloutOptions& options);

/// How many chunks a rollout of clips like `latents` has; shared by all ranks.
int64_t draw_chunk_count(const at::Tensor& latents, const StepAddress& address,
                         const std::string& prefix, const RolloutOptions& options);

/// Sets `rollout.latents` to `latents` [B, F, …] or, shortened, to their end, with mask and first
/// frame.
void keep_end(Rollout& rollout, const at::Tensor& latents, const RolloutInput& input,
              const RolloutOptions& options);

}  // namespace minwm::stages
