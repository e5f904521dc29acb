#include "minwm/models/state.h"

#include <algorithm>

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

bool matches(const std::string& name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return !pattern.empty() && name.find(pattern) != std::string::npos;
  });
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

CompletedSource complete(const ParameterSource& source, const ParameterSource& initial,
                         const Allowance& allowed) {
  CompletedSource out;
  out.source.where = source.where;
  Shapes absent;
  for (const auto& [name, shape] : initial.shapes) {
    if (!source.shapes.contains(name) && matches(name, allowed.missing)) {
      absent[name] = shape;
      out.initial.push_back(name);
    }
  }
  for (const auto& [name, shape] : source.shapes) {
    if (!initial.shapes.contains(name) && matches(name, allowed.extra)) {
      out.ignored.push_back(name);
    } else {
      out.source.shapes[name] = shape;
    }
  }
  out.source.shapes.insert(absent.begin(), absent.end());
  out.source.read = [given = source.read, own = initial.read, absent = std::move(absent)](
                        const std::string& name, int64_t begin, int64_t count) {
    return absent.contains(name) ? own(name, begin, count) : given(name, begin, count);
  };
  return out;
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
