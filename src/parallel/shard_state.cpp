#include "shard_state.h"

#include <algorithm>
#include <exception>

#include <torch/torch.h>

#include "minwm/comm/communicator.h"
#include "minwm/core/error.h"

namespace minwm::parallel {
namespace {

/// Calls an action with each gradient that autograd has accumulated for a parameter.
class GradientHook : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit GradientHook(std::function<void()> action) : action_(std::move(action)) {}
  void operator()(const torch::autograd::Variable&) override { action_(); }

 private:
  std::function<void()> action_;
};

}  // namespace

ShardState::ShardState(std::string model, comm::Mesh ranks, const ShardOptions& how)
    : name(std::move(model)), mesh(std::move(ranks)), options(how) {}

ShardState::~ShardState() {
  // The modules keep their parameters, whose hooks must not come back here.
  each_buffer([](const FlatBuffer& buffer) {
    for (const auto& entry : buffer.entries()) {
      torch::autograd::impl::post_acc_grad_hooks(entry.parameter).reset();
    }
  });
}

void ShardState::take(FlatUnit& unit, std::vector<FlatEntry> entries, at::ScalarType matrices) {
  std::vector<FlatEntry> in_compute, in_float;
  for (auto& entry : entries) {
    const bool narrow = matrices != at::kFloat && entry.parameter.dim() == 2;
    (narrow ? in_compute : in_float).push_back(std::move(entry));
  }
  const auto add = [&](const std::string& label, std::vector<FlatEntry> of, at::ScalarType type) {
    if (!of.empty()) {
      unit.buffers.push_back(
          std::make_unique<FlatBuffer>(label, std::move(of), type, mesh, options, &count));
      watch(*unit.buffers.back());
    }
  };
  add(unit.name + " matrices", std::move(in_compute), matrices);
  add(unit.name, std::move(in_float), at::kFloat);
  for (const auto& buffer : unit.buffers) {
    for (const auto& entry : buffer->entries()) {
      if (entry.parameter.requires_grad()) {
        unit.trained.push_back(entry.parameter);
      }
    }
  }
}

void ShardState::watch(FlatBuffer& buffer) {
  for (auto& entry : buffer.entries()) {
    if (entry.parameter.requires_grad()) {
      torch::autograd::impl::set_post_acc_grad_hooks(
          entry.parameter, std::make_unique<GradientHook>(
                               [this, &buffer, &entry] { take_gradient(buffer, entry); }));
    }
  }
}

void ShardState::take_gradient(FlatBuffer& buffer, FlatEntry& entry) {
  buffer.add_gradient(entry, entry.parameter.grad());
  entry.parameter.mutable_grad().reset();
}

std::shared_ptr<void> ShardState::begin() {
  acquire(root);
  if (at::GradMode::is_enabled()) {
    order = std::make_shared<RunOrder>();
    if (!root_recorded_) {
      acquire(root);
      root_recorded_ = true;
    }
  }
  return {this, [state = shared_from_this()](void*) { state->leave(); }};
}

void ShardState::leave() {
  try {
    release(root);
    // While an exception passes, other ranks may be elsewhere: nothing is waited for.
    if (std::uncaught_exceptions() == 0) {
      gather_ahead({});
    }
  } catch (...) {
    // This runs where a handle goes, from where nothing can be thrown.
    const Failure failure = current_failure();
    comm::abort_job(fmt::format("{}: {}", name, failure.message), failure.exit_code);
  }
}

void ShardState::acquire(FlatUnit& unit) {
  if (unit.uses == 0 && !unit.ahead) {
    for (const auto& buffer : unit.buffers) {
      buffer->start_gather();
    }
  }
  for (const auto& buffer : unit.buffers) {
    buffer->finish_gather();
  }
  unit.ahead = false;
  ++unit.uses;
}

void ShardState::release(FlatUnit& unit) {
  if (--unit.uses == 0) {
    for (const auto& buffer : unit.buffers) {
      buffer->release();
    }
  }
}

