#pragma once
// What a training step needs before a node-hour is spent: bytes per rank, bytes on the wire, time.
// Pure arithmetic over a description of a model; it builds none. All results are estimates of how
// this program runs a step (sharded_model.h, context.h): whole numbers of bytes for what it stores,
// a count of tensors for activations, assumed rates for time. Source: parallel.md section 3.7.
// Bytes were checked against tensors counted on CPU ranks (docs/benchmarks.md, parallel_bench): a
// Wan model on 1, 2 and 4 ranks, recomputed or kept, float32 or bfloat16. Activations on a GPU,
// those of hy-8b and all of time were not.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace minwm::parallel {

/// Elements of a unit's parameters: those with two axes, which travel in the compute type, and the
/// rest, which stays float32.
struct UnitShape {
  int64_t matrices = 0, vectors = 0;
  int64_t parameters() const { return matrices + vectors; }
};

/// A diffusion transformer of equal blocks, as far as memory and work depend on it.
struct ModelShape {
  std::string name;
  UnitShape root;   ///< embeddings and head: gathered for a whole forward, in float32
  UnitShape block;  ///< one of `blocks`
  int64_t blocks = 0;
  int64_t width = 0, heads = 0, ffn_width = 0;
  int64_t text_rows = 0;          ///< text (and image feature) rows that a clip's tokens see
  int64_t pixels_per_token = 16;  ///< of a side: codec times patch
  bool camera = true;             ///< a second attention path, through cameras
  /// Text rows run through the blocks and attend with the image (hy); else blocks cross-attend
  /// (wan).
  bool joint_text = false;
  int64_t token_multiplies = 0;  ///< multiply-adds of a block's matrices per image token
  int64_t text_multiplies = 0;   ///< and per text row
  int64_t largest_matrix = 0;    ///< elements of a block's largest parameter
  int64_t residual_bytes = 4;    ///< per element of what runs from block to block

  int64_t parameters() const { return root.parameters() + blocks * block.parameters(); }
  int64_t paths() const { return camera ? 2 : 1; }
};

/// A device as the plan assumes it. Rates per rank and direction, in bytes and FLOP per second. A
/// collective over whole nodes uses the adapters of all their ranks at once.
struct DeviceKind {
  std::string name;
  double memory = 0;          ///< bytes
  double reserved = 0;        ///< bytes that are never ours: driver, libraries, communication
  double flops = 0;           ///< peak of the compute type
  double efficiency = 0;      ///< assumed share of it that a step reaches
  double node_bandwidth = 0;  ///< between ranks of a node
  double wire_bandwidth = 0;  ///< between nodes, per rank
  int64_t per_node = 8;
  int64_t compute_bytes = 2;  ///< of the compute type
  bool cpu = false;
};

/// h100, h200, a100 or cpu. @throws Error naming the nearest known kind.
DeviceKind device_kind(const std::string& name);
std::vector<std::string> device_kinds();

/// Ranks = replicate x shard x context; context = ulysses x ring.
struct MeshShape {
  int64_t replicate = 1, shard = 1, context = 1, ulysses = 1;
  int64_t ranks() const { return replicate * shard * context; }
  int64_t copy() const { return shard * context; }  ///< ranks that share one copy of the weights
  int64_t data() const { return replicate * shard; }
  int64_t ring() const { return context / ulysses; }
  bool operator==(const MeshShape&) const = default;
};
std::string to_string(const MeshShape& mesh);

/// A training step; its mesh comes separately.
struct StepShape {
  ModelShape model;
  DeviceKind device;
  std::string stage = "bidirectional";  ///< bidirectional, teacher-forcing, ode, consistency, dmd
  int64_t frames = 20;                  ///< latent
  int64_t frame_tokens = 1560;
  int64_t chunk_frames = 4;    ///< causal stages
  int64_t window_frames = 20;  ///< of rollouts
  int64_t rollout_steps = 4;
  int64_t generator_every = 5;  ///< dmd: iterations per generator update
  int64_t global_batch = 64, micro_batch = 1;
  bool recompute = true;    ///< Way A of parallel.md 3.1; false keeps activations (Way B)
  bool reduce_each = true;  ///< see ShardOptions
  int64_t prefetch = 1;
  /// A float32 average of the weights is kept (--ema.decay > 0). Consistency has one in any case:
  /// it evaluates it.
  bool averaged = false;
  bool muon = false;  ///< one moment per matrix element instead of two
  bool offload_optimizer =
      false;                     ///< trained slices, gradients, moments and averages in host memory
  bool offload_teacher = false;  ///< frozen slices in host memory
  bool offloads() const { return offload_optimizer || offload_teacher; }

  /// Tokens in graph: teacher forcing holds clean frames beside the noisy ones.
  int64_t graph_frames() const;
  /// @throws Error in one line on values that make no sense.
  void check() const;
};

