#include "minwm/train/health.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::train {
namespace {

constexpr size_t kNorms = 64;         // a spike is one against these
constexpr size_t kEnoughNorms = 16;   // fewer say nothing
constexpr int64_t kAlarmPause = 200;  // steps between alarms of a kind
constexpr float kSmoothing = 0.02F;   // about the last 50 losses
constexpr int64_t kSettled = 50;      // losses before drift is judged
constexpr double kStuck = 0.5, kLargeUpdate = 0.05, kVanishing = 1e-3;
constexpr int64_t kStateSize = 68;

}  // namespace

void HealthOptions::declare(Options& options) {
  options.add("health.max_bad_steps", &max_bad_steps,
              "consecutive steps not applied (not finite, or a spike) before the run stops");
  options.add("health.spike", &spike,
              "gradient norm over this many medians of the last 64: not applied; 0 = off");
  options.add("health.measure_every", &measure_every,
              "steps between measurements of how much an update changes the weights; 0 = never");
  options.add("health.critic_drift", &critic_drift,
              "alarm when the critic's smoothed loss is this many times its best; 0 = off");
}

Health::Health(std::string name, const HealthOptions& options)
    : name_(std::move(name)), options_(options) {
  require(options.max_bad_steps >= 1, "health.max_bad_steps {}: expected 1 or more",
          options.max_bad_steps);
  require(options.spike == 0 || options.spike > 1, "health.spike {}: expected more than 1, or 0",
          options.spike);
}

double Health::median_norm() const {
  std::vector<float> sorted = norms_;
  auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

std::string Health::refuse(double loss, double norm) {
  std::string why;
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    why = fmt::format("loss {}, gradient norm {}", loss, norm);
  } else if (options_.spike > 0 && norms_.size() >= kEnoughNorms) {
    const double median = median_norm();
    if (norm > options_.spike * median) {
      why = fmt::format("gradient norm {:.3g} is {:.0f} times the median of the last {}", norm,
                        norm / median, norms_.size());
    }
  }
  if (!why.empty()) {
    ++bad_steps_;
    return why;
  }
  bad_steps_ = 0;
  norms_.push_back(static_cast<float>(norm));
  if (norms_.size() > kNorms) {
    norms_.erase(norms_.begin());
  }
  return why;
}

std::vector<double> Health::change(const std::vector<at::Tensor>& before,
                                   const std::vector<at::Tensor>& after) {
  at::Tensor change = at::zeros({}, at::kDouble), weight = change.clone(), same = change.clone();
  double count = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const at::Tensor now = after[i].detach();
    if (!after[i].grad().defined()) {
      continue;
    }
    change += (now - before[i]).square().sum(at::kDouble).cpu();
    weight += before[i].square().sum(at::kDouble).cpu();
    same += at::logical_and(now == before[i], after[i].grad() != 0).sum().to(at::kDouble).cpu();
    count += static_cast<double>(now.numel());
  }
  return {change.item<double>(), weight.item<double>(), same.item<double>(), count};
}

std::map<std::string, double> Health::describe_change(const std::vector<double>& sums) {
  return {{"update_ratio", std::sqrt(sums[0] / std::max(sums[1], 1e-300))},
          {"unchanged", sums[3] > 0 ? sums[2] / sums[3] : 0}};
}

bool Health::due(const std::string& kind, int64_t step) {
  const auto last = last_alarm_.find(kind);
  if (last != last_alarm_.end() && step - last->second < kAlarmPause) {
    return false;
  }
  last_alarm_[kind] = step;
  return true;
}

std::vector<std::string> Health::alarms(int64_t step, double loss, double norm,
                                        const std::map<std::string, double>& measured) {
  std::vector<std::string> out;
  const auto ratio = measured.find("update_ratio"), unchanged = measured.find("unchanged");
  if (unchanged != measured.end() && unchanged->second > kStuck && due("stuck", step)) {
    out.push_back(fmt::format(
        "{}: {:.0f} % of the weights with a gradient did not change: the updates are lost in "
        "rounding (learning rate too low, or weights not float32)",
        name_, 100 * unchanged->second));
  }
  if (ratio != measured.end() && ratio->second > kLargeUpdate && due("large", step)) {
    out.push_back(fmt::format("{}: one update changed the weights by {:.1f} %: lower optimizer.lr",
                              name_, 100 * ratio->second));
  }
  if (norms_.size() >= kEnoughNorms && norm < kVanishing * median_norm() && due("norm", step)) {
    out.push_back(
        fmt::format("{}: the gradient norm fell to {:.2g} from {:.2g}: does the loss still "
                    "reach the weights?",
                    name_, norm, median_norm()));
  }
  const auto value = static_cast<float>(loss);
  smooth_loss_ = losses_ == 0 ? value : smooth_loss_ + kSmoothing * (value - smooth_loss_);
  if (++losses_ == kSettled || (losses_ > kSettled && smooth_loss_ < best_loss_)) {
    best_loss_ = smooth_loss_;
  }
  if (name_ == "critic" && options_.critic_drift > 0 && losses_ > kSettled &&
      smooth_loss_ > options_.critic_drift * best_loss_ && due("drift", step)) {
    out.push_back(
        fmt::format("critic: its loss {:.3g} is {:.2f} times its best: it falls behind the "
                    "generator; stop here, "
                    "lower optimizer.lr or raise dmd.ratio",
                    smooth_loss_, smooth_loss_ / best_loss_));
  }
  return out;
}

at::Tensor Health::state() const {
  std::vector<float> values = {smooth_loss_, best_loss_, static_cast<float>(losses_),
                               static_cast<float>(bad_steps_)};
  values.insert(values.end(), norms_.begin(), norms_.end());
  values.resize(kStateSize, -1);  // norms are not negative
  return at::tensor(values);
}

void Health::load_state(const at::Tensor& state) {
  require(state.sizes() == at::IntArrayRef({kStateSize}), "health state: expected [{}]",
          kStateSize);
  const auto values = state.to(at::kCPU, at::kFloat);
  const auto read = values.accessor<float, 1>();
  smooth_loss_ = read[0];
  best_loss_ = read[1];
  losses_ = static_cast<int64_t>(read[2]);
  bad_steps_ = static_cast<int64_t>(read[3]);
  norms_.clear();
  for (int64_t i = 4; i < kStateSize && read[i] >= 0; ++i) {
    norms_.push_back(read[i]);
  }
}

}  // namespace minwm::train
