#pragma once
// A sequence of latent frames as chunks; each chunk says which frames it sees. Compiles to
// rectangles of plain attention, so no mask over tokens ever exists in training, generation or
// serving.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::nn {

/// Frames [begin, end) of the sequence.
struct FrameRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

/// Queries of `frames` attend to every token of the frames in `sees` (disjoint, ascending).
struct Chunk {
  FrameRange frames;
  std::vector<FrameRange> sees;
};

struct FramePlan {
  std::vector<Chunk> chunks;       ///< cover the sequence without gaps, in order
  std::vector<int64_t> positions;  ///< rotary frame position of every frame of the sequence
  int64_t frames() const { return static_cast<int64_t>(positions.size()); }
  /// Frames of the sequence before the first one that asks (queries are always its last frames).
  int64_t first_query() const { return frames() - (chunks.empty() ? 0 : chunks.back().frames.end); }
};

/// One chunk that sees itself.
FramePlan bidirectional_plan(int64_t frames);
/// [clean frames | noisy frames]: clean chunk i sees clean chunks <= i; noisy chunk i sees clean
/// chunks < i and itself. Without `last_clean` the clean half lacks its last chunk, which no noisy
/// chunk sees: what training computes. The last chunk may be short.
FramePlan teacher_forcing_plan(int64_t frames, int64_t chunk_frames, bool last_clean = true);
/// The queries of the frames from `first` (a chunk's start) on: `frames` of the chunks count from
/// there, what they see and the positions stay those of the whole sequence.
FramePlan queries_from(FramePlan plan, int64_t first);
/// Chunk i sees chunks <= i, at most the last `window_frames` frames up to its own end (-1 = all);
/// with first_frame_alone chunk 0 is one frame.
FramePlan block_causal_plan(int64_t frames, int64_t chunk_frames, int64_t window_frames = -1,
                            bool first_frame_alone = false);

/// The mask a plan stands for, bool [N, N] with N = frames * tokens_per_frame. For tests only.
at::Tensor dense_mask(const FramePlan& plan, int64_t tokens_per_frame);

}  // namespace minwm::nn
