#include <algorithm>
#include <utility>

#include "minwm/core/error.h"
#include "minwm/parallel/planning.h"
#include "planning_work.h"

namespace minwm::parallel {
namespace {

constexpr int64_t kFloat = 4;
// Slices are cut from flat units that are rounded up to so many elements per rank.
constexpr int64_t kSliceAlignment = 16;
// Up to this many keys the CPU keeps attention weights for backward (nn/attention.cpp).
constexpr int64_t kCpuPlainKeys = 1024;

int64_t slice(int64_t elements, int64_t ranks) {
  const int64_t aligned = kSliceAlignment * ranks;
  return ranks == 1 ? elements : (elements + aligned - 1) / aligned * aligned / ranks;
}

/// Elements that one rank of `ranks` holds.
UnitShape slice(const UnitShape& unit, int64_t ranks) {
  return {slice(unit.matrices, ranks), slice(unit.vectors, ranks)};
}

struct Slices {
  int64_t matrices, vectors;  // of the blocks
  UnitShape root;
  int64_t all() const { return matrices + vectors + root.parameters(); }
};

Slices slices_of(const ModelShape& model, int64_t ranks) {
  const UnitShape block = slice(model.block, ranks);
  return {model.blocks * block.matrices, model.blocks * block.vectors, slice(model.root, ranks)};
}

/// Bytes of a unit's gathered parameters: matrices in the compute type.
int64_t gathered_bytes(const UnitShape& unit, int64_t compute) {
  return unit.matrices * compute + unit.vectors * kFloat;
}

/// Bytes that a block keeps for its backward, per image token: inputs of products, norms and gates,
/// in float32 (residual stream) or the compute type.
int64_t kept_per_token(const StepShape& step) {
  const auto& m = step.model;
  const int64_t b = step.device.compute_bytes;
  // q, k before their norms, the transformed q, k, v, attention's output and its merged rows, the
  // normed inputs of both sublayers, and the gated outputs.
  int64_t compute = m.width * (2 + 5 * m.paths() + 2 + 2) + 2 * m.ffn_width;
  int64_t residual = 2 * m.width;
  if (!m.joint_text) {
    compute += 4 * m.width;  // cross-attention: input, q before and after its norm, output
    residual += m.width;
  }
  return compute * b + residual * m.residual_bytes;
}

/// The same of a text row: a stream of its own, or keys and values.
int64_t kept_per_text_row(const StepShape& step) {
  const auto& m = step.model;
  const int64_t b = step.device.compute_bytes;
  if (m.joint_text) {
    return (m.width * 11 + 2 * m.ffn_width) * b + 2 * m.width * m.residual_bytes;
  }
  return 4 * m.width * b;
}

/// Attention weights that the CPU keeps, per image token.
int64_t kept_weights_per_token(const StepShape& step) {
  const auto& m = step.model;
  if (!step.device.cpu) {
    return 0;
  }
  const int64_t keys = step.frames * step.frame_tokens + (m.joint_text ? m.text_rows : 0);
  int64_t weights = keys <= kCpuPlainKeys ? m.paths() * m.heads * keys : 0;
  if (!m.joint_text && m.text_rows <= kCpuPlainKeys) {
    weights += m.heads * m.text_rows;
  }
  return weights * step.device.compute_bytes;
}

/// What flows from block to block and is kept for each when blocks are recomputed.
int64_t block_inputs(const StepShape& step, int64_t tokens) {
  const auto& m = step.model;
  const int64_t text = m.joint_text ? m.text_rows : 0;
  return (tokens + text) * m.width * m.residual_bytes;
}

int64_t block_inner(const StepShape& step, int64_t tokens) {
  return tokens * (kept_per_token(step) + kept_weights_per_token(step)) +
         step.model.text_rows * kept_per_text_row(step);
}

/// Gradients that are alive at the widest point of a block's backward: of the residual stream, of
/// the feed-forward's hidden values, of q, k, v.
int64_t block_backward(const StepShape& step, int64_t tokens) {
  const auto& m = step.model;
  const int64_t wide = std::max(2 * m.ffn_width, 3 * m.paths() * m.width);
  return tokens * (2 * m.width * m.residual_bytes + wide * step.device.compute_bytes);
}

void add_slices(const StepShape& step, const MeshShape& mesh, MemoryPlan& plan) {
  const Slices own = slices_of(step.model, mesh.copy());
  const int64_t compute = step.device.compute_bytes;
  for (const auto& network : networks_of(step)) {
    if (!network.trained) {
      plan.frozen += own.matrices * compute + (own.vectors + own.root.parameters()) * kFloat;
      continue;
    }
    const int64_t per_matrix = (step.muon ? 1 : 2) * kFloat;
    plan.parameters += own.all() * kFloat;
    plan.casts += mesh.copy() > 1 && compute != kFloat ? own.matrices * compute : 0;
    plan.gradients += own.all() * kFloat;
    plan.moments += (own.matrices + own.root.matrices) * per_matrix +
                    (own.vectors + own.root.vectors) * 2 * kFloat;
    plan.averages += network.averaged ? own.all() * kFloat : 0;
  }
  if (step.offload_teacher) {
    plan.host += std::exchange(plan.frozen, 0);
  }
  if (step.offload_optimizer) {
    plan.host += plan.steady() - plan.frozen;
    plan.parameters = plan.casts = plan.gradients = plan.moments = plan.averages = 0;
  }
}

/// Weights and gradients of a rank that holds a whole copy: it uses the weights as they are, only
/// casts come and go.
void add_whole(const StepShape& step, MemoryPlan& plan) {
  const auto& m = step.model;
  const int64_t compute = step.device.compute_bytes;
  const bool casts = compute != kFloat;
  plan.gathered = casts ? m.block.matrices * compute : 0;
  // Recomputation hands a block's gradients over together, autograd alone one after the other.
  plan.block_gradients = step.recompute ? m.block.parameters() * kFloat
                                        : m.largest_matrix * (kFloat + (casts ? compute : 0));
}

/// Weights and gradients that are whole for a moment.
void add_gathered(const StepShape& step, const MeshShape& mesh, MemoryPlan& plan) {
  const auto& m = step.model;
  const int64_t compute = step.device.compute_bytes;
  const int64_t block = m.block.parameters() * kFloat, root = m.root.parameters() * kFloat;
  const UnitShape own = slice(m.block, mesh.copy());
  // Networks without gradients run while the one that has them waits for its backward.
  plan.root = root * (networks_of(step).size() > 1 ? 2 : 1);
  plan.gathered = (1 + step.prefetch) * gathered_bytes(m.block, compute);
  // With recomputation a block's reduction is over before the next gradient is made.
  plan.flat_gradients = root + (step.reduce_each ? block * (step.recompute ? 1 : 2) : 0);
  plan.unreduced = step.reduce_each ? 0 : m.blocks * block;
  plan.block_gradients = m.largest_matrix * compute;
  plan.exchange = own.parameters() * kFloat;
  if (step.offload_optimizer || step.offload_teacher) {
    plan.exchange += (1 + step.prefetch) * gathered_bytes(own, compute);
  }
  if (step.offload_optimizer && mesh.replicate > 1) {
    plan.exchange += slices_of(m, mesh.copy()).all() * kFloat;
  }
}

/// Rollouts hold the raw keys and values of their window, and those of the text.
int64_t cache_bytes(const StepShape& step, const MeshShape& mesh) {
  const auto& m = step.model;
  const int64_t frames = std::min(step.frames, step.window_frames);
  const int64_t rows = rank_tokens(step, mesh, frames) * step.micro_batch +
                       m.text_rows * step.micro_batch / (m.joint_text ? mesh.context : 1);
  return 2 * rows * m.width * step.device.compute_bytes * m.blocks;
}

}  // namespace

int64_t MemoryPlan::total() const {
  return steady() + root + gathered + exchange + flat_gradients + block_gradients + unreduced +
         activations + block_work + kv_cache;
}

MemoryPlan plan_memory(const StepShape& step, const MeshShape& mesh) {
  step.check();
  (void)accumulation_of(step, mesh);
  MemoryPlan plan;
  add_slices(step, mesh, plan);
  if (mesh.copy() == 1 && !step.offload_optimizer && !step.offload_teacher) {
    add_whole(step, plan);
  } else {
    add_gathered(step, mesh, plan);
  }
  const int64_t tokens = rank_tokens(step, mesh, step.graph_frames());
  const int64_t clips = step.micro_batch;
  plan.activations_recomputed = clips * step.model.blocks * block_inputs(step, tokens);
  plan.activations_kept = clips * step.model.blocks * block_inner(step, tokens);
  plan.activations = step.recompute ? plan.activations_recomputed : plan.activations_kept;
  plan.block_work =
      clips * (block_backward(step, tokens) + (step.recompute ? block_inner(step, tokens) : 0));
  plan.kv_cache = step.stage == "dmd" ? cache_bytes(step, mesh) : 0;
  return plan;
}

}  // namespace minwm::parallel
