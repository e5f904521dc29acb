#include "minwm/parallel/context.h"

#include <torch/torch.h>

#include "context_exchange.h"
#include "context_ring.h"
#include "minwm/core/error.h"
#include "minwm/nn/attention.h"

namespace minwm::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Rows piece(int64_t tokens, int64_t index, int64_t pieces) {
  const int64_t begin = tokens * index / pieces;
  return {begin, tokens * (index + 1) / pieces - begin};
}

/// One axis of a tensor, spread over ranks.
struct Axis : torch::CustomClassHolder {
  std::shared_ptr<comm::Communicator> ranks;
  int64_t axis = 0, tokens = 0;
  Rows rows(int64_t rank) const { return piece(tokens, rank, ranks->size()); }
  Rows own() const { return rows(ranks->rank()); }
  /// Rows that every rank's buffer has room for.
  int64_t most() const { return (tokens + ranks->size() - 1) / ranks->size(); }
};

using AxisPtr = c10::intrusive_ptr<Axis>;

at::Tensor take(const Axis& a, const at::Tensor& x, int64_t rank) {
  const Rows rows = a.rows(rank);
  return x.narrow(a.axis, rows.begin, rows.count);
}

/// x with `most` rows in front: [most, …], of which the first count.
std::vector<int64_t> padded_shape(const Axis& a, const at::Tensor& x) {
  auto shape = x.movedim(a.axis, 0).sizes().vec();
  shape[0] = a.most();
  return shape;
}

/// Of a buffer with a rank's rows in front, those that count, back on their axis.
at::Tensor counted(const Axis& a, const at::Tensor& padded, int64_t rank) {
  return padded.narrow(0, 0, a.rows(rank).count).movedim(0, a.axis);
}

at::Tensor gather_all(const Axis& a, const at::Tensor& x) {
  const int64_t ranks = a.ranks->size();
  auto shape = padded_shape(a, x);
  const at::Tensor mine = at::empty(shape, x.options());
  counted(a, mine, a.ranks->rank()).copy_(x);
  shape.insert(shape.begin(), ranks);
  const at::Tensor all = at::empty(shape, x.options());
  a.ranks->all_gather(mine, all, "context gather");
  auto whole = x.sizes().vec();
  whole[static_cast<size_t>(a.axis)] = a.tokens;
  at::Tensor out = at::empty(whole, x.options());
  for (int64_t rank = 0; rank < ranks; ++rank) {
    take(a, out, rank).copy_(counted(a, all[rank], rank));
  }
  return out;
}

/// This rank's rows of the sum over ranks.
at::Tensor reduce_own(const Axis& a, const at::Tensor& x) {
  const int64_t ranks = a.ranks->size();
  auto shape = padded_shape(a, x);
  const at::Tensor mine = at::empty(shape, x.options());
  shape.insert(shape.begin(), ranks);
  const at::Tensor all = at::zeros(shape, x.options());
  for (int64_t rank = 0; rank < ranks; ++rank) {
    counted(a, all[rank], rank).copy_(take(a, x, rank));
  }
  a.ranks->reduce_scatter(all, mine, "context reduce");
  return counted(a, mine, a.ranks->rank()).contiguous();
}

AxisPtr axis_of(const AutogradContext& context) {
  return c10::static_intrusive_pointer_cast<Axis>(context.saved_data.at("axis").toCapsule());
}

struct Scatter : torch::autograd::Function<Scatter> {
  static at::Tensor forward(AutogradContext* context, const AxisPtr& axis, const at::Tensor& x) {
    context->saved_data["axis"] = c10::IValue::make_capsule(axis);
    return take(*axis, x, axis->ranks->rank()).clone(at::MemoryFormat::Contiguous);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {at::Tensor(), gather_all(*axis_of(*context), gradients[0])};
  }
};

/// `summed`: the incoming gradient is a share (join); else it is the same on all ranks (gather).
struct Gather : torch::autograd::Function<Gather> {
  static at::Tensor forward(AutogradContext* context, const AxisPtr& axis, bool summed,
                            const at::Tensor& x) {
    context->saved_data["axis"] = c10::IValue::make_capsule(axis);
    context->saved_data["summed"] = summed;
    return gather_all(*axis, x);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const AxisPtr axis = axis_of(*context);
    const bool summed = context->saved_data["summed"].toBool();
    return {
        at::Tensor(), at::Tensor(),
        summed ? reduce_own(*axis, gradients[0]) : take(*axis, gradients[0], axis->ranks->rank())};
  }
};

