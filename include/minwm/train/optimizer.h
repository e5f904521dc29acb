#pragma once
// AdamW and Muon as the reference lines use them (spec stages 12), clipping and schedules.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/comm/communicator.h"

namespace minwm {
class Options;
}

namespace minwm::train {

struct OptimizerOptions {
  std::string name = "adamw";  ///< adamw or muon
  double lr = 2e-6;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0.01;
  double clip = 10;  ///< global gradient norm
  double skip_norm =
      0;  ///< a step whose norm (before clipping) reaches this is not applied; 0 = off
  double muon_momentum = 0.95;
  bool muon_bf16 = true;      ///< the reference's bfloat16 rounding points in Newton-Schulz
  int64_t muon_min_side = 1;  ///< matrices with a side below this are left to AdamW
  bool muon_one_dim_rule =
      true;  ///< the reference's 1-D rule (eps before bias correction) instead of AdamW for vectors
  /// After warm-up: constant, linear, cosine, restarts (cosine from the full rate `cycles` times),
  /// polynomial, piecewise (spec stages 12).
  std::string schedule = "constant";
  int64_t warmup = 0;  ///< steps of linear warm-up
  double decay_fraction =
      0;  ///< constant: share of the run, at its end, over which lr falls linearly …
  double final_ratio = 0;  ///< … to this share of lr (all but restarts and piecewise end there too)
  int64_t cycles = 1;      ///< restarts: how often the cosine falls to 0
  double power = 1;        ///< polynomial: of the remaining share of the run
  std::vector<double> pieces;      ///< piecewise: factor, first step of the next piece, factor, …
  void declare(Options& options);  ///< section "optimizer"
};

/// Learning rate of step k (0-based) in a run of `steps`.
double learning_rate(const OptimizerOptions& options, int64_t step, int64_t steps);

/// One named parameter with its gradient.
using NamedParameters = std::vector<std::pair<std::string, at::Tensor>>;

/// What a rank's values of a parameter are a piece of: elements from `begin` on, in row-major
/// order, of a parameter of this shape.
struct Place {
  std::vector<int64_t> shape;
  int64_t begin = 0;
};

/// Norm over all gradients (0 if there are none), summed in float64: a scalar float64 on their
/// device.
at::Tensor gradient_norm(const NamedParameters& parameters);
/// g ← g · min(1, max_norm / (norm + 1e-6)).
void scale_gradients(const NamedParameters& parameters, double norm, double max_norm);

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// One update at this learning rate. A parameter without gradient is skipped entirely. Collective
  /// over `ranks` when the optimizer shares its work among them.
  virtual void step(double lr) = 0;
  /// Moments by "<parameter>/<kind>", and the update count as "step" (int64 scalar).
  virtual std::map<std::string, at::Tensor> state() const = 0;
  /// @throws Error naming a missing or mis-shaped moment.
  virtual void load_state(const std::map<std::string, at::Tensor>& state) = 0;
};

/// Where an optimizer's parameters are.
struct Spread {
  std::vector<Place> places;  ///< of each parameter; empty = whole parameters
  /// The ranks that share Muon's Newton-Schulz: those that hold the pieces of one copy (every
  /// matrix is brought together on one of them), or, with whole parameters, those that hold copies
  /// (every rank orthogonalises its part and gathers the rest). May be null with whole parameters.
  std::shared_ptr<comm::Communicator> ranks;
};

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          NamedParameters parameters, const Spread& spread = {});

/// Orthogonalises a batch of float32 matrices [n, rows, cols] (5 Newton-Schulz steps). With `bf16`
/// inputs and results of every product are rounded where the reference rounds them: in bfloat16
/// where the processor multiplies it natively (twice as fast), emulated in float32 elsewhere;
/// products accumulate in float32 either way.
at::Tensor newton_schulz(const at::Tensor& matrices, bool bf16);

}  // namespace minwm::train
