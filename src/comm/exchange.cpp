#include "exchange.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <ATen/ATen.h>

namespace minwm::comm {
namespace {

/// Elements that are summed at a time: they stay in the cache while all ranks' are added, and are
/// too few for LibTorch to start threads.
constexpr int64_t kBlock = 8192;

/// A sum of one slice that goes piece by piece. Held by the operation's actions.
struct SliceSum {
  MpiOperation* operation;
  Messages messages;
  at::Tensor from, to;  // flat
  Slices slices;
  int64_t piece;       // elements
  at::Tensor arrived;  // [ranks - 1, piece]
  std::function<void()> done;

  int ranks() const { return static_cast<int>(slices.bounds.size()) - 1; }
  /// Part `index` of a rank's slice; empty behind its end.
  std::pair<int64_t, int64_t> part(int rank, int64_t index) const {
    const int64_t begin = std::min(slices.begin(rank) + index * piece, slices.end(rank));
    return {begin, std::min(begin + piece, slices.end(rank))};
  }
  /// The row of `arrived` for a rank other than this one.
  at::Tensor row(int rank) const { return arrived[rank < messages.rank ? rank : rank - 1]; }
  void add_up(int64_t index) const;
};

void SliceSum::add_up(int64_t index) const {
  const auto [begin, end] = part(messages.rank, index);
  const int64_t offset = slices.begin(messages.rank);
  const bool half = from.scalar_type() == at::kBFloat16 || from.scalar_type() == at::kHalf;
  const at::Tensor total =
      at::empty({kBlock}, from.options().dtype(half ? at::kFloat : from.scalar_type()));
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = std::min(kBlock, end - first);
    at::Tensor sum = total.narrow(0, 0, count);
    for (int rank = 0; rank < ranks(); ++rank) {
      const at::Tensor term = rank == messages.rank ? from.narrow(0, first, count)
                                                    : row(rank).narrow(0, first - begin, count);
      rank == 0 ? sum.copy_(term) : sum.add_(term);
    }
    to.narrow(0, first - offset, count).copy_(sum);
  }
}

void post_piece(const std::shared_ptr<SliceSum>& state, int64_t index) {
  const int ranks = state->ranks(), self = state->messages.rank;
  bool any = false;
  for (int step = 1; step < ranks; ++step) {
    const int source = (self + ranks - step) % ranks, target = (self + step) % ranks;
    const auto [begin, end] = state->part(self, index);
    state->messages.receive(*state->operation, state->row(source), 0, end - begin, source);
    const auto [send_begin, send_end] = state->part(target, index);
    state->messages.send(*state->operation, state->from, send_begin, send_end, target);
    any = any || end > begin || send_end > send_begin;
  }
  if (any) {
    state->operation->then([state, index] {
      state->add_up(index);
      post_piece(state, index + 1);
    });
  } else if (state->done) {
    state->done();
  }
}

}  // namespace

Slices Slices::even(int64_t numel, int ranks) {
  Slices slices;
  for (int64_t rank = 0; rank <= ranks; ++rank) {
    // Without the product numel * rank, which could overflow.
    slices.bounds.push_back(numel / ranks * rank + numel % ranks * rank / ranks);
  }
  return slices;
}

void post_sum_of_slice(MpiOperation& operation, const Messages& messages, const at::Tensor& from,
                       const at::Tensor& to, const Slices& slices, std::function<void()> done) {
  const int ranks = static_cast<int>(slices.bounds.size()) - 1;
  int64_t longest = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    longest = std::max(longest, slices.end(rank) - slices.begin(rank));
  }
  if (ranks == 1) {
    to.copy_(from.view_as(to));
    if (done) {
      done();
    }
    return;
  }
  const int64_t bytes = std::min(kPieceBytes, kArrivedBytes / (ranks - 1));
  const int64_t piece =
      std::max<int64_t>(1, std::min({longest, bytes / messages.width, messages.most}));
  auto state = std::make_shared<SliceSum>(
      SliceSum{.operation = &operation,
               .messages = messages,
               .from = from.detach().flatten(),
               .to = to.detach().flatten(),
               .slices = slices,
               .piece = piece,
               .arrived = at::empty({ranks - 1, piece}, from.options().requires_grad(false)),
               .done = std::move(done)});
  operation.keep(state->from);
  operation.keep(state->to);
  operation.keep(state->arrived);
  post_piece(state, 0);
}

void post_gather_of_slices(MpiOperation& operation, const Messages& messages,
                           const at::Tensor& mine, const at::Tensor& full, const Slices& slices) {
  const int ranks = static_cast<int>(slices.bounds.size()) - 1, self = messages.rank;
  operation.keep(mine);
  operation.keep(full);
  for (int step = 1; step < ranks; ++step) {
    const int source = (self + ranks - step) % ranks, target = (self + step) % ranks;
    messages.receive(operation, full, slices.begin(source), slices.end(source), source);
    messages.send(operation, mine, 0, mine.numel(), target);
  }
  char* const place =
      static_cast<char*>(full.mutable_data_ptr()) + slices.begin(self) * messages.width;
  if (place != mine.const_data_ptr() && mine.numel() > 0) {
    std::memcpy(place, mine.const_data_ptr(), mine.nbytes());
  }
}

}  // namespace minwm::comm
