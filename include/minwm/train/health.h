#pragma once
// Watches a run for what costs weeks: numbers that are not finite, spikes, updates that vanish in
// rounding, a critic that falls behind. Decisions are made from numbers that all ranks share.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <torch/torch.h>

namespace minwm {
class Options;
}

namespace minwm::train {

struct HealthOptions {
  /// Consecutive steps that may be refused (not finite, or a spike) before the run stops.
  int64_t max_bad_steps = 5;
  /// A gradient norm above this many times the median of the last 64 is a spike: the step is not
  /// applied. 0 = off.
  double spike = 20;
  int64_t measure_every = 100;  ///< steps between measurements of the updates; 0 = never
  /// Alarm: the critic's smoothed loss is above this many times its best. 0 = off.
  double critic_drift = 1.3;
  void declare(Options& options);  ///< section "health"
};

/// The state of one network's training.
class Health {
 public:
  Health(std::string name, const HealthOptions& options);

  /// "" if a step with this loss and gradient norm may be applied, else why not. Remembers the norm
  /// of healthy steps.
  std::string refuse(double loss, double norm);
  int64_t bad_steps() const { return bad_steps_; }  ///< consecutive refusals

  /// How much an update changed weights, as sums that add up over ranks with different pieces:
  /// squared change, squared weights, weights with a gradient that kept their value, weights.
  static std::vector<double> change(const std::vector<at::Tensor>& before,
                                    const std::vector<at::Tensor>& after);
  /// Of such sums: "update_ratio" (RMS of the change over RMS of the weights) and "unchanged"
  /// (share of weights with a gradient that kept their value: what bfloat16 weights suffer from).
  static std::map<std::string, double> describe_change(const std::vector<double>& sums);
  /// Warnings about a measured update and about the course of the loss; at most one of a kind in
  /// 200 steps. Empty = all is well.
  std::vector<std::string> alarms(int64_t step, double loss, double norm,
                                  const std::map<std::string, double>& measured);

  /// Norms, smoothed losses and the count of refusals, for checkpoints: [68] float32.
  at::Tensor state() const;
  void load_state(const at::Tensor& state);

 private:
  bool due(const std::string& kind, int64_t step);
  double median_norm() const;

  std::string name_;
  HealthOptions options_;
  std::vector<float> norms_;  ///< of the last healthy steps, oldest first
  int64_t bad_steps_ = 0;
  float smooth_loss_ = 0, best_loss_ = 0;
  int64_t losses_ = 0;
  std::map<std::string, int64_t> last_alarm_;
};

}  // namespace minwm::train
