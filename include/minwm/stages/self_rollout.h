#pragma once
// Self-rollout: the causal model generates a clip from noise over its own KV cache, as it will when
// deployed, with gradients through one denoising call per chunk (spec stages 9, 11).

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "minwm/models/codec/codec.h"
#include "minwm/stages/stage.h"

namespace minwm::stages {

struct RolloutOptions {
  std::vector<double> step_list = {1000, 750, 500, 250};  ///< timesteps before the shift
  std::vector<double> first_chunk_step_list;              ///< of chunk 0 only; empty = step_list
  double shift = 5;
  int64_t chunk_frames = 4;
  int64_t window_frames = 20;  ///< attention window of the cache, current chunk and sink included
  int64_t sink_frames = 0;
  bool sink_follows_window = false;  ///< sink positions as in models::CacheOptions
  /// truncated: a chunk stops at its exit step, whose x0 is the output and (clean) the history.
  /// full: every chunk runs all steps, the output is the x0 of the exit step, the history the
  /// finished chunk, as deployed.
  std::string mode = "truncated";
  std::string solver = "renoise";  ///< renoise, or euler (full only: gradient on the last step)
  bool same_exit = true;           ///< one exit step for all chunks instead of one each
  bool last_step_only = false;     ///< always exit at the last step
  /// Truncated: only chunks that start in the last so many frames have gradients. Full: only the
  /// last so many frames have. 0 = all.
  int64_t gradient_frames = 21;
  /// > 0: the number of chunks is drawn, from this many frames to the whole clip.
  int64_t minimum_frames = 0;
  double context_noise = 0;      ///< timestep at which a finished chunk is committed to the cache
  bool renoise_context = false;  ///< and it is noised to that level first (the Self-Forcing family)
  /// Sigma of a timestep is that of the nearest entry of the 1000-entry table, as in the reference,
  /// instead of timestep / 1000.
  bool table_sigma = false;
  /// False: keys and values of the text are made once, without gradients (the reference's HY).
  bool text_gradient = true;
  /// Commit the last chunk too. Nobody reads it, but the references do it and their traces show it.
  bool commit_last = false;
  void declare(Options& options);  ///< section "rollout"
};

/// Everything random of a rollout. The functions are asked on demand, in order.
struct RolloutDraws {
  at::Tensor noise;                ///< [B, F, C, h, w]; F frames are generated
  std::vector<int64_t> exit_step;  ///< per chunk, index into its step list
  std::function<at::Tensor(int64_t chunk, int64_t step)>
      renoise;                                             ///< [B, n, C, h, w], after `step`
  std::function<at::Tensor(int64_t chunk)> context_noise;  ///< renoise_context only
};

struct Rollout {
  at::Tensor latents;  ///< [B, F', C, h, w] in the graph of the selected calls
  /// Frame of the clip that `latents` begins with: 0, or F - gradient_frames where the clip was
  /// shortened (RolloutInput::first_latent_of).
  int64_t first_frame = 0;
  /// The exit step's own level and the next lower one, as timesteps before the shift (0 after the
  /// last), of the chunks that follow `step_list`; -1 where chunks draw their exits separately.
  double from = -1, to = -1;
  at::Tensor
      loss_mask;  ///< [F'] of 0 and 1, or undefined: frames that count in a loss on `latents`
};

/// What a rollout is conditioned on, and which first latents it is given.
struct RolloutInput {
  models::Conditions conditions;  ///< cameras of at least F frames
  /// [B, 1, C, h, w] or undefined: the clip's first latent, given clean (t = 0) inside chunk 0, put
  /// back after every step, and not in the loss.
  at::Tensor first_latent;
  /// Latents [B, T, C, h, w] → the last pixel frame they decode to, encoded as the first latent of
  /// a clip, [B, 1, C, h, w]. With it a rollout of more than gradient_frames = G frames is
  /// shortened to G: this of all but the last G - 1 frames, then those. The first chunk_frames of
  /// them are not in the loss.
  std::function<at::Tensor(const at::Tensor& latents)> first_latent_of;
};

/// Rolls `model` out. Gradients are recorded if grad mode is on; critic updates call it without.
/// No gradient flows through the cache or between chunks.
/// @throws Error if options, draws and conditions do not fit together.
/// Source: spec stages 9 and 11; golden stages.{wan,cf,hy}.selfrollout.trace.
Rollout self_rollout(models::Backbone& model, const RolloutInput& input, const RolloutDraws& draws,
                     const RolloutOptions& options);

/// The draws of update `purpose` ("generator", "critic") at a step for clips like batch.latents;
/// exits and the number of chunks are shared by all ranks and micro-batches, noise is per sample.
RolloutDraws draw_rollout(const data::Batch& batch, const StepAddress& address,
                          const std::string& purpose, const RolloutOptions& options);

/// Timesteps (1000 sigma, after the shift) of a step list.
std::vector<double> rollout_timesteps(const std::vector<double>& step_list, double shift);

/// RolloutInput::first_latent_of by decoding and encoding with a codec that lives on the CPU.
std::function<at::Tensor(const at::Tensor&)> last_frame_encoder(
    std::shared_ptr<models::Codec> codec);

}  // namespace minwm::stages
