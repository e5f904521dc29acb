#include "minwm/train/learner.h"

#include "minwm/core/error.h"
#include "minwm/models/state.h"

namespace minwm::train {
namespace {

/// Tells a sharded average that its values were changed.
void changed(const std::shared_ptr<models::Backbone>& average) {
  if (const auto sharded = average ? models::sharded_runner(*average) : nullptr) {
    sharded->weights_changed();
  }
}

}  // namespace

Learner::Learner(const stages::Network& network, const OptimizerOptions& optimizer,
                 const EmaOptions& ema, const HealthOptions& health, const comm::Mesh& mesh)
    : name_(network.name),
      options_(optimizer),
      mesh_(mesh),
      module_(network.module),
      average_(network.average),
      device_(network.module->parameters().front().device()),
      weights_(make_trained_weights(*network.module, mesh)),
      optimizer_(make_optimizer(
          optimizer, weights_->parameters(),
          {weights_->sharded() ? weights_->places() : std::vector<Place>{}, weights_->helpers()})),
      ema_(ema, weights_->parameters(),
           network.average ? held_values(*network.average) : NamedParameters{}),
      health_(network.name, health) {}

void Learner::start_average_if_due(int64_t completed) {
  if (ema_.start_if_due(completed)) {
    changed(average_);
  }
}

void Learner::swap_average() {
  ema_.swap();
  weights_->changed();
}

/// The sum over the ranks that hold one copy together.
std::vector<double> Learner::sum_over_pieces(const std::vector<double>& values) const {
  if (!weights_->sharded()) {
    return values;
  }
  const auto count = static_cast<int64_t>(values.size());
  at::Tensor everyone = at::empty({mesh_.world->size(), count}, at::kDouble);
  mesh_.world->all_gather(at::tensor(values, at::kDouble), everyone.view(-1), "change of weights");
  const at::Tensor sums = everyone.sum(0) / mesh_.replicate->size();
  return {sums.data_ptr<double>(), sums.data_ptr<double>() + count};
}

std::map<std::string, double> Learner::apply(double lr, double norm, bool measure) {
  const auto& parameters = weights_->parameters();
  std::vector<at::Tensor> before, after;
  if (measure) {
    for (const auto& [name, p] : parameters) {
      before.push_back(p.detach().clone());
      after.push_back(p);
    }
  }
  scale_gradients(parameters, norm, options_.clip);
  optimizer_->step(lr);
  weights_->changed();
  ema_.update();
  changed(average_);
  return measure ? Health::describe_change(sum_over_pieces(Health::change(before, after)))
                 : std::map<std::string, double>{};
}

std::string Learner::prefix(const std::string& kind) const {
  return name_ == "model" ? kind : name_ + "/" + kind;
}

void Learner::add(const std::string& dataset, size_t parameter, const at::Tensor& values,
                  TensorMap& whole, PartMap& parts) const {
  if (!weights_->sharded()) {
    whole[dataset] = values.detach();
    return;
  }
  const auto& place = weights_->places()[parameter];
  parts[dataset] = {weights_->writes() ? values.detach() : values.detach().slice(0, 0, 0),
                    place.shape, place.begin};
}

void Learner::save(TensorMap& whole, PartMap& parts) const {
  const auto& parameters = weights_->parameters();
  const auto average = ema_.state(), moments = optimizer_->state();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, values] = parameters[i];
    add(name_ + "/param/" + name, i, values, whole, parts);
    if (const auto found = average.find(name); found != average.end()) {
      add(name_ + "/ema/" + name, i, found->second, whole, parts);
    }
    for (const auto* kind : {"exp_avg", "exp_avg_sq", "momentum"}) {
      const std::string moment = name + "/" + kind;
      if (const auto found = moments.find(moment); found != moments.end()) {
        add(prefix("optimizer/" + moment), i, found->second, whole, parts);
      }
    }
  }
  if (const auto updates = average.find("updates"); updates != average.end()) {
    whole[prefix("counters/ema_updates")] = updates->second;
  }
  whole[prefix("counters/optimizer_step")] = moments.at("step");
  whole[prefix("counters/health")] = health_.state();
}

at::Tensor Learner::read(const Checkpoint& checkpoint, const std::string& dataset,
                         size_t parameter) const {
  const auto& [name, values] = weights_->parameters()[parameter];
  const auto& place = weights_->places()[parameter];
  const std::string where = checkpoint.path().string();
  require(checkpoint.contains(dataset), "{}: lacks '{}'", where, dataset);
  require(checkpoint.shape(dataset) == place.shape, "{}: '{}' has shape {}, expected {}", where,
          dataset, c10::str(at::IntArrayRef(checkpoint.shape(dataset))),
          c10::str(at::IntArrayRef(place.shape)));
  return checkpoint.read_range(dataset, place.begin, values.numel()).view(values.sizes());
}

void Learner::load(const Checkpoint& checkpoint) {
  at::NoGradGuard no_grad;
  const auto& parameters = weights_->parameters();
  TensorMap average;
  TensorMap moments = optimizer_->state();
  for (auto& [name, moment] : moments) {
    moment = at::Tensor();
  }
  const bool averaged = checkpoint.contains(prefix("counters/ema_updates"));
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& name = parameters[i].first;
    at::Tensor values = parameters[i].second.detach();
    values.copy_(read(checkpoint, name_ + "/param/" + name, i));
    if (averaged) {
      average[name] = read(checkpoint, name_ + "/ema/" + name, i);
    }
    for (const auto* kind : {"exp_avg", "exp_avg_sq", "momentum"}) {
      const std::string moment = name + "/" + kind;
      if (moments.contains(moment)) {
        require(checkpoint.contains(prefix("optimizer/" + moment)),
                "{}: optimizer state: lacks '{}' (another optimizer.name?)",
                checkpoint.path().string(), moment);
        moments[moment] = read(checkpoint, prefix("optimizer/" + moment), i);
      }
    }
  }
  moments["step"] = checkpoint.read(prefix("counters/optimizer_step"));
  optimizer_->load_state(moments);
  if (averaged) {
    average["updates"] = checkpoint.read(prefix("counters/ema_updates"));
  }
  ema_.load_state(average);
  weights_->changed();
  changed(average_);
  if (checkpoint.contains(prefix("counters/health"))) {
    health_.load_state(checkpoint.read(prefix("counters/health")));
  }
}

}  // namespace minwm::train
