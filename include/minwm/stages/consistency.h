#pragma once
// Stage 2b: causal consistency distillation. The frozen teacher takes one ODE step down a grid of
// noise levels; the student learns to predict from before the step what its own running average
// predicts from behind it, so that one prediction comes to jump the whole trajectory. Needs no ODE
// data (spec stages 8; golden kinds stages.wan.cd.step, stages.hy.cd.step).

#include <memory>
#include <string>
#include <vector>

#include "minwm/stages/guided_flow.h"
#include "minwm/stages/levels.h"
#include "minwm/stages/stage.h"

namespace minwm::stages {

struct ConsistencyOptions {
  int64_t intervals = 50;  ///< of the grid shift(1 - i / intervals), i = 0 … intervals
  double shift = 5;        ///< of the grid
  bool terminal = true;    ///< train the last interval, down to sigma 0, too; Wan's reference: no
  double guidance = 3;     ///< of the teacher: u + g (c - u); 1 = off
  models::Conditions negative;  ///< its u; undefined text is zeros; no option, given by the program
  bool per_chunk = false;       ///< an interval per chunk instead of one per clip
  double clean_first =
      0;  ///< probability that a clip's first latent is given: clean, t = 0, not in the loss
  double text_dropout = 0;  ///< probability that a clip's text is replaced by `negative`
  int64_t chunk_frames = 4;
  /// Sigma of the x0 predictions, and the reference's rounding; level.shift: that of its table.
  LevelOptions level;
  void declare(Options& options);  ///< section "consistency"
  /// @throws Error in one line on values that make no sense.
  void check() const;
};

/// Everything random of a step, drawn beforehand (reference cases provide it).
struct ConsistencyDraws {
  at::Tensor noise;      ///< like the latents
  at::Tensor interval;   ///< [B, T] int64: i, from grid level i to i + 1; -1 where a frame is given
  at::Tensor text_kept;  ///< [B, 1, 1] of 0 and 1, or undefined
};

/// Addressed by the sample: the same on all ranks that share a clip, others on the others.
/// @throws Error if the clips are no whole chunks.
ConsistencyDraws draw_consistency(const data::Batch& batch, const StepAddress& address,
                                  const ConsistencyOptions& options);

struct ConsistencyModels {
  models::Backbone& student;  ///< trained
  models::Backbone& teacher;  ///< many-step model, constant
  models::Backbone& average;  ///< running average of the student, constant
};

/// One end of an interval: [B, T] as the network sees it, and of its x0 prediction.
struct ConsistencyLevel {
  at::Tensor timestep, sigma;
};

struct ConsistencyTerms {
  ConsistencyLevel from, to;
  at::Tensor noisy, stepped;  ///< [B, T, C, h, w] at `from`, and after the teacher's step at `to`
  GuidedFlow teacher;
  at::Tensor student_x0, target_x0;  ///< [B, T, C, h, w]
  at::Tensor loss;                   ///< scalar float32, in the graph of the student
};

/// Mean over samples of each sample's mean, over its noised frames, of (x0_student(x_t, t) -
/// x0_average(x', t'))^2 with x' = x_t + (sigma' - sigma) v_teacher(x_t, t). Teacher forcing on the
/// clean latents throughout. Latents and noise of type bfloat16 keep to it, as in the references.
ConsistencyTerms consistency_loss(const ConsistencyModels& models, const data::Batch& batch,
                                  const ConsistencyDraws& draws, const ConsistencyOptions& options);

class Consistency : public Stage {
 public:
  /// Teacher and average are frozen here; whoever trains the student keeps `average` (a copy of the
  /// student at first) up to date after every optimizer step.
  /// @throws Error in one line on bad options.
  Consistency(std::shared_ptr<models::Backbone> student, std::shared_ptr<models::Backbone> teacher,
              std::shared_ptr<models::Backbone> average, ConsistencyOptions options);
  std::string name() const override { return "consistency"; }
  std::vector<Network> networks() const override { return {{"model", student_, average_}}; }
  LossOutput loss(size_t network, const data::Batch& batch, const StepAddress& address) override;

 private:
  std::shared_ptr<models::Backbone> student_, teacher_, average_;
  ConsistencyOptions options_;
};

}  // namespace minwm::stages
