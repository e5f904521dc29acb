#include "minwm/train/learner.h"

#include "minwm/core/error.h"
#include "minwm/models/state.h"

namespace minwm::train {

NamedParameters named_parameters(const torch::nn::Module& module) {
  NamedParameters parameters;
  for (const auto& item : module.named_parameters()) {
    parameters.emplace_back(item.key(), item.value());
  }
  return parameters;
}

Learner::Learner(const stages::Network& network, const OptimizerOptions& optimizer,
                 const EmaOptions& ema, const HealthOptions& health, const comm::Mesh& mesh)
    : name_(network.name),
      options_(optimizer),
      module_(network.module),
      parameters_(named_parameters(*network.module)),
      ranks_(mesh, parameters_),
      optimizer_(make_optimizer(optimizer, parameters_, ranks_.helpers())),
      ema_(ema, parameters_,
           network.average ? named_parameters(*network.average) : NamedParameters{}),
      health_(network.name, health) {}

std::map<std::string, double> Learner::apply(double lr, double norm, bool measure) {
  std::vector<at::Tensor> before, after;
  if (measure) {
    for (const auto& [name, p] : parameters_) {
      before.push_back(p.detach().clone());
      after.push_back(p);
    }
  }
  scale_gradients(parameters_, norm, options_.clip);
  optimizer_->step(lr);
  ema_.update();
  return measure ? Health::compare(before, after) : std::map<std::string, double>{};
}

std::string Learner::prefix(const std::string& kind) const {
  return name_ == "model" ? kind : name_ + "/" + kind;
}

void Learner::save(TensorMap& tensors) const {
  for (const auto& [name, p] : parameters_) {
    tensors[name_ + "/param/" + name] = p.detach();
  }
  for (const auto& [name, tensor] : ema_.state()) {
    tensors[name == "updates" ? prefix("counters/ema_updates") : name_ + "/ema/" + name] = tensor;
  }
  for (const auto& [name, tensor] : optimizer_->state()) {
    tensors[name == "step" ? prefix("counters/optimizer_step") : prefix("optimizer/" + name)] =
        tensor;
  }
  tensors[prefix("counters/health")] = health_.state();
}

void Learner::load(const Checkpoint& checkpoint) {
  models::load_state(*module_, checkpoint.read_group(name_ + "/param/"),
                     checkpoint.path().string());
  TensorMap moments = checkpoint.read_group(prefix("optimizer/"));
  moments["step"] = checkpoint.read(prefix("counters/optimizer_step"));
  optimizer_->load_state(moments);
  TensorMap average = checkpoint.read_group(name_ + "/ema/");
  if (!average.empty()) {
    average["updates"] = checkpoint.read(prefix("counters/ema_updates"));
  }
  ema_.load_state(average);
  if (checkpoint.contains(prefix("counters/health"))) {
    health_.load_state(checkpoint.read(prefix("counters/health")));
  }
}

}  // namespace minwm::train
