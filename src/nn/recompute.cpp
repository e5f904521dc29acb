#include "minwm/nn/recompute.h"

#include "minwm/nn/given_inputs.h"

namespace minwm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Holder : torch::CustomClassHolder {
  explicit Holder(UnitFunction f) : block(std::move(f)) {}
  UnitFunction block;
};

Holder& holder_of(const AutogradContext& context) {
  return static_cast<Holder&>(*context.saved_data.at("block").toCapsule());
}

struct Recompute : torch::autograd::Function<Recompute> {
  static variable_list forward(AutogradContext* context, const UnitFunction& block,
                               at::TensorList inputs, at::TensorList parameters) {
    context->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
    variable_list saved = inputs.vec();
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    context->saved_data["block"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(block));
    return block(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto count = static_cast<size_t>(context->saved_data["inputs"].toInt());
    const auto saved = context->get_saved_variables();
    variable_list inputs, wanted;
    std::vector<size_t> slots;
    for (size_t i = 0; i < saved.size(); ++i) {
      at::Tensor tensor = saved[i];
      if (i < count) {
        tensor = tensor.detach().requires_grad_(tensor.requires_grad());
        inputs.push_back(tensor);
      }
      if (tensor.defined() && tensor.requires_grad()) {
        wanted.push_back(tensor);
        slots.push_back(i);
      }
    }
    variable_list outputs, incoming;
    {
      at::AutoGradMode enable(true);
      const Tensors all = holder_of(*context).block(inputs);
      for (size_t i = 0; i < all.size(); ++i) {
        if (gradients[i].defined() && all[i].requires_grad()) {
          outputs.push_back(all[i]);
          incoming.push_back(gradients[i]);
        }
      }
    }
    variable_list result(1 + saved.size());  // the block itself has no gradient
    if (!outputs.empty() && !wanted.empty()) {
      const auto found =
          torch::autograd::grad(outputs, wanted, incoming, std::nullopt, false, true);
      for (size_t i = 0; i < slots.size(); ++i) {
        result[1 + slots[i]] = found[i];
      }
    }
    return result;
  }
};

}  // namespace

Tensors recompute(const UnitFunction& block, const Tensors& inputs,
                  const std::vector<at::Tensor>& parameters) {
  if (!at::GradMode::is_enabled()) {
    return block(inputs);
  }
  const GivenInputs given(inputs);
  const UnitFunction of_given = [block, given](const Tensors& present) {
    return block(given.all(present));
  };
  const Tensors present = given.present(inputs);
  return Recompute::apply(of_given, at::TensorList(present), at::TensorList(parameters));
}

}  // namespace minwm::nn
