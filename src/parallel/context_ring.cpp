#include "context_ring.h"

#include "minwm/nn/attention_parts.h"

namespace minwm::parallel {
namespace {

using nn::AttentionPart;
using nn::FrameRange;
using nn::FrameRows;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor narrow_rows(const at::Tensor& x, const FrameRows& rows, const FrameRange& range) {
  return x.narrow(2, rows.before(range.begin), rows.of(range));
}

/// The rows of `ranges` that x [B, A, rows, D] holds.
at::Tensor seen(const at::Tensor& x, const std::vector<FrameRange>& ranges, const FrameRows& rows) {
  if (ranges.size() == 1) {
    return narrow_rows(x, rows, ranges.front());
  }
  std::vector<at::Tensor> parts;
  for (const auto& range : ranges) {
    parts.push_back(narrow_rows(x, rows, range));
  }
  return at::cat(parts, 2);
}

/// Its transpose: adds `gradient` to those rows of x.
void add_seen(const at::Tensor& x, const std::vector<FrameRange>& ranges, const FrameRows& rows,
              const at::Tensor& gradient) {
  int64_t offset = 0;
  for (const auto& range : ranges) {
    narrow_rows(x, rows, range).add_(gradient.narrow(2, offset, rows.of(range)));
    offset += rows.of(range);
  }
}

/// Keys and values on their way around: at each step this rank holds those of another one, padded
/// to the most rows of any, while the next ones are already under way.
class Travellers {
 public:
  Travellers(comm::Communicator& ranks, const FrameRows& tokens, int64_t frames,
             const at::Tensor& k, const at::Tensor& v)
      : ranks_(ranks), tokens_(tokens) {
    int64_t most = 0;
    for (int64_t rank = 0; rank < ranks.size(); ++rank) {
      most = std::max(most, tokens.piece(rank, ranks.size()).before(frames));
    }
    held_ = at::empty({2, k.size(0), k.size(1), most, k.size(3)}, k.options());
    held_[0].narrow(2, 0, k.size(2)).copy_(k);
    held_[1].narrow(2, 0, v.size(2)).copy_(v);
    next_ = at::empty_like(held_);
  }
  /// Calls body(rows of their owner, keys and values [2, B, A, most, D]) for every rank's.
  template <class Body>
  void visit(const Body& body) {
    const int64_t size = ranks_.size();
    for (int64_t step = 0; step < size; ++step) {
      std::unique_ptr<comm::Work> arrival;
      if (step + 1 < size) {
        arrival = ranks_.ring_shift_async({held_}, {next_}, "context keys");
      }
      body(tokens_.piece((ranks_.rank() - step + size) % size, size), held_);
      if (arrival) {
        arrival->wait();
        std::swap(held_, next_);
      }
    }
  }

 private:
  comm::Communicator& ranks_;
  FrameRows tokens_;
  at::Tensor held_, next_;
};

/// Gradients [2, B, A, most, D] that travel with the keys and values they belong to, a step behind:
/// they are sent on when this rank has added its share.
class TravellingGradients {
 public:
  explicit TravellingGradients(comm::Communicator& ranks) : ranks_(ranks) {}
  void add_and_send(const at::Tensor& share) {
    if (arrival_) {
      arrival_->wait();
      share.add_(arriving_);
    } else {
      arriving_ = at::empty_like(share);
    }
    arrival_ = ranks_.ring_shift_async({share}, {arriving_}, "context gradients");
  }
  /// After as many sends as there are ranks: this rank's own.
  at::Tensor home() {
    arrival_->wait();
    return arriving_;
  }

