#include "matrix_exchange.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

namespace minwm::train {

MatrixExchange::MatrixExchange(std::vector<Piece> pieces, std::shared_ptr<comm::Communicator> ranks,
                               const at::TensorOptions& options)
    : ranks_(std::move(ranks)), pieces_(std::move(pieces)), options_(options) {
  const auto matrices = static_cast<int64_t>(pieces_.size());
  at::Tensor mine = at::empty({matrices, 2}, at::kLong);
  for (int64_t i = 0; i < matrices; ++i) {
    mine[i][0] = pieces_[static_cast<size_t>(i)].begin;
    mine[i][1] = pieces_[static_cast<size_t>(i)].count;
  }
  const at::Tensor all = at::empty({ranks_->size(), matrices, 2}, at::kLong).to(options_.device());
  ranks_->all_gather(mine.view(-1).to(options_.device()), all.view(-1), "matrix pieces");
  ranges_ = all.cpu();
  // The largest first, each to the rank with the least so far; the same on every rank.
  std::vector<size_t> order(pieces_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return pieces_[a].total > pieces_[b].total; });
  std::vector<int64_t> load(static_cast<size_t>(ranks_->size()), 0);
  owners_.resize(pieces_.size());
  for (const size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += pieces_[i].total;
    owners_[i] = static_cast<int>(least - load.begin());
  }
}

MatrixExchange::Range MatrixExchange::range(int rank, size_t matrix) const {
  const auto r = ranges_.accessor<int64_t, 3>();
  const auto m = static_cast<int64_t>(matrix);
  return {r[rank][m][0], r[rank][m][1]};
}

std::vector<int64_t> MatrixExchange::counts(const std::vector<at::Tensor>& pieces,
                                            bool as_owner) const {
  std::vector<int64_t> counts(static_cast<size_t>(ranks_->size()), 0);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].defined()) {
      continue;
    }
    if (!as_owner) {
      counts[static_cast<size_t>(owners_[i])] += pieces_[i].count;
    } else if (owners_[i] == ranks_->rank()) {
      for (int peer = 0; peer < ranks_->size(); ++peer) {
        counts[static_cast<size_t>(peer)] += range(peer, i).count;
      }
    }
  }
  return counts;
}

std::map<size_t, at::Tensor> MatrixExchange::bring_together(
    const std::vector<at::Tensor>& pieces) const {
  const auto send_counts = counts(pieces, false), receive_counts = counts(pieces, true);
  std::vector<at::Tensor> outgoing = {at::empty({0}, options_)};
  std::map<size_t, at::Tensor> matrices;
  for (int peer = 0; peer < ranks_->size(); ++peer) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].defined() && owners_[i] == peer) {
        outgoing.push_back(pieces[i].view(-1));
      }
    }
  }
  const at::Tensor send = at::cat(outgoing);
  const at::Tensor received = at::empty(
      {std::accumulate(receive_counts.begin(), receive_counts.end(), int64_t{0})}, options_);
  ranks_->all_to_all(send, send_counts, received, receive_counts, "matrices together");
  int64_t offset = 0;
  for (int peer = 0; peer < ranks_->size(); ++peer) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (!pieces[i].defined() || owners_[i] != ranks_->rank()) {
        continue;
      }
      at::Tensor& matrix = matrices[i];
      if (!matrix.defined()) {
        matrix = at::empty({pieces_[i].total}, options_);
      }
      const auto [begin, count] = range(peer, i);
      matrix.narrow(0, begin, count).copy_(received.narrow(0, offset, count));
      offset += count;
    }
  }
  return matrices;
}

std::vector<at::Tensor> MatrixExchange::hand_back(const std::map<size_t, at::Tensor>& matrices,
                                                  const std::vector<at::Tensor>& pieces) const {
  const auto receive_counts = counts(pieces, false), send_counts = counts(pieces, true);
  std::vector<at::Tensor> outgoing = {at::empty({0}, options_)};
  for (int peer = 0; peer < ranks_->size(); ++peer) {
    for (const auto& [i, matrix] : matrices) {
      const auto [begin, count] = range(peer, i);
      outgoing.push_back(matrix.narrow(0, begin, count));
    }
  }
  const at::Tensor received = at::empty(
      {std::accumulate(receive_counts.begin(), receive_counts.end(), int64_t{0})}, options_);
  ranks_->all_to_all(at::cat(outgoing), send_counts, received, receive_counts, "matrices back");
  std::vector<at::Tensor> result(pieces.size());
  int64_t offset = 0;
  for (int peer = 0; peer < ranks_->size(); ++peer) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].defined() && owners_[i] == peer) {
        result[i] = received.narrow(0, offset, pieces_[i].count).view(pieces[i].sizes());
        offset += pieces_[i].count;
      }
    }
  }
  return result;
}

}  // namespace minwm::train
