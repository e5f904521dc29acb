#include "minwm/train/ema.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::train {

void EmaOptions::declare(Options& options) {
  options.add("ema.decay", &decay, "decay of the averaged weights; 0 = no average");
  options.add("ema.ramp", &ramp, "start with a short average: decay at most (1 + k) / (10 + k)");
  options.add("ema.start", &start, "step at which the average starts");
}

Ema::Ema(const EmaOptions& options, NamedParameters parameters, NamedParameters storage)
    : options_(options), parameters_(std::move(parameters)) {
  require(storage.empty() || options.decay > 0,
          "ema.decay 0: this stage evaluates the average of its weights; give a decay");
  TORCH_INTERNAL_ASSERT(storage.empty() || storage.size() == parameters_.size());
  for (const auto& [name, p] : storage) {
    shadow_.push_back(p.detach());
  }
}

bool Ema::start_if_due(int64_t completed) {
  if (started_ || options_.decay <= 0 || completed < options_.start) {
    return false;
  }
  at::NoGradGuard no_grad;
  started_ = true;
  shadow_.resize(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor weight = parameters_[i].second.detach();
    if (shadow_[i].defined()) {
      shadow_[i].copy_(weight);
    } else {
      shadow_[i] = weight.to(at::kFloat).clone();
    }
  }
  return true;
}

void Ema::update() {
  if (!started_) {
    return;
  }
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> weights;
  for (const auto& [name, p] : parameters_) {
    weights.push_back(p.detach());
  }
  const double k = static_cast<double>(updates_++);
  const double decay =
      options_.ramp ? std::min(options_.decay, (1 + k) / (10 + k)) : options_.decay;
  at::_foreach_lerp_(shadow_, weights, 1 - decay);
}

std::map<std::string, at::Tensor> Ema::state() const {
  std::map<std::string, at::Tensor> out;
  if (started_) {
    out["updates"] = at::tensor(updates_, at::kLong);
    for (size_t i = 0; i < shadow_.size(); ++i) {
      out[parameters_[i].first] = shadow_[i];
    }
  }
  return out;
}

void Ema::load_state(const std::map<std::string, at::Tensor>& state) {
  if (state.empty()) {
    started_ = false;
    return;
  }
  at::NoGradGuard no_grad;
  shadow_.resize(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, p] = parameters_[i];
    const auto found = state.find(name);
    require(found != state.end() && found->second.sizes() == p.sizes(),
            "averaged weights: '{}' is missing or mis-shaped", name);
    if (!shadow_[i].defined()) {
      shadow_[i] = at::empty_like(p.detach(), at::kFloat);
    }
    shadow_[i].copy_(found->second);
  }
  const auto updates = state.find("updates");
  require(updates != state.end(), "averaged weights: 'updates' is missing");
  updates_ = updates->second.item<int64_t>();
  started_ = true;
}

void Ema::swap() {
  at::NoGradGuard no_grad;
  for (size_t i = 0; started_ && i < shadow_.size(); ++i) {
    const at::Tensor weight = parameters_[i].second.detach().clone();
    parameters_[i].second.detach().copy_(shadow_[i]);
    shadow_[i].copy_(weight);
  }
}

}  // namespace minwm::train