 private:
  comm::Communicator& ranks_;
  at::Tensor arriving_;
  std::unique_ptr<comm::Work> arrival_;
};

struct RingAttention : torch::autograd::Function<RingAttention> {
  /// Heads first.
  static at::Tensor forward(AutogradContext* context, const c10::intrusive_ptr<Ring>& ring,
                            const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const auto& chunks = ring->plan.chunks;
    const FrameRows queries = own_queries(*ring);
    std::vector<AttentionPart> sums(chunks.size());
    Travellers travellers(*ring->ranks, ring->tokens, ring->plan.frames(), k, v);
    travellers.visit([&](const FrameRows& rows, const at::Tensor& held) {
      for (size_t i = 0; i < chunks.size(); ++i) {
        const at::Tensor asking = narrow_rows(q, queries, chunks[i].frames),
                         keys = seen(held[0], chunks[i].sees, rows);
        if (asking.numel() > 0 && keys.numel() > 0) {
          nn::merge_part(sums[i],
                         nn::attend_part(asking, keys, seen(held[1], chunks[i].sees, rows)));
        }
      }
    });
    const at::Tensor out = at::zeros(q.sizes(), q.options());
    const at::Tensor log_sum =
        at::zeros({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (sums[i].out.defined()) {
        narrow_rows(out, queries, chunks[i].frames).copy_(sums[i].out);
        narrow_rows(log_sum, queries, chunks[i].frames).copy_(sums[i].log_sum);
      }
    }
    context->save_for_backward({q, k, v, out, log_sum});
    context->saved_data["ring"] = c10::IValue::make_capsule(ring);
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3],
                     &log_sum = saved[4], dout = gradients[0].contiguous();
    const auto& ring = static_cast<Ring&>(*context->saved_data.at("ring").toCapsule());
    const auto& chunks = ring.plan.chunks;
    const FrameRows queries = own_queries(ring);
    const at::Tensor dq = at::zeros(q.sizes(), q.options().dtype(at::kFloat));
    TravellingGradients travelling(*ring.ranks);
    Travellers travellers(*ring.ranks, ring.tokens, ring.plan.frames(), k, v);
    travellers.visit([&](const FrameRows& rows, const at::Tensor& held) {
      const at::Tensor share = at::zeros(held.sizes(), held.options().dtype(at::kFloat));
      for (const auto& chunk : chunks) {
        const auto own = [&](const at::Tensor& x) { return narrow_rows(x, queries, chunk.frames); };
        const at::Tensor asking = own(q), keys = seen(held[0], chunk.sees, rows);
        if (asking.numel() == 0 || keys.numel() == 0) {
          continue;
        }
        const auto part = nn::attend_part_backward(
            own(dout), asking, keys, seen(held[1], chunk.sees, rows), {own(out), own(log_sum)});
        own(dq).add_(part.q);
        add_seen(share[0], chunk.sees, rows, part.k);
        add_seen(share[1], chunk.sees, rows, part.v);
      }
      travelling.add_and_send(share);
    });
    const at::Tensor home = travelling.home().narrow(3, 0, k.size(2));
    return {at::Tensor(), dq.to(q.scalar_type()), home[0].to(k.scalar_type()),
            home[1].to(v.scalar_type())};
  }

  static FrameRows own_queries(const Ring& ring) {
    return ring.tokens.piece(ring.ranks->rank(), ring.ranks->size()).from(ring.plan.first_query());
  }
};

}  // namespace

at::Tensor ring_attend(const c10::intrusive_ptr<Ring>& ring, const at::Tensor& q,
                       const at::Tensor& k, const at::Tensor& v) {
  const FrameRows rows = ring->tokens.piece(ring->ranks->rank(), ring->ranks->size());
  const int64_t all = rows.before(ring->plan.frames()),
                asking = all - rows.before(ring->plan.first_query());
  TORCH_INTERNAL_ASSERT(q.size(1) == asking && k.size(1) == all && v.size(1) == all,
                        "ring attention: ", q.size(1), " queries and ", k.size(1),
                        " keys, expected ", asking, " and ", all);
  return RingAttention::apply(ring, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
      .transpose(1, 2);
}

}  // namespace minwm::parallel
