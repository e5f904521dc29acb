#pragma once

#include <torch/torch.h>

#include "minwm/train/optimizer.h"

namespace minwm {
class Options;
}

namespace minwm::train {

struct EmaOptions {
  double decay = 0;                ///< 0 = no average
  bool ramp = false;               ///< decay of update k is at most (1 + k) / (10 + k)
  int64_t start = 0;               ///< the average starts as a copy of the weights at this step
  void declare(Options& options);  ///< section "ema"
};

/// A float32 average of the weights: shadow = d shadow + (1 - d) weight.
class Ema {
 public:
  Ema(const EmaOptions& options, NamedParameters parameters);
  /// After the optimizer's step `step` (0-based).
  void update(int64_t step);
  bool started() const { return !shadow_.empty(); }
  /// By parameter name, plus "updates" (int64).
  std::map<std::string, at::Tensor> state() const;
  void load_state(const std::map<std::string, at::Tensor>& state);
  /// Puts the average into the weights and the weights aside; a second call puts them back.
  void swap();

 private:
  EmaOptions options_;
  NamedParameters parameters_;
  std::vector<at::Tensor> shadow_;
  int64_t updates_ = 0;
};

}  // namespace minwm::train
