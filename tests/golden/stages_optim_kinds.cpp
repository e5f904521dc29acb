// Muon over several steps, and the running average.

#include "case.h"
#include "minwm/core/error.h"
#include "minwm/train/ema.h"

namespace minwm::golden {
namespace {

train::NamedParameters read_parameters(const Case& c, const std::string& prefix) {
  train::NamedParameters out;
  for (const auto& name : c.under(prefix)) {
    out.emplace_back(name, c.tensor(prefix + name).clone().requires_grad_());
  }
  return out;
}

void replay_muon(const Case& c, Report& report) {
  train::OptimizerOptions options;
  options.name = "muon";
  options.lr = c.config.at("lr").get<double>();
  options.beta1 = c.config.at("adamw_betas").at(0).get<double>();
  options.beta2 = c.config.at("adamw_betas").at(1).get<double>();
  options.eps = c.config.at("adamw_eps").get<double>();
  options.weight_decay = c.config.at("weight_decay").get<double>();
  options.muon_momentum = c.config.at("momentum").get<double>();
  require(c.config.at("nesterov").get<bool>() && c.config.at("ns_steps").get<int64_t>() == 5,
          "our Muon is Nesterov's with 5 Newton-Schulz steps");
  auto parameters = read_parameters(c, "param/");
  const auto optimizer = train::make_optimizer(options, parameters);
  for (int64_t k = 0; k < c.config.at("steps").get<int64_t>(); ++k) {
    const std::string step = std::to_string(k);
    for (auto& [name, p] : parameters) {
      const std::string gradient = "in/" + step + "/grad/" + name;
      p.mutable_grad() = c.has(gradient) ? c.tensor(gradient) : at::Tensor();
    }
    optimizer->step(options.lr);
    for (const auto& [name, p] : parameters) {
      report.compare(step + "/" + name, p, c.out(step + "/param/" + name));
    }
  }
}

void replay_ema(const Case& c, Report& report) {
  train::EmaOptions options;
  options.decay = c.config.at("decay").get<double>();
  auto weights = read_parameters(c, "in/0/");
  auto storage = read_parameters(c, "in/0/");
  // Into storage of its own, and into a module's parameters.
  train::Ema plain(options, weights), stored(options, weights, storage);
  plain.start_if_due(0);
  stored.start_if_due(0);
  for (int64_t k = 1; k <= c.config.at("updates").get<int64_t>(); ++k) {
    const std::string step = std::to_string(k) + "/";
    for (auto& [name, p] : weights) {
      p.detach().copy_(c.in(step + name));
    }
    plain.update();
    stored.update();
    const auto state = plain.state();
    for (const auto& [name, p] : storage) {
      report.compare(step + name, state.at(name), c.out(step + name));
      report.compare("stored " + step + name, p, c.out(step + name));
    }
  }
}

const bool registered[] = {register_kind("stages.optim.muon", replay_muon),
                           register_kind("stages.ema.update", replay_ema)};

}  // namespace
}  // namespace minwm::golden
