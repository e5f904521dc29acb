#pragma once
// Rolling forcing: a window of S chunks is denoised jointly, the newest at the noisiest level and
// the oldest at the cleanest; every pass finishes one chunk. For long videos (spec stages 11).
//
//   window 0 1 2 3 4 …      S = 3 levels, d0 > d1 > d2
//   chunk 0  d0 d1 d2        committed to the cache after d2
//   chunk 1     d0 d1 d2
//   chunk 2        d0 d1 d2

#include <deque>

#include "minwm/stages/self_rollout.h"

namespace minwm::stages {

/// The window that rolls over a clip: one engine for training rollouts and for endless generation.
///
///   RollingWindow window(model, options, {});
///   window.enter(noise, conditions_of_these_frames);
///   auto pass = window.advance(renoise);   // pass.finished: pass.x0's first chunk is final
///
/// Uses of RolloutOptions: step_list, shift, chunk_frames, window_frames (sink, cached chunks and a
/// full window of S chunks together), sink_frames and sink_follows_window (the reference: one
/// chunk, following), context_noise, table_sigma, text_gradient.
class RollingWindow {
 public:
  /// `first_latent` [B, 1, C, h, w] is the given first frame of chunk 0, or undefined.
  /// @throws Error if a full window and the sink do not fit the attention window, or for options
  /// that rolling does not have (first_chunk_step_list, renoise_context, euler).
  RollingWindow(models::Backbone& model, const RolloutOptions& options, at::Tensor first_latent);

  /// The next chunk: noise [B, n, C, h, w] and its frames' conditions; the text of all chunks is
  /// that of the oldest in the window. At most one chunk between two passes.
  void enter(const at::Tensor& noise, const models::Conditions& conditions);

  /// Noise [B, n, C, h, w] for a chunk of the window after a pass, oldest first.
  using Renoise = std::function<at::Tensor(int64_t window, int64_t chunk)>;
  struct Pass {
    int64_t first_chunk = 0;
    at::Tensor x0;          ///< [B, m n, C, h, w] of the m chunks; in the graph under grad mode
    bool finished = false;  ///< the first chunk had its last step and has left the window
  };
  /// One joint pass over the chunks in the window. No gradient crosses to the next pass.
  Pass advance(const Renoise& renoise);

  bool empty() const { return chunks_.empty(); }
  /// Commits the chunk that left last; advance() does it when a pass needs it.
  void settle();

 private:
  struct Chunk {
    int64_t index;
    size_t level;
    at::Tensor noisy;
    models::Conditions conditions;
  };
  at::Tensor timestep(const Chunk& chunk) const;
  bool holds_given() const;

  models::Backbone& model_;
  RolloutOptions options_;
  std::vector<double> levels_;
  at::Tensor first_latent_;
  std::unique_ptr<models::KvCache> cache_;
  std::deque<Chunk> chunks_;
  Chunk leaving_{};  // finished, to be committed
  int64_t entered_ = 0, windows_ = 0;
};

/// Everything random of a rolling rollout.
struct RollingDraws {
  at::Tensor noise;  ///< [B, F, C, h, w]
  /// E in 0 … S - 1: windows w with w mod S = E have gradients; their x0 are the output.
  int64_t exit_window = 0;
  RollingWindow::Renoise renoise;
};

/// Rolls over a whole clip: F / n + S - 1 windows. from and to are -1.
/// Source: spec stages 11; golden stages.rolling.train.trace.
Rollout rolling_rollout(models::Backbone& model, const RolloutInput& input,
                        const RollingDraws& draws, const RolloutOptions& options);

/// The draws of update `purpose`; E and the number of chunks are shared by all ranks.
RollingDraws draw_rolling(const data::Batch& batch, const StepAddress& address,
                          const std::string& purpose, const RolloutOptions& options);

}  // namespace minwm::stages
