// How a sharded unit runs: gathered for the moment, in forward and again in backward. Source:
// parallel.md section 3.1.

#include "sharded_run.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <torch/torch.h>

#include "minwm/nn/given_inputs.h"

namespace minwm::parallel {
namespace {

using nn::Tensors;
using nn::UnitFunction;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// One run of a unit that is part of a graph.
struct RecordedCall {
  RecordedCall(std::shared_ptr<ShardState> model, size_t index)
      : state(std::move(model)), unit(state->units[index]), order(state->order) {
    position = order->size();
    order->push_back(index);
    ++unit.pending;
  }
  ~RecordedCall() { settle(); }
  RecordedCall(const RecordedCall&) = delete;
  RecordedCall& operator=(const RecordedCall&) = delete;

  /// Its backward is over, or will never be.
  void settle() { unit.pending -= std::exchange(waits, false) ? 1 : 0; }
  void gather_ahead() { state->gather_ahead(state->preceding(*order, position)); }

  std::shared_ptr<ShardState> state;
  FlatUnit& unit;
  std::shared_ptr<RunOrder> order;
  size_t position = 0;
  bool waits = true;
};

// --- Recomputed: the graph keeps a unit's inputs only.

struct RecomputedCall : torch::CustomClassHolder {
  RecomputedCall(std::shared_ptr<ShardState> model, size_t index, UnitFunction f,
                 nn::GivenInputs inputs)
      : call(std::move(model), index), function(std::move(f)), given(std::move(inputs)) {}

  RecordedCall call;
  UnitFunction function;
  nn::GivenInputs given;
};

/// Runs the unit again from `inputs` and leaves gradients in their and the parameters' grad().
void run_backward(RecomputedCall& recomputed, const variable_list& inputs,
                  variable_list& gradients) {
  const UnitUse use(*recomputed.call.state, recomputed.call.unit);
  recomputed.call.gather_ahead();
  variable_list wanted;
  const auto want = [&wanted](const variable_list& tensors) {
    std::copy_if(tensors.begin(), tensors.end(), std::back_inserter(wanted),
                 [](const at::Tensor& tensor) { return tensor.requires_grad(); });
  };
  want(recomputed.call.unit.trained);
  want(inputs);
  variable_list outputs, incoming;
  at::AutoGradMode enable(true);
  const Tensors all = recomputed.function(recomputed.given.all(inputs));
  for (size_t i = 0; i < all.size(); ++i) {
    if (gradients[i].defined() && all[i].requires_grad()) {
      outputs.push_back(all[i]);
      incoming.push_back(std::move(gradients[i]));
    }
  }
  // The unit before had this long to sum its gradients; their memory is needed now.
  recomputed.call.state->finish_reductions();
  if (!outputs.empty() && !wanted.empty()) {
    torch::autograd::backward(outputs, incoming, std::nullopt, false, wanted);
  }
}

struct Recompute : torch::autograd::Function<Recompute> {
  /// `present`: the defined inputs, then perhaps an anchor that makes autograd come back here.
  static variable_list forward(AutogradContext* context,
                               c10::intrusive_ptr<RecomputedCall> recomputed,
                               at::TensorList present) {
    context->save_for_backward(present.vec());
    context->set_materialize_grads(false);
    context->saved_data["call"] = c10::IValue::make_capsule(recomputed);
    const RecordedCall& call = recomputed->call;
    const UnitUse use(*call.state, call.unit);
    call.state->gather_ahead(call.state->following((*call.order)[call.position]));
    return recomputed->function(recomputed->given.all(present.vec()));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a sharded unit has no second derivatives");
    auto& recomputed = static_cast<RecomputedCall&>(*context->saved_data.at("call").toCapsule());
    variable_list present = context->get_saved_variables();
    for (auto& input : present) {
      input = input.detach().requires_grad_(input.requires_grad());
    }
    run_backward(recomputed, present, gradients);
    recomputed.call.settle();
    recomputed.call.state->backward_done(recomputed.call.unit);
    variable_list result(1);  // the call has no gradient
    for (const auto& input : present) {
      result.push_back(input.grad());
    }
    return result;
  }
};

// --- Kept: the graph keeps activations, but not the weights under them.

class KeptCall : public std::enable_shared_from_this<KeptCall> {
 public:
  KeptCall(std::shared_ptr<ShardState> model, size_t index) : call_(std::move(model), index) {}

  /// Backward reaches an output.
  void open() {
    if (std::exchange(opened_, true)) {
      return;
    }
    call_.state->acquire(call_.unit);
    call_.gather_ahead();
    // Where no input wants a gradient only the end of backward closes.
    call_.state->release_at_end([self = shared_from_this()] { self->close(); });
  }

  /// Backward leaves through the first input. All of the unit's nodes have run by then: they were
  /// made after the inputs' own, and autograd prefers younger nodes.
  void close() {
    if (!opened_ || std::exchange(closed_, true)) {
      return;
    }
    call_.state->release(call_.unit);
    call_.settle();
    call_.state->backward_done(call_.unit);
  }

 private:
  RecordedCall call_;
  bool opened_ = false, closed_ = false;
};

/// The tensor with a node of its own in the graph, whose gradient calls `action` first.
template <class Action>
at::Tensor with_hook(const at::Tensor& tensor, const Action& action) {
  if (!tensor.defined() || !tensor.requires_grad()) {
    return tensor;
  }
  at::Tensor view = tensor.view_as(tensor);
  view.register_hook([action](const at::Tensor&) { action(); });
  return view;
}

}  // namespace

Tensors run_plain(ShardState& state, size_t index, const UnitFunction& function,
                  const Tensors& inputs) {
  at::NoGradGuard no_grad;
  const UnitUse use(state, state.units[index]);
  state.gather_ahead(state.following(index));
  return function(inputs);
}

Tensors run_recomputed(const std::shared_ptr<ShardState>& state, size_t index,
                       const UnitFunction& function, const Tensors& inputs, bool anchored) {
  const nn::GivenInputs given(inputs);
  variable_list present = given.present(inputs);
  if (anchored) {
    present.push_back(at::zeros({}, at::kFloat).requires_grad_(true));
  }
  return Recompute::apply(c10::make_intrusive<RecomputedCall>(state, index, function, given),
                          at::TensorList(present));
}

Tensors run_kept(const std::shared_ptr<ShardState>& state, size_t index,
                 const UnitFunction& function, const Tensors& inputs) {
  const auto call = std::make_shared<KeptCall>(state, index);
  Tensors own;
  for (const auto& input : inputs) {
    own.push_back(with_hook(input, [call] { call->close(); }));
  }
  const UnitUse use(*state, state->units[index]);
  state->gather_ahead(state->following(index));
  Tensors outputs = function(own);
  for (auto& output : outputs) {
    output = with_hook(output, [call] { call->open(); });
  }
  return outputs;
}

}  // namespace minwm::parallel
