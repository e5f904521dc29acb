#pragma once
// Context parallelism: the ranks that share a sample split the tokens of every frame. Outside a
// model everything is replicated over them, values and gradients alike; inside, rank r holds rows
// [S r / C, S (r + 1) / C) of each frame's S tokens, so that frame plans, per-frame modulation and
// camera matrices stay what they are and causal plans are balanced. Source: parallel.md section 4.
//
// Attention: the ulysses ranks (inner) exchange heads for rows, the ring ranks pass keys and values
// around; each ring rank's ulysses group together holds the rows of its *portion* of every frame.

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/comm/mesh.h"
#include "minwm/nn/frame_plan.h"
#include "minwm/nn/frame_rows.h"

namespace minwm::parallel {

/// Rows [begin, begin + count) of a frame (or of another run of tokens).
struct Rows {
  int64_t begin = 0, count = 0;
};

class Context {
 public:
  /// One rank that holds everything: every method is the identity.
  Context() = default;
  explicit Context(const comm::Mesh& mesh);

  int64_t size() const { return size_; }
  /// What this rank holds of `tokens` rows, and what its ulysses group holds together.
  Rows rows(int64_t tokens) const;
  Rows portion(int64_t tokens) const;
  /// The portion's entries of a table [frames * tokens, …] with one for every token.
  at::Tensor portion_of(const at::Tensor& table, int64_t tokens) const;

  /// This rank's rows of a replicated tensor along `axis`; backward: gathered from all ranks.
  at::Tensor scatter(const at::Tensor& x, int64_t axis) const;
  /// All ranks' rows along `axis`, `tokens` in all; backward: this rank's rows.
  at::Tensor gather(const at::Tensor& x, int64_t axis, int64_t tokens) const;

  /// The same for what every rank computes alike *inside* a model (the text of a joint attention),
  /// whose gradients are a different share on every rank, to be summed. split's backward: this
  /// rank's rows, zeros elsewhere; join's: the sum over ranks, of which this rank takes its rows.
  at::Tensor split(const at::Tensor& x, int64_t axis) const;
  at::Tensor join(const at::Tensor& x, int64_t axis, int64_t tokens) const;

  /// Rows for heads. Each x [B, rows, A, D] (this rank's rows of `frames` frames, `tokens` in each)
  /// → [B, portion rows, A_u, D], where rank u of U has heads [A u / U, A (u + 1) / U); several
  /// tensors in one exchange.
  /// @throws Error if there are fewer heads than ulysses ranks.
  std::vector<at::Tensor> to_heads(const std::vector<at::Tensor>& x, int64_t frames,
                                   const nn::FrameRows& tokens) const;
  /// Back: x [B, portion rows, P * A_u, D] → [B, rows, P * A, D]; the P paths (rotary, camera) one
  /// after the other on both sides. `heads` = A.
  at::Tensor to_rows(const at::Tensor& x, int64_t frames, const nn::FrameRows& tokens,
                     int64_t heads, int64_t paths) const;

  /// nn::attend over the portion's rows of a plan whose keys are spread over the ring ranks: q, k,
  /// v [B, portion rows, A, D]; chunks index q's frames (the last ones of the plan), what they see
  /// k's. `tokens` of every frame of the plan.
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const nn::FramePlan& plan, const nn::FrameRows& tokens) const;

 private:
  std::shared_ptr<comm::Communicator> all_, ulysses_, ring_;
  int64_t size_ = 1;
};

}  // namespace minwm::parallel
