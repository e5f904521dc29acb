#pragma once
// Stage 3: asymmetric distribution matching distillation. A causal few-step generator rolls itself
// out; two bidirectional scores judge the result at a random noise level: the real one (frozen)
// says where such clips should move, the fake one (the critic, trained on the rollouts) where they
// come from; their difference is the generator's gradient (spec stages 10).

#include <optional>

#include "minwm/stages/dmd_scores.h"
#include "minwm/stages/rolling.h"

namespace minwm::stages {

struct DmdOptions {
  int64_t ratio = 5;  ///< iterations per generator update
  /// wan: iterations that are multiples of `ratio` update the generator and then, on a batch of its
  /// own, the critic, the others the critic. hy: they update the generator only.
  std::string schedule = "wan";
  double clean_first = 0;  ///< probability that an update's rollouts are given their first latent
  double rolling = 0;      ///< probability that an update's rollouts roll (long videos)
  ScoreOptions score;
  RolloutOptions rollout;
  void declare(Options& options);  ///< sections "dmd" and "rollout"
  /// @throws Error in one line on values that make no sense.
  void check() const;
};

/// Everything random of an update.
struct DmdDraws {
  RolloutDraws rollout;
  std::optional<RollingDraws> rolling;  ///< a rolling rollout instead
  ScoreDraws score;
  bool given = false;  ///< the first latents of the batch are given
};

/// `update`: "generator" or "critic". Exits, `rolling` and `given` are shared by all ranks and
/// samples.
DmdDraws draw_dmd(const data::Batch& batch, const StepAddress& address, const std::string& update,
                  const DmdOptions& options);

struct DmdModels {
  models::Backbone& generator;  ///< causal, over its KV cache
  models::Backbone& fake;       ///< bidirectional, trained
  models::Backbone& real;       ///< bidirectional, frozen
  /// See RolloutInput: shortens rollouts that are longer than the scores' clips. May be empty.
  std::function<at::Tensor(const at::Tensor&)> first_latent_of;
};

struct GeneratorTerms {
  Rollout rollout;
  ScoreInput input;
  ScoreTerms score;
  at::Tensor loss;
};

/// 1/2 mean of (x - stop(x - g))^2 over the frames that count: its value is 1/2 mean g^2, its
/// derivative with respect to the rollout x is g / (number of elements). Only the generator gets
/// gradients. Of `batch` the conditions are used, the latents' shape and, if given, the first
/// latent.
GeneratorTerms generator_loss(const DmdModels& models, const data::Batch& batch,
                              const models::Conditions& negative, const DmdDraws& draws,
                              const DmdOptions& options);

struct CriticTerms {
  Rollout rollout;
  ScoreInput input;
  at::Tensor flow, loss;
};

/// Flow matching of the fake score on rollouts, unweighted. Only the fake score gets gradients.
CriticTerms critic_loss(const DmdModels& models, const data::Batch& batch, const DmdDraws& draws,
                        const DmdOptions& options);

class Dmd : public Stage {
 public:
  /// `real` is frozen here. `negative` holds the text of the unconditional pass (undefined: zeros).
  /// @throws Error in one line on bad options.
  Dmd(std::shared_ptr<models::Backbone> generator, std::shared_ptr<models::Backbone> fake,
      std::shared_ptr<models::Backbone> real, models::Conditions negative, DmdOptions options,
      std::function<at::Tensor(const at::Tensor&)> first_latent_of = {});
  std::string name() const override { return "dmd"; }
  std::vector<Network> networks() const override;
  std::vector<size_t> updates(int64_t step) const override;
  LossOutput loss(size_t network, const data::Batch& batch, const StepAddress& address) override;

 private:
  std::shared_ptr<models::Backbone> generator_, fake_, real_;
  models::Conditions negative_;
  DmdOptions options_;
  std::function<at::Tensor(const at::Tensor&)> first_latent_of_;
};

}  // namespace minwm::stages
