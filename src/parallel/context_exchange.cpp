#include "context_exchange.h"

#include <numeric>

namespace minwm::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The rows of `rank` among the group's, as pairs of views [B, frames of a run, rows, …] of a
/// tensor with the portion's rows and of one with that rank's; calls action(portion, own).
template <class Action>
void for_runs(const HeadExchange& e, int64_t rank, const at::Tensor& portion, const at::Tensor& own,
              const Action& action) {
  const nn::FrameRows whole = e.portion(), part = e.rows_of(rank);
  const int64_t size = e.group->size();
  for (const auto& run : e.tokens.runs(e.frames)) {
    const int64_t n = e.tokens.of(run.begin);
    const int64_t offset =
        n * (e.ring_index * size + rank) / (e.groups * size) - n * e.ring_index / e.groups;
    const auto frames = [&](const at::Tensor& x, const nn::FrameRows& rows) {
      return x.narrow(1, rows.before(run.begin), rows.of(run))
          .unflatten(1, {run.size(), rows.of(run.begin)});
    };
    action(frames(portion, whole).narrow(2, offset, part.of(run.begin)), frames(own, part));
  }
}

/// [B, N, P A, D] → [B, N, P, A, D]
at::Tensor paths_apart(const at::Tensor& x, int64_t paths) {
  return x.unflatten(2, {paths, x.size(2) / paths});
}

void check_rows(const at::Tensor& x, int64_t rows) {
  TORCH_INTERNAL_ASSERT(x.size(1) == rows, "context: ", x.size(1), " rows, expected ", rows);
}

/// One all-to-all of blocks; per peer a row of blocks, given by shape.
class Blocks {
 public:
  Blocks(int64_t peers, const at::TensorOptions& options)
      : shapes_(static_cast<size_t>(peers)), options_(options) {}
  void add(int64_t peer, std::vector<int64_t> shape) {
    shapes_[static_cast<size_t>(peer)].push_back(std::move(shape));
  }
  void allocate() {
    for (const auto& of_peer : shapes_) {
      int64_t count = 0;
      for (const auto& shape : of_peer) {
        count += c10::multiply_integers(shape);
      }
      counts_.push_back(count);
    }
    buffer_ = at::empty({std::accumulate(counts_.begin(), counts_.end(), int64_t{0})}, options_);
  }
  std::vector<at::Tensor> of(int64_t peer) const {
    int64_t offset = std::accumulate(counts_.begin(), counts_.begin() + peer, int64_t{0});
    std::vector<at::Tensor> blocks;
    for (const auto& shape : shapes_[static_cast<size_t>(peer)]) {
      const int64_t count = c10::multiply_integers(shape);
      blocks.push_back(buffer_.narrow(0, offset, count).view(shape));
      offset += count;
    }
    return blocks;
  }
  const at::Tensor& buffer() const { return buffer_; }
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  std::vector<std::vector<std::vector<int64_t>>> shapes_;
  at::TensorOptions options_;
  std::vector<int64_t> counts_;
  at::Tensor buffer_;
};

std::vector<at::Tensor> rows_to_heads(const HeadExchange& e, const variable_list& x) {
  at::NoGradGuard no_grad;
  const int64_t size = e.group->size(), own = e.group->rank(), dim = x.front().size(3);
  Blocks send(size, x.front().options()), received(size, x.front().options());
  for (const auto& each : x) {
    check_rows(each, e.rows_of(own).before(e.frames));
  }
  for (int64_t peer = 0; peer < size; ++peer) {
    for (const auto& each : x) {
      send.add(peer, {each.size(0), each.size(1), e.paths, e.heads_of(peer), dim});
      received.add(peer,
                   {each.size(0), e.rows_of(peer).before(e.frames), e.paths, e.heads_of(own), dim});
    }
  }
  send.allocate();
  received.allocate();
  for (int64_t peer = 0; peer < size; ++peer) {
    const auto blocks = send.of(peer);
    for (size_t i = 0; i < x.size(); ++i) {
      blocks[i].copy_(paths_apart(x[i], e.paths).narrow(3, e.first_head(peer), e.heads_of(peer)));
    }
  }
  e.group->all_to_all(send.buffer(), send.counts(), received.buffer(), received.counts(),
                      "context rows for heads");
  std::vector<at::Tensor> out;
  for (const auto& each : x) {
    out.push_back(
        at::empty({each.size(0), e.portion().before(e.frames), e.paths * e.heads_of(own), dim},
                  each.options()));
  }
  for (int64_t peer = 0; peer < size; ++peer) {
    const auto blocks = received.of(peer);
    for (size_t i = 0; i < x.size(); ++i) {
      for_runs(e, peer, paths_apart(out[i], e.paths), blocks[i],
               [](const at::Tensor& whole, const at::Tensor& part) { whole.copy_(part); });
    }
  }
  return out;
}