AxisPtr make_axis(const std::shared_ptr<comm::Communicator>& ranks, int64_t axis, int64_t tokens) {
  auto made = c10::make_intrusive<Axis>();
  made->ranks = ranks;
  made->axis = axis;
  made->tokens = tokens;
  return made;
}

/// What `to_heads` and `to_rows` share.
HeadExchangePtr make_exchange(const std::shared_ptr<comm::Communicator>& group,
                              const comm::Communicator& ring, int64_t frames,
                              const nn::FrameRows& tokens, int64_t heads, int64_t paths) {
  require(heads >= group->size(),
          "parallel.ulysses {}: the model has only {} attention heads to share; let more of "
          "parallel.context form a ring",
          group->size(), heads);
  auto made = c10::make_intrusive<HeadExchange>();
  made->group = group;
  made->ring_index = ring.rank();
  made->groups = ring.size();
  made->frames = frames;
  made->tokens = tokens;
  made->heads = heads;
  made->paths = paths;
  return made;
}

}  // namespace

Context::Context(const comm::Mesh& mesh)
    : all_(mesh.context), ulysses_(mesh.ulysses), ring_(mesh.ring), size_(mesh.context->size()) {}

Rows Context::rows(int64_t tokens) const {
  return size_ == 1 ? Rows{0, tokens} : piece(tokens, all_->rank(), size_);
}

Rows Context::portion(int64_t tokens) const {
  return size_ == 1 ? Rows{0, tokens} : piece(tokens, ring_->rank(), ring_->size());
}

at::Tensor Context::portion_of(const at::Tensor& table, int64_t tokens) const {
  if (size_ == 1 || ring_->size() == 1) {
    return table;
  }
  const Rows own = portion(tokens);
  return table.unflatten(0, {-1, tokens}).narrow(1, own.begin, own.count).flatten(0, 1);
}

at::Tensor Context::scatter(const at::Tensor& x, int64_t axis) const {
  return size_ == 1 ? x : Scatter::apply(make_axis(all_, axis, x.size(axis)), x);
}

at::Tensor Context::gather(const at::Tensor& x, int64_t axis, int64_t tokens) const {
  return size_ == 1 ? x : Gather::apply(make_axis(all_, axis, tokens), false, x);
}

at::Tensor Context::split(const at::Tensor& x, int64_t axis) const {
  return size_ == 1 ? x : take(*make_axis(all_, axis, x.size(axis)), x, all_->rank());
}

at::Tensor Context::join(const at::Tensor& x, int64_t axis, int64_t tokens) const {
  return size_ == 1 ? x : Gather::apply(make_axis(all_, axis, tokens), true, x);
}

std::vector<at::Tensor> Context::to_heads(const std::vector<at::Tensor>& x, int64_t frames,
                                          const nn::FrameRows& tokens) const {
  if (size_ == 1 || ulysses_->size() == 1) {
    return x;
  }
  return exchange_rows_for_heads(
      make_exchange(ulysses_, *ring_, frames, tokens, x.front().size(2), 1), x);
}

at::Tensor Context::to_rows(const at::Tensor& x, int64_t frames, const nn::FrameRows& tokens,
                            int64_t heads, int64_t paths) const {
  if (size_ == 1 || ulysses_->size() == 1) {
    return x;
  }
  return exchange_heads_for_rows(make_exchange(ulysses_, *ring_, frames, tokens, heads, paths), x);
}

at::Tensor Context::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const nn::FramePlan& plan, const nn::FrameRows& tokens) const {
  if (size_ == 1 || ring_->size() == 1) {
    return nn::attend(q, k, v, plan, tokens);
  }
  auto ring = c10::make_intrusive<Ring>();
  ring->ranks = ring_;
  ring->plan = plan;
  ring->tokens = tokens;
  return ring_attend(ring, q, k, v);
}

}  // namespace minwm::parallel