/// Bytes of one rank, item by item. With shard x context = 1 a rank uses whole float32 weights as
/// they are (train/data_parallel.h): nothing is gathered. What comes and goes in a backward is that
/// of its widest moment.
struct MemoryPlan {
  // For the whole run.
  int64_t parameters = 0;  ///< float32 slices of trained networks
  int64_t casts = 0;       ///< the same slices of matrices in the compute type, to be gathered
  int64_t gradients = 0;   ///< float32, of trained networks
  int64_t moments = 0;     ///< of the optimizers
  int64_t averages = 0;    ///< running average (float32)
  int64_t frozen = 0;      ///< slices of frozen networks: matrices in the compute type if shared
  // While a step runs.
  int64_t root = 0;       ///< gathered roots, float32
  int64_t text_work = 0;  ///< joint text: the root's casts and activations, kept for backward
  int64_t gathered = 0;   ///< gathered blocks: the running one and those ahead
  int64_t exchange =
      0;  ///< slices on their way: sums to be added, what comes from or goes to the host
  int64_t flat_gradients = 0;   ///< float32 gradients of a block and the root, before the reduction
  int64_t block_gradients = 0;  ///< of parameters, before they are in their place
  int64_t unreduced = 0;        ///< reduce_each = false: flat gradients of all blocks instead
  int64_t activations = 0;      ///< kept from forward to backward
  int64_t block_work = 0;       ///< of the block that runs: its activations and their gradients
  int64_t kv_cache = 0;         ///< rollouts: keys and values of frames and text
  // What activations would be the other way, for comparison.
  int64_t activations_kept = 0, activations_recomputed = 0;
  int64_t host = 0;  ///< offloaded, in host memory; not in the sums below

  int64_t steady() const { return parameters + casts + gradients + moments + averages + frozen; }
  int64_t total() const;
};

/// What one rank holds of one network for the whole run.
struct NetworkPlan {
  std::string name;        ///< "model", or generator, critic, real score, teacher
  bool trained = false;    ///< else frozen: matrices in the compute type if shared
  bool averaged = false;   ///< it has a running average
  bool offloaded = false;  ///< in host memory
  int64_t bytes = 0;       ///< there or on the device
};

/// Bytes that one rank sends in a step (and receives as many), averaged over iterations.
struct WirePlan {
  double gathers = 0;     ///< of weights, over shard x context
  double reductions = 0;  ///< of gradients, over shard x context
  double replicate = 0;   ///< all-reduce of gradient slices between copies
  double ulysses = 0;     ///< heads for tokens
  double ring = 0;        ///< keys and values, and their gradients back
  double total() const { return gathers + reductions + replicate + ulysses + ring; }
};

/// Seconds of a step, averaged over iterations.
struct TimePlan {
  double flop = 0;  ///< of one rank, recomputation included
  double compute = 0;
  double weights = 0;  ///< gathers and reductions; hidden behind compute as far as they fit
  double replicate = 0, ulysses = 0, ring = 0;  ///< not hidden (the ring: as far as it is longer)
  double step = 0;
  double tokens_per_second = 0;  ///< of the whole mesh: latent tokens of the clips
};

/// @throws Error also if anything is offloaded that is not shared (shard x context = 1).
MemoryPlan plan_memory(const StepShape& step, const MeshShape& mesh);
/// The networks of the stage; their bytes together are those of plan_memory's steady() and host.
std::vector<NetworkPlan> plan_networks(const StepShape& step, const MeshShape& mesh);
WirePlan plan_wire(const StepShape& step, const MeshShape& mesh);
TimePlan plan_time(const StepShape& step, const MeshShape& mesh);

/// Bytes that a plan may use: memory without what is reserved, and without a margin for
/// fragmentation.
double usable_memory(const DeviceKind& device);

/// Share of the usable memory that a proposal fills at most, where there is a choice: figures of
/// activations are estimates.
constexpr double kRoom = 0.8;

/// Axes that the user fixed; 0 or less = free.
struct MeshWish {
  int64_t replicate = 0, shard = 0, context = 0, ulysses = 0;
};

/// Ulysses ranks of a context group: the largest part of it that divides the heads and stays within
/// a node.
int64_t ulysses_of(const StepShape& step, int64_t context);

/// The mesh of `ranks` that fits, with room if possible: fewest context ranks with which the global
/// batch is a whole number of micro-batches on every data rank, then the fewest ranks per copy of
/// the weights; copies for the rest. Nothing if none fits.
std::optional<MeshShape> propose_mesh(const StepShape& step, int64_t ranks,
                                      const MeshWish& wish = {});

/// What makes a step fit on ranks where it does not.
struct Remedy {
  std::string options;  ///< of minwm train, or a number of ranks
  StepShape step;
  int64_t ranks;
  MeshShape mesh;
};
/// The first that does of: recomputation, smaller micro-batches, slices in host memory (frozen
/// ones, trained ones, both), Muon (which trains otherwise); else twice the ranks, and again.
std::optional<Remedy> find_remedy(const StepShape& step, int64_t ranks);
/// In words: "with --parallel.offload teacher it fits as …", or what else to try.
std::string remedy_text(const std::optional<Remedy>& remedy);

/// The mesh to use: the wished one if it is complete, else a proposal.
/// @throws Error in one line if it does not fit (what is needed, what is there, and a mesh that
///         fits), or cannot be (axes, batch).
MeshShape choose_mesh(const StepShape& step, int64_t ranks, const MeshWish& wish);

}  // namespace minwm::parallel
