#pragma once

#include <torch/torch.h>

#include "minwm/train/optimizer.h"

namespace minwm {
class Options;
}

namespace minwm::train {

struct EmaOptions {
  double decay = 0;   ///< 0 = no average
  bool ramp = false;  ///< decay of update k is at most (1 + k) / (10 + k)
  int64_t start = 0;  ///< iterations before the average starts as a copy of the weights
  void declare(Options& options);  ///< section "ema"
};

/// A float32 average of the weights: shadow = d shadow + (1 - d) weight.
class Ema {
 public:
  /// `storage` (may be empty) holds the average: parameters of a module of the same shape, for
  /// whoever evaluates the average while the weights are in use.
  Ema(const EmaOptions& options, NamedParameters parameters, NamedParameters storage = {});
  /// Before the first iteration and after every one: makes the copy once `completed` iterations
  /// reach `start`.
  /// @returns whether it made it now.
  bool start_if_due(int64_t completed);
  /// After an update of the weights; nothing before the start.
  void update();
  bool started() const { return started_; }
  /// By parameter name, plus "updates" (int64).
  std::map<std::string, at::Tensor> state() const;
  void load_state(const std::map<std::string, at::Tensor>& state);
  /// Puts the average into the weights and the weights aside; a second call puts them back.
  void swap();

 private:
  EmaOptions options_;
  NamedParameters parameters_;
  std::vector<at::Tensor> shadow_;
  bool started_ = false;
  int64_t updates_ = 0;
};

}  // namespace minwm::train
