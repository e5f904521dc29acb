#include "minwm/parallel/sharded_model.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "minwm/core/error.h"
#include "shard_state.h"
#include "sharded_run.h"

namespace minwm::parallel {

struct ShardedModel::Impl {
  std::shared_ptr<ShardState> state;
  /// Where each parameter is.
  struct Place {
    FlatBuffer* buffer;
    FlatEntry* entry;
  };
  std::unordered_map<std::string, Place> places;

  const Place& place(const std::string& name) const {
    const auto found = places.find(name);
    require(found != places.end(), "{}: there is no parameter '{}'", state->name, name);
    return found->second;
  }
};

namespace {

/// Which unit each parameter belongs to; those not in it belong to the root.
std::unordered_map<const void*, size_t> owners(
    const std::string& model, const std::vector<std::shared_ptr<torch::nn::Module>>& units) {
  std::unordered_map<const void*, size_t> owner;
  for (size_t i = 0; i < units.size(); ++i) {
    for (const auto& item : units[i]->named_parameters()) {
      const auto [at, added] = owner.emplace(item.value().unsafeGetTensorImpl(), i);
      require(added, "{}: parameter '{}' of unit {} also belongs to unit {}", model, item.key(), i,
              at->second);
    }
  }
  return owner;
}

/// "blocks.3" as the model calls it.
std::string unit_name(torch::nn::Module& root, const torch::nn::Module* unit, size_t index) {
  for (const auto& item : root.named_modules()) {
    if (item.value().get() == unit && !item.key().empty()) {
      return item.key();
    }
  }
  return fmt::format("unit {}", index);
}

void check(const std::string& name, const ShardOptions& options) {
  require(options.compute == at::kFloat || options.compute == at::kBFloat16,
          "{}: compute type {}, expected float32 or bfloat16", name,
          c10::toString(options.compute));
  require(options.prefetch >= 0, "{}: prefetch {}, expected 0 or more units", name,
          options.prefetch);
}

}  // namespace

ShardedModel::ShardedModel(std::string name, torch::nn::Module& root,
                           const std::vector<std::shared_ptr<torch::nn::Module>>& units,
                           const comm::Mesh& mesh, const ShardOptions& options)
    : impl_(std::make_unique<Impl>()) {
  check(name, options);
  impl_->state = std::make_shared<ShardState>(std::move(name), mesh, options);
  ShardState& state = *impl_->state;
  const auto owner = owners(state.name, units);
  std::vector<std::vector<FlatEntry>> entries(units.size() + 1);  // the root's are the last
  std::vector<std::string> names;
  std::unordered_map<const void*, std::string> seen;
  for (const auto& item : root.named_parameters()) {
    const void* id = item.value().unsafeGetTensorImpl();
    const auto [first, added] = seen.emplace(id, item.key());
    require(added, "{}: '{}' and '{}' are one parameter", state.name, first->second, item.key());
    const auto found = owner.find(id);
    FlatEntry entry;
    entry.name = item.key();
    entry.parameter = item.value();
    entries[found == owner.end() ? units.size() : found->second].push_back(std::move(entry));
    names.push_back(item.key());
  }
  require(std::all_of(owner.begin(), owner.end(),
                      [&](const auto& item) { return seen.contains(item.first); }),
          "{}: a unit has parameters that the model has not", state.name);
  state.units.resize(units.size());
  for (size_t i = 0; i < units.size(); ++i) {
    state.units[i].name = state.name + "." + unit_name(root, units[i].get(), i);
    state.take(state.units[i], std::move(entries[i]), options.compute);
  }
  state.root.name = state.name + " root";
  state.take(state.root, std::move(entries.back()), at::kFloat);
  state.each_buffer([this](FlatBuffer& buffer) {
    for (auto& entry : buffer.entries()) {
      impl_->places[entry.name] = {&buffer, &entry};
    }
  });
  for (const auto& each : names) {
    const auto& place = impl_->place(each);
    state.pieces.push_back(place.buffer->piece(*place.entry));
  }
}

ShardedModel::~ShardedModel() = default;

std::shared_ptr<void> ShardedModel::begin() {
  return impl_->state->begin();
}

nn::Tensors ShardedModel::run(size_t index, const nn::UnitFunction& function,
                              const nn::Tensors& inputs) {
  const auto& state = impl_->state;
  require(index < state->units.size(), "{}: unit {} of {}", state->name, index,
          state->units.size());
  const bool from_inputs = std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor& x) {
    return x.defined() && x.requires_grad();
  });
  const bool trained = !state->units[index].trained.empty();
  if (!at::GradMode::is_enabled() || !(from_inputs || trained)) {
    return run_plain(*state, index, function, inputs);
  }
  return state->options.recompute ? run_recomputed(state, index, function, inputs, !from_inputs)
                                  : run_kept(state, index, function, inputs);
}

bool ShardedModel::recomputes() const {
  return impl_->state->options.recompute;
}

const std::string& ShardedModel::name() const {
  return impl_->state->name;
}

const ShardOptions& ShardedModel::options() const {
  return impl_->state->options;
}

const std::vector<Piece>& ShardedModel::pieces() const {
  return impl_->state->pieces;
}

void ShardedModel::load(
    const std::function<at::Tensor(const std::string& name, int64_t begin, int64_t count)>& read) {
  at::NoGradGuard no_grad;
  for (const auto& piece : impl_->state->pieces) {
    const int64_t count = piece.values.numel();
    if (count == 0) {
      continue;
    }
    const at::Tensor values = read(piece.name, piece.begin, count);
    require(values.defined() && values.dim() == 1 && values.numel() == count,
            "{}: '{}' was read with shape {}, expected [{}]", name(), piece.name,
            values.defined() ? fmt::format("[{}]", fmt::join(values.sizes(), ", ")) : "none",
            count);
    piece.values.copy_(values);
  }
  weights_changed();
}

void ShardedModel::weights_changed() {
  // A unit that is gathered would keep its old values; a graph would be run again with new ones.
  assert_idle();
  impl_->state->each_buffer([](FlatBuffer& buffer) { buffer.values_changed(); });
}

at::Tensor ShardedModel::gather_parameter(const std::string& parameter) const {
  const auto& place = impl_->place(parameter);
  return place.buffer->gather_entry(*place.entry);
}

void ShardedModel::begin_step() {
  assert_idle();
  impl_->state->reduce_now = false;
  impl_->state->each_buffer([](FlatBuffer& buffer) { buffer.zero_gradient(); });
}

void ShardedModel::reduce_in_backward() {
  impl_->state->reduce_now = true;
}

void ShardedModel::end_backward() {
  impl_->state->end_backward();
}

void ShardedModel::finish_gradients() {
  impl_->state->finish_gradients();
}

bool ShardedModel::touched(const std::string& parameter) const {
  return impl_->place(parameter).entry->touched;
}

void ShardedModel::assert_idle() const {
  impl_->state->assert_idle();
}

ShardedModel::Bytes ShardedModel::bytes() const {
  Bytes bytes;
  impl_->state->each_buffer([&](const FlatBuffer& buffer) {
    bytes.slices += buffer.slice_bytes();
    bytes.gradients += buffer.gradient_bytes();
  });
  bytes.gathered_peak = impl_->state->count.gathered_peak;
  return bytes;
}

ShardedModel::Calls ShardedModel::calls() const {
  const GatherCount& count = impl_->state->count;
  return {count.gathers, count.reductions};
}

}  // namespace minwm::parallel
