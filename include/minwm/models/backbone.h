#pragma once
// What stages, streaming and sharding see of a diffusion transformer, whatever its family.

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/conditions.h"
#include "minwm/nn/unit_runner.h"

namespace minwm::parallel {
class Context;
}

namespace minwm::models {

/// One full-sequence forward. The frame plan follows from it: without chunk_frames one
/// bidirectional chunk; with chunk_frames and clean_latents teacher forcing: noisy chunk i sees
/// clean chunks < i and itself, clean chunk i sees clean <= i; with chunk_frames alone chunk i sees
/// chunks <= i of the noisy frames themselves.
struct ForwardInput {
  at::Tensor latents;   ///< [B, T, C, H, W] noisy
  at::Tensor timestep;  ///< [B, T] float32 in 0 … 1000, one per frame
  Conditions conditions;
  at::Tensor clean_latents;   ///< [B, T, C, H, W] or undefined
  at::Tensor clean_timestep;  ///< [B, T] or undefined (= 0)
  int64_t chunk_frames = 0;   ///< causal forms; HY: the last chunk may be shorter
  /// HY: [B], the timestep that drives the text stream; undefined = 0, as everything but the
  /// published base model's own sampling has it (there it is the frames').
  at::Tensor text_timestep;
};

/// Keys and values of committed chunks. Opaque outside the model; window and sink in frames.
class KvCache {
 public:
  virtual ~KvCache() = default;
  /// Forgets everything (new clip, new prompt).
  virtual void reset() = 0;
  /// Forgets the frames but not what the text turned into: the next chunk is frame 0 again.
  virtual void forget_frames();
  /// Frames committed so far, evicted ones included: the position of the next chunk.
  virtual int64_t frames_seen() const = 0;
};

struct CacheOptions {
  int64_t batch = 1;
  int64_t window_frames = 20;  ///< frames a chunk sees, itself and the sink included
  int64_t sink_frames = 0;     ///< first frames that are never evicted
  /// Sink frames are seen at the positions just before the other frames of the window, however far
  /// it has moved on: no distance is ever longer than the window (rolling forcing, spec stages 11).
  bool sink_follows_window = false;
};

/// One streaming call on the chunk that follows the committed frames.
struct StreamInput {
  at::Tensor latents;     ///< [B, n, C, H, W]
  at::Tensor timestep;    ///< [B, n] float32
  Conditions conditions;  ///< cameras of these n frames
  bool commit = false;    ///< write this chunk's keys and values (the clean pass); the flow is then
                          ///< not computed
  /// What the text turns into (its keys and values) is constant: made once per cache, without
  /// gradients.
  bool constant_text = false;
};

/// Where the published HY models stream otherwise than they were taught; needed to reproduce those
/// (spec hy-mmdit 11). Checkpoints record them.
struct StreamSwitches {
  /// The camera attention reads the committed frames as the rotary attention does (their rotated
  /// keys, untransformed values) instead of through their cameras.
  bool rope_only_history = false;
  /// Committed frames are told their actions; teacher forcing does not tell its clean frames.
  bool context_action = false;
  bool operator==(const StreamSwitches&) const = default;
};

class Backbone : public torch::nn::Module {
 public:
  /// Flow prediction for every noisy frame: [B, T, C, H, W] float32.
  virtual at::Tensor forward(const ForwardInput& input) = 0;
  /// Flow prediction for the chunk, reading the cache as constants (gradients flow through the
  /// chunk itself and the text only). With commit: appends to the cache under no_grad and returns
  /// an undefined tensor.
  virtual at::Tensor stream(const StreamInput& input, KvCache& cache) = 0;
  virtual std::unique_ptr<KvCache> make_cache(const CacheOptions& options, int64_t height,
                                              int64_t width) = 0;
  /// The modules to shard, in run order; together they own every parameter but those of the root
  /// itself.
  virtual std::vector<std::shared_ptr<torch::nn::Module>> units() = 0;
  virtual int64_t latent_channels() const = 0;
  virtual int64_t text_dim() const = 0;
  /// Compute type of matrix products and attention (kFloat or kBFloat16); parameters stay float32.
  virtual void set_compute_dtype(at::ScalarType dtype) = 0;
  /// Recompute each block in backward instead of keeping its activations.
  virtual void set_activation_checkpointing(bool enabled) = 0;
  /// How the units get at their weights; LocalUnits until somebody spreads them over ranks.
  const std::shared_ptr<nn::UnitRunner>& unit_runner() const { return unit_runner_; }
  void set_unit_runner(std::shared_ptr<nn::UnitRunner> runner) { unit_runner_ = std::move(runner); }
  /// The ranks with which forward and stream share the tokens of every frame; inputs, outputs and
  /// their gradients are the same on all of them, gradients of parameters are to be summed over
  /// them. Caches are made after this.
  /// @throws Error if there are several and the model cannot.
  virtual void set_context(std::shared_ptr<const parallel::Context> context);
  /// @throws Error if any is set and the model has no such choice.
  virtual void set_stream_switches(const StreamSwitches& switches);
  /// True if a clip's first frame is given through the conditions (with_first_latent), false if it
  /// is given by standing clean in the sequence.
  virtual bool reads_first_latent() const { return false; }
  /// `conditions` with the first latent [B, 1, C, H, W] of a clip of `frames` given; undefined = no
  /// image. @throws Error unless reads_first_latent().
  virtual Conditions with_first_latent(const Conditions& conditions, const at::Tensor& first_latent,
                                       int64_t frames) const;
  /// True if Conditions::actions must be there.
  virtual bool reads_actions() const { return false; }
  virtual bool reads_cameras() const { return true; }
  /// Latent pixels of a token: height, width.
  virtual std::array<int64_t, 2> patch() const { return {1, 1}; }
  /// The initial values of the parameter `name`, into `values` (its full shape, float32).
  virtual void initialise(const std::string& name, at::Tensor& values, uint64_t seed) const;

 private:
  std::shared_ptr<nn::UnitRunner> unit_runner_;
};

/// What `model` reads of a whole clip's conditions [B, T, …]: without the cameras if it has no use
/// for them, with the actions that they make if it reads those, with `first_latent` [B, 1, C, H, W]
/// (undefined = not given) if it is told through the conditions.
Conditions conditions_for(const Backbone& model, const Conditions& conditions,
                          const at::Tensor& first_latent, int64_t frames);
/// Action labels [B, T] of absolute cameras [B, T, 4, 4].
at::Tensor actions_of(const camera::Cameras& cameras);

/// Builds a backbone from its preset name ("wan-tiny", "hy-8b", …; "hy-8b@2" = with 2 blocks),
/// parameters initialised from `seed`.
/// @throws Error naming the nearest known preset.
std::shared_ptr<Backbone> make_backbone(const std::string& preset, uint64_t seed);
/// The same with hollow parameters: shapes, no memory (nn/parameters.h).
std::shared_ptr<Backbone> make_hollow_backbone(const std::string& preset);
std::vector<std::string> backbone_presets();

}  // namespace minwm::models
