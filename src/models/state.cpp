#include "minwm/models/state.h"

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

/// @throws Error unless a module has exactly these parameters.
void require_parameters(const torch::nn::Module& module, const Shapes& shapes,
                        const std::string& where) {
  const auto known = module.named_parameters();
  for (const auto& item : known) {
    const auto found = shapes.find(item.key());
    require(found != shapes.end(), "{}: lacks the parameter '{}'", where, item.key());
    require(item.value().sizes() == at::IntArrayRef(found->second),
            "{}: parameter '{}' has shape {}, expected {}", where, item.key(),
            c10::str(at::IntArrayRef(found->second)), c10::str(item.value().sizes()));
  }
  for (const auto& [name, shape] : shapes) {
    require(known.contains(name), "{}: has a parameter '{}' that the model does not know", where,
            name);
  }
}

}  // namespace

void load_state(torch::nn::Module& module, const std::map<std::string, at::Tensor>& tensors,
                const std::string& where) {
  Shapes shapes;
  for (const auto& [name, tensor] : tensors) {
    shapes[name] = tensor.sizes().vec();
  }
  require_parameters(module, shapes, where);
  at::NoGradGuard no_grad;
  for (auto& item : module.named_parameters()) {
    item.value().copy_(tensors.at(item.key()));
  }
}

std::shared_ptr<parallel::ShardedModel> sharded_runner(const Backbone& model) {
  return std::dynamic_pointer_cast<parallel::ShardedModel>(model.unit_runner());
}

void load_parameters(Backbone& model, const ParameterSource& source) {
  require_parameters(model, source.shapes, source.where);
  at::NoGradGuard no_grad;
  if (const auto sharded = sharded_runner(model)) {
    sharded->load(source.read);
    return;
  }
  for (auto& item : model.named_parameters()) {
    at::Tensor& p = item.value();
    p.copy_(source.read(item.key(), 0, p.numel()).view(p.sizes()));
  }
}

ParameterSource initial_parameters(const Backbone& model, uint64_t seed) {
  ParameterSource source;
  source.where = "initial weights";
  for (const auto& item : model.named_parameters()) {
    source.shapes[item.key()] = item.value().sizes().vec();
  }
  source.read = [&model, seed, shapes = source.shapes](const std::string& name, int64_t begin,
                                                       int64_t count) {
    if (count == 0) {
      return at::empty({0});
    }
    at::Tensor values = at::zeros(shapes.at(name));
    model.initialise(name, values, seed);
    return values.view(-1).narrow(0, begin, count);
  };
  return source;
}

}  // namespace minwm::models
