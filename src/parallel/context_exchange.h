#pragma once
// The all-to-all of Ulysses: ranks that hold rows of all heads become ranks that hold all of their
// group's rows of some heads, and back.

#include <vector>

#include <torch/torch.h>

#include "minwm/comm/communicator.h"
#include "minwm/nn/frame_rows.h"

namespace minwm::parallel {

/// Who of one group holds what.
struct HeadExchange : torch::CustomClassHolder {
  std::shared_ptr<comm::Communicator> group;
  int64_t ring_index = 0;  ///< of the group among the groups of a context
  int64_t groups = 1;
  int64_t frames = 0;
  nn::FrameRows tokens = 0;  ///< whole frames
  int64_t heads = 0;
  int64_t paths = 1;  ///< times that the heads occur, one after the other

  nn::FrameRows rows_of(int64_t rank) const {
    return tokens.piece(ring_index * group->size() + rank, groups * group->size());
  }
  nn::FrameRows portion() const { return tokens.piece(ring_index, groups); }
  int64_t first_head(int64_t rank) const { return heads * rank / group->size(); }
  int64_t heads_of(int64_t rank) const { return first_head(rank + 1) - first_head(rank); }
};

using HeadExchangePtr = c10::intrusive_ptr<HeadExchange>;

/// Each x [B, rows, P A, D] → [B, portion rows, P A_u, D]. Differentiable.
std::vector<at::Tensor> exchange_rows_for_heads(const HeadExchangePtr& exchange,
                                                const std::vector<at::Tensor>& x);
/// x [B, portion rows, P A_u, D] → [B, rows, P A, D], stored heads first. Differentiable.
at::Tensor exchange_heads_for_rows(const HeadExchangePtr& exchange, const at::Tensor& x);

}  // namespace minwm::parallel
