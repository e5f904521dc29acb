#include "minwm/train/ema.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::train {

void EmaOptions::declare(Options& options) {
  options.add("ema.decay", &decay, "decay of the averaged weights; 0 = no average");
  options.add("ema.ramp", &ramp, "start with a short average: decay at most (1 + k) / (10 + k)");
  options.add("ema.start", &start, "step at which the average starts");
}

Ema::Ema(const EmaOptions& options, NamedParameters parameters)
    : options_(options), parameters_(std::move(parameters)) {}

void Ema::update(int64_t step) {
  if (options_.decay <= 0 || step < options_.start) {
    return;
  }
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> weights;
  for (const auto& [name, p] : parameters_) {
    weights.push_back(p.detach());
  }
  if (shadow_.empty()) {
    for (const auto& w : weights) {
      shadow_.push_back(w.to(at::kFloat).clone());
    }
  }
  const double k = static_cast<double>(updates_++);
  const double decay =
      options_.ramp ? std::min(options_.decay, (1 + k) / (10 + k)) : options_.decay;
  at::_foreach_lerp_(shadow_, weights, 1 - decay);
}

std::map<std::string, at::Tensor> Ema::state() const {
  std::map<std::string, at::Tensor> out;
  if (!shadow_.empty()) {
    out["updates"] = at::tensor(updates_, at::kLong);
    for (size_t i = 0; i < shadow_.size(); ++i) {
      out[parameters_[i].first] = shadow_[i];
    }
  }
  return out;
}

void Ema::load_state(const std::map<std::string, at::Tensor>& state) {
  shadow_.clear();
  if (state.empty()) {
    return;
  }
  for (const auto& [name, p] : parameters_) {
    const auto found = state.find(name);
    require(found != state.end() && found->second.sizes() == p.sizes(),
            "averaged weights: '{}' is missing or mis-shaped", name);
    shadow_.push_back(found->second.to(p.device(), at::kFloat).clone());
  }
  const auto updates = state.find("updates");
  require(updates != state.end(), "averaged weights: 'updates' is missing");
  updates_ = updates->second.item<int64_t>();
}

void Ema::swap() {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < shadow_.size(); ++i) {
    const at::Tensor weight = parameters_[i].second.detach().clone();
    parameters_[i].second.detach().copy_(shadow_[i]);
    shadow_[i].copy_(weight);
  }
}

}  // namespace minwm::train
