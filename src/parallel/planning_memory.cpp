#include <algorithm>
#include <vector>

#include "minwm/core/error.h"
#include "minwm/parallel/planning.h"
#include "planning_work.h"

namespace minwm::parallel {
namespace {

constexpr int64_t kFloat = 4;
// Slices are cut from flat units that are rounded up to so many elements per rank.
constexpr int64_t kSliceAlignment = 16;
// cpu::kSoftmaxWidth of nn: up to this many keys the CPU keeps attention weights for backward.
constexpr int64_t kCpuKeys = 1024;
// comm's kPieceBytes and kArrivedBytes: what a sum over MPI holds of other ranks' slices at most.
constexpr int64_t kPieceBytes = int64_t{8} << 20, kArrivedBytes = int64_t{64} << 20;

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

/// Whether attention over so many keys goes through products and a softmax whose weights are kept.
bool keeps_weights(const StepShape& step, int64_t keys) {
  return step.device.cpu && keys <= kCpuKeys;
}

/// Frames that ask together, and how many they see.
struct AskingFrames {
  int64_t frames, seen;
  bool apart;  ///< they see two runs of frames: keys and values are copied together for them
};

/// The chunks of a step's widest graph.
std::vector<AskingFrames> asking_frames(const StepShape& step) {
  if (step.graph_frames() == step.frames) {
    return {{step.frames, step.frames, false}};
  }
  std::vector<AskingFrames> asking;
  const int64_t n = step.chunk_frames;
  for (int64_t seen = n; seen <= step.frames; seen += n) {
    // Noisy frames see clean ones and themselves; a joint text stands before the clean ones.
    asking.push_back({n, seen, seen > n || step.model.joint_text});
    if (seen < step.frames) {
      asking.push_back({n, seen, false});  // clean
    }
  }
  return asking;
}

/// Bytes of a clip's self-attention on one rank that depend on which frames see which.
struct AttentionBytes {
  int64_t kept = 0;      ///< weights or outputs, and copies of keys and values
  int64_t backward = 0;  ///< gradients of weights; of several chunks, keys' and values' parts
};

AttentionBytes attention_bytes(const StepShape& step, const MeshShape& mesh) {
  const auto& m = step.model;
  const int64_t c = step.device.compute_bytes, row = m.paths() * m.width * c;
  const auto asking = asking_frames(step);
  AttentionBytes bytes;
  for (const auto& chunk : asking) {
    const int64_t keys = chunk.seen * step.frame_tokens + (m.joint_text ? m.text_rows : 0);
    const int64_t queries = rank_tokens(step, mesh, chunk.frames);
    if (mesh.ring() == 1 && keeps_weights(step, keys)) {
      const int64_t weights = queries * m.paths() * m.heads * keys * c;
      bytes.kept += weights;
      bytes.backward = std::max(bytes.backward, weights);
    } else {
      bytes.kept += queries * row;
    }
    if (mesh.ring() == 1 && chunk.apart) {
      bytes.kept += 2 * row * ((keys + mesh.context - 1) / mesh.context);
    }
  }
  if (mesh.ring() == 1 && asking.size() > 1) {
    bytes.backward += row * rank_tokens(step, mesh, step.graph_frames());
  }
  return bytes;
}

/// Bytes per image token.
struct TokenBytes {
  int64_t kept = 0;  ///< by a block, from its forward to its backward
  /// Beside what is still kept, where the feed-forward's gradients are made and where those of
  /// self-attention are, when everything after it is gone.
  int64_t feed_forward = 0, attention = 0;
};

TokenBytes token_bytes(const StepShape& step, const MeshShape& mesh) {
  const auto& m = step.model;
  const int64_t w = m.width, paths = m.paths(), c = step.device.compute_bytes;
  const bool ring = mesh.ring() > 1;
  // The normed input, q and k before their norms, transformed q, k, v.
  int64_t before = w * (1 + 2 + 3 * paths) * c;
  // The merged rows, the output that is gated; the second sublayer's normed input, hidden values
  // before and after the activation, output.
  int64_t after = (w * (paths + 1 + 1 + 1) + 2 * m.ffn_width) * c + w * m.residual_bytes;
  if (!m.joint_text) {
    // Cross-attention: its input, q before and after the norm, the merged rows; the residual
    // stream.
    const bool plain_text = keeps_weights(step, m.text_rows);
    after += 4 * w * c + (plain_text ? m.heads * m.text_rows : w) * c + w * m.residual_bytes;
  }
  before += w * m.residual_bytes;  // the block's input
  const int64_t stream = w * m.residual_bytes;
  // Gradients of the output, q, k, v. In a ring: of the output; keys and values here and on their
  // way; in float32 q's, two pairs that travel and three of the present part.
  const int64_t around =
      ring ? paths * w * ((1 + 4) * c + (1 + 4 + 3) * kFloat) : 4 * paths * w * c;
  // A block that is run again has its output, too, and the gradient that came in stays.
  const int64_t held = step.recompute ? stream : 0;
  TokenBytes bytes;
  bytes.kept = before + after;
  bytes.feed_forward = stream + held + m.ffn_width * c;
  bytes.attention = stream + 2 * held + around - after;
  return bytes;
}

/// Bytes that a block keeps of a text row: a stream of its own, or keys and values.
int64_t kept_per_text_row(const StepShape& step) {
  const auto& m = step.model;
  const int64_t c = step.device.compute_bytes;
  if (m.joint_text) {
    return (m.width * 11 + 2 * m.ffn_width) * c + 2 * m.width * m.residual_bytes;
  }
  // k before and after its norm, v; the input twice where it has to be cast.
  return m.width * (3 + (c == kFloat ? 0 : 2)) * c;
}

/// What flows from block to block and is kept for each when blocks are recomputed.
int64_t block_inputs(const StepShape& step, int64_t tokens) {
  const auto& m = step.model;
  const int64_t text = m.joint_text ? m.text_rows : 0;
  return (tokens + text) * m.width * m.residual_bytes;
}

/// What refines a joint text in the root, two blocks and their mappers, is never run again. Weights
/// are cast where they are used.
int64_t text_work(const StepShape& step) {
  const auto& m = step.model;
  if (!m.joint_text) {
    return 0;
  }
  const int64_t c = step.device.compute_bytes;
  const int64_t casts = c == kFloat ? 0 : m.root.matrices * c;
  return casts + 2 * step.micro_batch * m.text_rows * kept_per_text_row(step);
}

int64_t block_inner(const StepShape& step, const MeshShape& mesh, int64_t tokens) {
  return tokens * token_bytes(step, mesh).kept + attention_bytes(step, mesh).kept +
         step.model.text_rows * kept_per_text_row(step);
}

/// What a rank holds of one network, in the items of MemoryPlan.
MemoryPlan held_of(const StepShape& step, const MeshShape& mesh, const NetworkUse& network) {
  const Slices own = slices_of(step.model, mesh.copy());
  const int64_t compute = step.device.compute_bytes;
  // A rank that holds a whole copy uses it as it is, in float32.
  const bool shared = mesh.copy() > 1;
  MemoryPlan held;
  if (!network.trained) {
    held.frozen =
        own.matrices * (shared ? compute : kFloat) + (own.vectors + own.root.parameters()) * kFloat;
    return held;
  }
  const int64_t cast = shared && compute != kFloat ? own.matrices * compute : 0;
  const int64_t per_matrix = (step.muon ? 1 : 2) * kFloat;
  held.parameters = own.all() * kFloat;
  held.casts = cast + (network.average == Average::kRuns ? cast : 0);
  held.gradients = own.all() * kFloat;
  held.moments = (own.matrices + own.root.matrices) * per_matrix +
                 (own.vectors + own.root.vectors) * 2 * kFloat;
  held.averages = network.average == Average::kNone ? 0 : own.all() * kFloat;
  return held;
}

bool offloaded(const StepShape& step, const NetworkUse& network) {
  return network.trained ? step.offload_optimizer : step.offload_teacher;
}

void add_slices(const StepShape& step, const MeshShape& mesh, MemoryPlan& plan) {
  for (const auto& network : networks_of(step)) {
    const MemoryPlan held = held_of(step, mesh, network);
    if (offloaded(step, network)) {
      plan.host += held.steady();
      continue;
    }
    plan.parameters += held.parameters;
    plan.casts += held.casts;
    plan.gradients += held.gradients;
    plan.moments += held.moments;
    plan.averages += held.averages;
    plan.frozen += held.frozen;
  }
}

/// Other ranks' slices while a sum of slices is made. Libraries of GPUs have buffers of their own.
int64_t arrived(const StepShape& step, int64_t slice_bytes, int64_t ranks) {
  if (!step.device.cpu || ranks == 1) {
    return 0;
  }
  return (ranks - 1) * std::min({slice_bytes, kPieceBytes, kArrivedBytes / (ranks - 1)});
}

/// A block's backward at one of its moments: the plan takes the one that needs most.
struct Moment {
  int64_t work = 0;  ///< activations of the block that runs and their gradients
  int64_t block_gradients = 0, flat_gradients = 0, exchange = 0;
  int64_t gone = 0;  ///< activations of blocks that are through
  int64_t bytes() const { return work + block_gradients + flat_gradients + exchange - gone; }
};

/// What a block's backward takes beside what is kept of all blocks: where its feed-forward's
/// gradients are made, where its attention's are.
std::vector<Moment> backward_moments(const StepShape& step, const MeshShape& mesh, int64_t tokens,
                                     int64_t gradient) {
  const TokenBytes each = token_bytes(step, mesh);
  // A block that runs again is kept but for its input, which is kept already.
  const int64_t inner =
      step.recompute
          ? step.micro_batch * (block_inner(step, mesh, tokens) - block_inputs(step, tokens))
          : 0;
  const int64_t rows = step.micro_batch * tokens,
                around = step.micro_batch * attention_bytes(step, mesh).backward;
  return {{inner + rows * each.feed_forward, gradient, 0, 0, 0},
          {inner + rows * each.attention + around, gradient, 0, 0, 0}};
}

void take_widest(const std::vector<Moment>& moments, MemoryPlan& plan) {
  const Moment& widest =
      *std::max_element(moments.begin(), moments.end(),
                        [](const Moment& a, const Moment& b) { return a.bytes() < b.bytes(); });
  plan.block_work = widest.work;
  plan.block_gradients = widest.block_gradients;
  plan.flat_gradients += widest.flat_gradients;
  plan.exchange += widest.exchange;
  plan.activations -= widest.gone;
}

/// Weights and gradients of a rank that holds a whole copy: only casts of matrices come and go, or
/// stay with the activations.
void add_whole(const StepShape& step, const MeshShape& mesh, int64_t tokens, MemoryPlan& plan) {
  const auto& m = step.model;
  const int64_t compute = step.device.compute_bytes;
  const bool casts = compute != kFloat;
  plan.gathered = casts ? (step.recompute ? 1 : m.blocks) * m.block.matrices * compute : 0;
  auto moments =
      backward_moments(step, mesh, tokens, m.largest_matrix * (kFloat + (casts ? compute : 0)));
  if (step.recompute) {
    // A block's gradients are handed over together: in the end all are there.
    const int64_t all = m.block.parameters() * kFloat;
    moments[1].block_gradients = all - 3 * m.width * m.width * kFloat;
    moments.push_back({2 * step.micro_batch * block_inputs(step, tokens), all, 0, 0, 0});
  }
  take_widest(moments, plan);
  plan.exchange = arrived(step, m.parameters() * kFloat / mesh.replicate, mesh.replicate);
}

/// Whether a step sums a unit's gradients more than once: all but the first sum need a place.
bool sums_again(const StepShape& step, const MeshShape& mesh) {
  const auto networks = networks_of(step);
  return step.reduce_each &&
         (accumulation_of(step, mesh) > 1 ||
          std::any_of(
              networks.front().passes.begin(), networks.front().passes.end(),
              [&](const Pass& pass) { return pass.backward && step.recompute && pass.calls > 1; }));
}

/// Weights and gradients that are whole for a moment.
void add_gathered(const StepShape& step, const MeshShape& mesh, int64_t tokens, MemoryPlan& plan) {
  const auto& m = step.model;
  const int64_t compute = step.device.compute_bytes;
  const int64_t block = m.block.parameters() * kFloat, root = m.root.parameters() * kFloat;
  const UnitShape own = slice(m.block, mesh.copy());
  // Networks without gradients run while the one that has them waits for its backward.
  plan.root = root * (networks_of(step).size() > 1 ? 2 : 1);
  const int64_t present = std::min(1 + step.prefetch, m.blocks);
  plan.gathered = present * gathered_bytes(m.block, compute);
  plan.flat_gradients = root;
  plan.unreduced = step.reduce_each ? 0 : m.blocks * block;
  if (step.offload_optimizer || step.offload_teacher) {
    plan.exchange += present * gathered_bytes(own, compute);
  }
  if (step.offload_optimizer && mesh.replicate > 1) {
    plan.exchange += slices_of(m, mesh.copy()).all() * kFloat;
  }
  const int64_t flat = step.reduce_each ? block : 0;
  const int64_t sum =
      arrived(step, own.matrices * kFloat, mesh.copy()) +
      (sums_again(step, mesh) || step.offload_optimizer ? own.parameters() * kFloat : 0);
  auto moments = backward_moments(step, mesh, tokens, m.largest_matrix * compute);
  for (auto& moment : moments) {
    moment.flat_gradients = flat;
  }
  const int64_t clips = step.micro_batch;
  if (step.recompute) {
    // While a block runs again the gradients of the one after it, which is through with its input,
    // are summed.
    const int64_t inner =
        block_inner(step, mesh, tokens) - (m.blocks > 1 ? block_inputs(step, tokens) : 0);
    moments.push_back({clips * inner, 0, flat, sum, 0});
  } else if (m.blocks > 1) {
    for (size_t i = 0; i < 2; ++i) {
      Moment next = moments[i];
      next.flat_gradients *= 2;
      next.exchange = sum;
      next.gone = clips * block_inner(step, mesh, tokens);
      moments.push_back(next);
    }
  }
  take_widest(moments, plan);
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
  return steady() + root + text_work + gathered + exchange + flat_gradients + block_gradients +
         unreduced + activations + block_work + kv_cache;
}

std::vector<NetworkPlan> plan_networks(const StepShape& step, const MeshShape& mesh) {
  std::vector<NetworkPlan> plans;
  for (const auto& network : networks_of(step)) {
    plans.push_back({network.name, network.trained, network.average != Average::kNone,
                     offloaded(step, network), held_of(step, mesh, network).steady()});
  }
  return plans;
}

MemoryPlan plan_memory(const StepShape& step, const MeshShape& mesh) {
  step.check();
  (void)accumulation_of(step, mesh);
  require(mesh.copy() > 1 || !step.offloads(), "{}", kOffloadNeedsShards);
  MemoryPlan plan;
  add_slices(step, mesh, plan);
  const int64_t tokens = rank_tokens(step, mesh, step.graph_frames());
  const int64_t clips = step.micro_batch;
  plan.activations_recomputed = clips * step.model.blocks * block_inputs(step, tokens);
  plan.activations_kept = clips * step.model.blocks * block_inner(step, mesh, tokens);
  plan.text_work = text_work(step);
  plan.activations = step.recompute ? plan.activations_recomputed : plan.activations_kept;
  if (mesh.copy() == 1) {
    add_whole(step, mesh, tokens, plan);
  } else {
    add_gathered(step, mesh, tokens, plan);
  }
  plan.kv_cache = step.stage == "dmd" ? cache_bytes(step, mesh) : 0;
  return plan;
}

}  // namespace minwm::parallel