/// `heads_first`: how the results are stored.
std::vector<at::Tensor> heads_to_rows(const HeadExchange& e, const variable_list& x,
                                      bool heads_first) {
  at::NoGradGuard no_grad;
  const int64_t size = e.group->size(), own = e.group->rank(), dim = x.front().size(3);
  const int64_t rows = e.rows_of(own).before(e.frames);
  for (const auto& each : x) {
    check_rows(each, e.portion().before(e.frames));
  }
  Blocks send(size, x.front().options()), received(size, x.front().options());
  for (int64_t peer = 0; peer < size; ++peer) {
    for (const auto& each : x) {
      send.add(peer,
               {each.size(0), e.rows_of(peer).before(e.frames), e.paths, e.heads_of(own), dim});
      received.add(peer, {each.size(0), rows, e.paths, e.heads_of(peer), dim});
    }
  }
  send.allocate();
  received.allocate();
  for (int64_t peer = 0; peer < size; ++peer) {
    const auto blocks = send.of(peer);
    for (size_t i = 0; i < x.size(); ++i) {
      for_runs(e, peer, paths_apart(x[i], e.paths), blocks[i],
               [](const at::Tensor& whole, const at::Tensor& part) { part.copy_(whole); });
    }
  }
  e.group->all_to_all(send.buffer(), send.counts(), received.buffer(), received.counts(),
                      "context heads for rows");
  std::vector<at::Tensor> out;
  for (const auto& each : x) {
    const int64_t heads = e.paths * e.heads;
    out.push_back(heads_first
                      ? at::empty({each.size(0), heads, rows, dim}, each.options()).transpose(1, 2)
                      : at::empty({each.size(0), rows, heads, dim}, each.options()));
  }
  for (int64_t peer = 0; peer < size; ++peer) {
    const auto blocks = received.of(peer);
    for (size_t i = 0; i < x.size(); ++i) {
      paths_apart(out[i], e.paths).narrow(3, e.first_head(peer), e.heads_of(peer)).copy_(blocks[i]);
    }
  }
  return out;
}

HeadExchange& exchange_of(const AutogradContext& context) {
  return static_cast<HeadExchange&>(*context.saved_data.at("exchange").toCapsule());
}

struct ToHeads : torch::autograd::Function<ToHeads> {
  static variable_list forward(AutogradContext* context, const HeadExchangePtr& exchange,
                               at::TensorList x) {
    context->saved_data["exchange"] = c10::IValue::make_capsule(exchange);
    return rows_to_heads(*exchange, x.vec());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list result = heads_to_rows(exchange_of(*context), gradients, false);
    result.insert(result.begin(), at::Tensor());
    return result;
  }
};

struct ToRows : torch::autograd::Function<ToRows> {
  static at::Tensor forward(AutogradContext* context, const HeadExchangePtr& exchange,
                            const at::Tensor& x) {
    context->saved_data["exchange"] = c10::IValue::make_capsule(exchange);
    return heads_to_rows(*exchange, {x}, true).front();
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {at::Tensor(), rows_to_heads(exchange_of(*context), gradients).front()};
  }
};

}  // namespace

std::vector<at::Tensor> exchange_rows_for_heads(const HeadExchangePtr& exchange,
                                                const std::vector<at::Tensor>& x) {
  return ToHeads::apply(exchange, at::TensorList(x));
}

at::Tensor exchange_heads_for_rows(const HeadExchangePtr& exchange, const at::Tensor& x) {
  return ToRows::apply(exchange, x);
}

}  // namespace minwm::parallel
