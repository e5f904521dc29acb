#include "minwm/nn/recompute.h"

namespace minwm::nn {
namespace {

using Block = std::function<at::Tensor(const std::vector<at::Tensor>&)>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Holder : torch::CustomClassHolder {
  explicit Holder(std::shared_ptr<Block> b) : block(std::move(b)) {}
  std::shared_ptr<Block> block;
};

Holder& holder_of(const AutogradContext& context) {
  return static_cast<Holder&>(*context.saved_data.at("block").toCapsule());
}

struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(AutogradContext* context, std::shared_ptr<Block> block,
                            at::TensorList inputs, at::TensorList parameters) {
    context->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
    variable_list saved = inputs.vec();
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(saved);
    context->saved_data["block"] =
        c10::IValue::make_capsule(c10::make_intrusive<Holder>(std::move(block)));
    return (*holder_of(*context).block)(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto count = static_cast<size_t>(context->saved_data["inputs"].toInt());
    const auto saved = context->get_saved_variables();
    variable_list inputs, wanted;
    std::vector<size_t> slots;
    for (size_t i = 0; i < saved.size(); ++i) {
      at::Tensor tensor = saved[i];
      if (i < count) {
        tensor = tensor.defined() ? tensor.detach().requires_grad_(tensor.requires_grad()) : tensor;
        inputs.push_back(tensor);
      }
      if (tensor.defined() && tensor.requires_grad()) {
        wanted.push_back(tensor);
        slots.push_back(i);
      }
    }
    at::Tensor output;
    {
      at::AutoGradMode enable(true);
      output = (*holder_of(*context).block)(inputs);
    }
    const auto found =
        torch::autograd::grad({output}, wanted, gradients, std::nullopt, false, true);
    variable_list result(1 + saved.size());  // the block itself has no gradient
    for (size_t i = 0; i < slots.size(); ++i) {
      result[1 + slots[i]] = found[i];
    }
    return result;
  }
};

}  // namespace

at::Tensor recompute(const Block& block, const std::vector<at::Tensor>& inputs,
                     const std::vector<at::Tensor>& parameters) {
  if (!at::GradMode::is_enabled()) {
    return block(inputs);
  }
  return Recompute::apply(std::make_shared<Block>(block), at::TensorList(inputs),
                          at::TensorList(parameters));
}

}  // namespace minwm::nn
