#pragma once
// Stage 2a: causal ODE regression. From a state of the teacher's trajectory at one of the few noise
// levels, the student predicts where the trajectory ends (spec stages 7.2; golden kinds
// stages.wan.ode.step, stages.hy.ode.step).

#include <memory>
#include <string>
#include <vector>

#include "minwm/stages/levels.h"
#include "minwm/stages/stage.h"

namespace minwm::stages {

struct OdeOptions {
  std::vector<double> step_list = {1000, 750, 500, 250};  ///< timesteps before the shift
  int64_t chunk_frames = 4;
  double text_dropout = 0;         ///< probability that a clip's text is replaced by `negative`
  models::Conditions negative;     ///< undefined text is zeros; no option, given by the program
  LevelOptions levels;             ///< levels.shift: that of the step list
  void declare(Options& options);  ///< section "ode"
  /// @throws Error naming the option that makes no sense.
  void check() const;
  /// 1000 sigma of the step list, after the shift.
  std::vector<double> timesteps() const;
};

/// Everything random of a step, drawn beforehand (reference cases provide it).
struct OdeDraws {
  at::Tensor step;       ///< [B, T] int64: which state of the trajectory each frame is taken from
  at::Tensor timestep;   ///< [B, T] float32: 1000 sigma of that state, 0 where a frame is given
  at::Tensor text_kept;  ///< [B, 1, 1] of 0 and 1, or undefined
};

struct OdeTerms {
  at::Tensor noisy;     ///< [B, T, C, h, w]: what the network gets, at `timestep`
  at::Tensor timestep;  ///< [B, T] as the network sees it
  at::Tensor sigma;     ///< [B, T]: what x0 = noisy - sigma flow was computed with
  at::Tensor flow, x0;  ///< [B, T, C, h, w]
  at::Tensor errors;    ///< [B], detached: mean (x0 - endpoint)^2 over each sample's noised frames
  at::Tensor loss;      ///< scalar: the mean of the errors
};

/// The regression under teacher forcing with batch.latents as the clean past. Gradients reach the
/// model through its flow on the noised frames.
OdeTerms ode_loss(models::Backbone& model, const data::Batch& batch, const OdeDraws& draws,
                  const OdeOptions& options);

/// One level per sample, uniform over the step list; the frames a trajectory was given stay clean.
/// @throws Error if the batch has no trajectories, or not as many states as the step list says.
OdeDraws draw_ode(const data::Batch& batch, const StepAddress& address, const OdeOptions& options);

/// @throws Error "WHERE: …" unless a store's trajectories (StoreLayout::ode_sigmas) were kept at
/// the levels of `options`.
void require_ode_levels(const std::vector<double>& ode_sigmas, const OdeOptions& options,
                        const std::string& where);

class OdeRegression : public Stage {
 public:
  OdeRegression(std::shared_ptr<models::Backbone> model, OdeOptions options)
      : model_(std::move(model)), options_(std::move(options)) {}
  std::string name() const override { return "ode"; }
  std::vector<Network> networks() const override { return {{"model", model_, nullptr}}; }
  /// Logs for every level d of the step list mse_sum_d and mse_count_d: the sum of this
  /// micro-batch's errors there and their number. Both average over micro-batches and ranks, so
  /// their ratio is the level's error.
  LossOutput loss(size_t network, const data::Batch& batch, const StepAddress& address) override;

 private:
  std::shared_ptr<models::Backbone> model_;
  OdeOptions options_;
};

}  // namespace minwm::stages
