#include "flat_buffer.h"

#include <algorithm>
#include <utility>

#include "minwm/core/error.h"
#include "minwm/nn/parameters.h"

namespace minwm::parallel {
namespace {

constexpr int64_t kAlign = 16;  // elements: every view starts on a vector register's boundary

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool is_hollow(const at::Tensor& tensor) {
  return tensor.numel() > 0 && tensor.storage().nbytes() == 0;
}

/// Elements [begin, end) of an entry that lie in [first, first + slice) of the flat array.
std::pair<int64_t, int64_t> part_in(const FlatEntry& entry, int64_t first, int64_t slice) {
  const int64_t begin = std::clamp<int64_t>(first - entry.offset, 0, entry.numel);
  const int64_t end = std::clamp<int64_t>(first + slice - entry.offset, begin, entry.numel);
  return {begin, end};
}

}  // namespace

FlatBuffer::FlatBuffer(std::string name, std::vector<FlatEntry> entries, at::ScalarType type,
                       const comm::Mesh& mesh, const ShardOptions& options, GatherCount* count)
    : name_(std::move(name)),
      entries_(std::move(entries)),
      mesh_(&mesh),
      device_(options.device),
      count_(count) {
  at::NoGradGuard no_grad;
  lay_out();
  const at::ScalarType kept = options.trained || options.masters ? at::kFloat : type;
  const auto at_home = at::TensorOptions().device(options.home);
  master_ = at::zeros({slice_}, at_home.dtype(kept));
  if (kept != type) {
    cast_ = at::empty({slice_}, at_home.dtype(type));
  }
  if (options.trained) {
    gradient_ = at::zeros({slice_}, at_home.dtype(at::kFloat));
  }
  for (auto& entry : entries_) {
    const Piece mine = piece(entry);
    if (mine.values.numel() > 0 && !is_hollow(entry.parameter)) {
      mine.values.copy_(
          entry.parameter.detach().reshape(-1).narrow(0, mine.begin, mine.values.numel()));
    }
  }
  full_ = at::empty({slice_ * mesh.parameters->size()}, at::dtype(type).device(device_));
  for (auto& entry : entries_) {  // while full has its memory: a view outside of it is refused
    entry.parameter.set_data(full_.narrow(0, entry.offset, entry.numel).view(entry.shape));
    if (!options.trained) {
      entry.parameter.requires_grad_(false);
    }
  }
  nn::release_storage(full_);
}

void FlatBuffer::lay_out() {
  int64_t total = 0;
  for (auto& entry : entries_) {
    entry.shape = entry.parameter.sizes().vec();
    entry.numel = entry.parameter.numel();
    entry.offset = total;
    total += round_up(entry.numel, kAlign);
  }
  const int64_t ranks = mesh_->parameters->size();
  slice_ = round_up(total, kAlign * ranks) / ranks;
}

Piece FlatBuffer::piece(const FlatEntry& entry) const {
  const int64_t first = slice_ * mesh_->parameters->rank();
  const auto [begin, end] = part_in(entry, first, slice_);
  Piece piece{
      .name = entry.name, .shape = entry.shape, .begin = begin, .values = {}, .gradient = {}};
  const int64_t at = end > begin ? entry.offset + begin - first : 0;
  piece.values = master_.narrow(0, at, end - begin);
  if (gradient_.defined()) {
    piece.gradient = gradient_.narrow(0, at, end - begin);
  }
  return piece;
}

at::Tensor FlatBuffer::gather_entry(const FlatEntry& entry) const {
  const Piece mine = piece(entry);
  at::Tensor whole = at::empty({entry.numel}, master_.options().device(device_));
  whole.narrow(0, mine.begin, mine.values.numel()).copy_(mine.values);
  for (int rank = 0; rank < mesh_->parameters->size(); ++rank) {
    const auto [begin, end] = part_in(entry, slice_ * rank, slice_);
    if (end > begin) {
      mesh_->parameters->broadcast(whole.narrow(0, begin, end - begin), rank,
                                   "parameter " + entry.name);
    }
  }
  return whole.view(entry.shape);
}

at::Tensor FlatBuffer::to_send() {
  if (cast_.defined() && std::exchange(sent_is_stale_, false)) {
    cast_.copy_(master_);
  }
  return (cast_.defined() ? cast_ : master_).to(device_);
}

void FlatBuffer::start_gather() {
  at::NoGradGuard no_grad;
  TORCH_INTERNAL_ASSERT(gather_ == nullptr && is_hollow(full_), name_, " is gathered already");
  nn::allocate_storage(full_);
  sent_ = to_send();
  gather_ = mesh_->parameters->all_gather_async(sent_, full_, "gather " + name_);
  ++count_->gathers;
  count_->gathered += static_cast<int64_t>(full_.nbytes());
  count_->gathered_peak = std::max(count_->gathered_peak, count_->gathered);
}

void FlatBuffer::finish_gather() {
  if (gather_ != nullptr) {
    gather_->wait();
    gather_ = nullptr;
    sent_.reset();
  }
}

void FlatBuffer::release() {
  // On a GPU the memory goes back in the order of the compute stream: wait() has put that stream
  // behind the gather, and a gather that takes the memory again starts behind what the compute
  // stream holds then. Nobody still writes it, and a CPU that runs ahead needs no more of it than
  // one that does not.
  nn::release_storage(full_);
  count_->gathered -= full_.numel() * static_cast<int64_t>(full_.element_size());
}

void FlatBuffer::add_gradient(FlatEntry& entry, const at::Tensor& gradient) {
  at::NoGradGuard no_grad;
  if (!flat_gradient_.defined()) {
    flat_gradient_ = at::empty({full_.numel()}, at::dtype(at::kFloat).device(device_));
  }
  at::Tensor place = flat_gradient_.narrow(0, entry.offset, entry.numel).view(entry.shape);
  if (std::exchange(entry.filled, true)) {
    place.add_(gradient);
  } else {
    place.copy_(gradient);
  }
  entry.touched = true;
}

void FlatBuffer::zero_gaps() {
  int64_t at = 0;
  for (auto& entry : entries_) {
    if (std::exchange(entry.filled, false)) {
      flat_gradient_.narrow(0, at, entry.offset - at).zero_();
      at = entry.offset + entry.numel;
    }
  }
  flat_gradient_.narrow(0, at, flat_gradient_.numel() - at).zero_();
}

FlatReduction FlatBuffer::start_reduction() {
  at::NoGradGuard no_grad;
  if (!flat_gradient_.defined()) {
    flat_gradient_ = at::empty({full_.numel()}, at::dtype(at::kFloat).device(device_));
  }
  zero_gaps();
  FlatReduction reduction;
  reduction.full = std::exchange(flat_gradient_, at::Tensor());
  // The step's first sum needs no buffer of its own.
  const bool direct = std::exchange(gradient_is_zero_, false) && gradient_.device() == device_;
  reduction.slice = direct ? gradient_ : at::empty({slice_}, reduction.full.options());
  reduction.work =
      mesh_->gradients->reduce_scatter_async(reduction.full, reduction.slice, "reduce " + name_);
  ++count_->reductions;
  return reduction;
}

void FlatBuffer::finish_reduction(FlatReduction& reduction) {
  at::NoGradGuard no_grad;
  reduction.work->wait();
  if (!reduction.slice.is_same(gradient_)) {
    gradient_.add_(reduction.slice.to(gradient_.device()));
  }
  reduction = {};
}

void FlatBuffer::start_replicas() {
  at::NoGradGuard no_grad;
  replicas_.slice = gradient_.to(device_);
  replicas_.work = mesh_->replicate->all_reduce_async(replicas_.slice, "replicas " + name_);
}

void FlatBuffer::finish_replicas() {
  at::NoGradGuard no_grad;
  replicas_.work->wait();
  if (!replicas_.slice.is_same(gradient_)) {
    gradient_.copy_(replicas_.slice);
  }
  replicas_ = {};
}

void FlatBuffer::zero_gradient() {
  for (auto& entry : entries_) {
    entry.touched = false;
  }
  if (gradient_.defined()) {
    gradient_.zero_();
  }
  gradient_is_zero_ = true;
}

int64_t FlatBuffer::slice_bytes() const {
  return static_cast<int64_t>(master_.nbytes() + (cast_.defined() ? cast_.nbytes() : 0));
}

int64_t FlatBuffer::gradient_bytes() const {
  return gradient_.defined() ? static_cast<int64_t>(gradient_.nbytes()) : 0;
}

}  // namespace minwm::parallel