void ShardState::gather_ahead(const std::vector<size_t>& wanted) {
  for (const size_t index : ahead_) {
    FlatUnit& unit = units[index];
    if (unit.ahead && std::find(wanted.begin(), wanted.end(), index) == wanted.end()) {
      acquire(unit);
      release(unit);
    }
  }
  for (const size_t index : wanted) {
    FlatUnit& unit = units[index];
    if (unit.uses == 0 && !unit.ahead) {
      for (const auto& buffer : unit.buffers) {
        buffer->start_gather();
      }
      unit.ahead = true;
    }
  }
  ahead_ = wanted;
}

std::vector<size_t> ShardState::following(size_t index) const {
  std::vector<size_t> found;
  for (size_t i = index + 1;
       i < units.size() && found.size() < static_cast<size_t>(options.prefetch); ++i) {
    found.push_back(i);
  }
  return found;
}

std::vector<size_t> ShardState::preceding(const RunOrder& run, size_t position) const {
  std::vector<size_t> found;
  for (size_t i = position; i > 0 && found.size() < static_cast<size_t>(options.prefetch); --i) {
    found.push_back(run[i - 1]);
  }
  return found;
}

bool ShardState::has_flat_gradient(const FlatUnit& unit) const {
  return std::any_of(unit.buffers.begin(), unit.buffers.end(),
                     [](const auto& buffer) { return buffer->has_flat_gradient(); });
}

void ShardState::backward_done(FlatUnit& unit) {
  if (unit.trained.empty()) {
    return;
  }
  // With kept activations autograd adds all calls' gradients up before it hands them over: a call
  // that brought none waits for the last. With one reduction per step the last call reduces.
  const bool due = options.reduce_each ? options.recompute || has_flat_gradient(unit)
                                       : reduce_now && unit.pending == 0;
  if (due) {
    reduce(unit);
  }
}

void ShardState::reduce(FlatUnit& unit) {
  finish_reductions();
  Pending pending{&unit, {}};
  for (const auto& buffer : unit.buffers) {
    pending.reductions.push_back(buffer->start_reduction());
  }
  reductions_.push_back(std::move(pending));
}

void ShardState::finish_reductions() {
  for (; !reductions_.empty(); reductions_.pop_front()) {
    Pending& first = reductions_.front();
    for (size_t i = 0; i < first.reductions.size(); ++i) {
      first.unit->buffers[i]->finish_reduction(first.reductions[i]);
    }
  }
}

void ShardState::reduce_leftovers() {
  for (auto& unit : units) {
    if (has_flat_gradient(unit)) {
      reduce(unit);
    }
  }
  if (has_flat_gradient(root)) {
    reduce(root);
  }
}

void ShardState::end_backward() {
  for (const auto& close : std::exchange(closers_, {})) {
    close();
  }
  gather_ahead({});
  if (std::exchange(root_recorded_, false)) {
    release(root);
  }
  if (std::exchange(reduce_now, false) || options.reduce_each) {
    reduce_leftovers();
  }
}

void ShardState::finish_gradients() {
  reduce_leftovers();
  finish_reductions();
  if (options.trained && mesh.replicate->size() > 1) {
    // Two at a time: each takes memory for what it receives.
    FlatBuffer* before = nullptr;
    each_buffer([&](FlatBuffer& buffer) {
      buffer.start_replicas();
      if (before != nullptr) {
        before->finish_replicas();
      }
      before = &buffer;
    });
    if (before != nullptr) {
      before->finish_replicas();
    }
  }
  assert_idle();
}

void ShardState::assert_idle() const {
  require(reductions_.empty(), "{}: the reduction of {} is still under way", name,
          reductions_.empty() ? "" : reductions_.front().unit->name);
  each_unit([this](const FlatUnit& unit) {
    require(unit.uses == 0, "{}: {} is still gathered", name, unit.name);
    require(!unit.ahead, "{}: {} was gathered ahead and is not needed", name, unit.name);
    require(!has_flat_gradient(unit), "{}: {} has gradients that were not reduced", name,
            unit.name);
  });
}

}  // namespace minwm::parallel
