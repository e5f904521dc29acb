#include "minwm/nn/frame_plan.h"

#include <numeric>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::nn {
namespace {

std::vector<int64_t> count_up(int64_t n) {
  std::vector<int64_t> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

}  // namespace

FramePlan bidirectional_plan(int64_t frames) {
  return {{{{0, frames}, {{0, frames}}}}, count_up(frames)};
}

FramePlan teacher_forcing_plan(int64_t frames, int64_t chunk_frames, bool last_clean) {
  require(chunk_frames > 0 && frames > 0, "teacher forcing: {} latent frames in chunks of {}",
          frames, chunk_frames);
  const int64_t last = (frames - 1) / chunk_frames * chunk_frames;  // where the last chunk starts
  const int64_t clean = last_clean ? frames : last;
  FramePlan plan;
  plan.positions = count_up(clean);
  const auto noisy = count_up(frames);
  plan.positions.insert(plan.positions.end(), noisy.begin(), noisy.end());
  for (int64_t first = 0; first < clean; first += chunk_frames) {
    const int64_t end = std::min(first + chunk_frames, clean);
    plan.chunks.push_back({{first, end}, {{0, end}}});
  }
  for (int64_t first = 0; first < frames; first += chunk_frames) {
    const FrameRange own{clean + first, clean + std::min(first + chunk_frames, frames)};
    plan.chunks.push_back({own, first == 0 ? std::vector<FrameRange>{own}
                                           : std::vector<FrameRange>{{0, first}, own}});
  }
  return plan;
}

FramePlan queries_from(FramePlan plan, int64_t first) {
  std::erase_if(plan.chunks, [&](const Chunk& chunk) { return chunk.frames.begin < first; });
  for (auto& chunk : plan.chunks) {
    chunk.frames.begin -= first;
    chunk.frames.end -= first;
  }
  return plan;
}

FramePlan block_causal_plan(int64_t frames, int64_t chunk_frames, int64_t window_frames,
                            bool first_frame_alone) {
  FramePlan plan;
  plan.positions = count_up(frames);
  for (int64_t first = 0; first < frames;) {
    const int64_t size = first == 0 && first_frame_alone ? 1 : chunk_frames;
    const int64_t end = std::min(first + size, frames);
    // A token always sees its own chunk's end; the window may cut even into the chunk itself.
    const int64_t begin = window_frames < 0 ? 0 : std::max<int64_t>(0, end - window_frames);
    if (begin <= first) {
      plan.chunks.push_back({{first, end}, {{begin, end}}});
    } else {
      for (int64_t frame = first; frame < end; ++frame) {
        plan.chunks.push_back({{frame, frame + 1}, {{begin, end}}});
      }
    }
    first = end;
  }
  return plan;
}

at::Tensor dense_mask(const FramePlan& plan, int64_t tokens_per_frame) {
  const int64_t n = plan.frames() * tokens_per_frame;
  at::Tensor mask = at::zeros({n, n}, at::kBool);
  for (const auto& chunk : plan.chunks) {
    for (const auto& range : chunk.sees) {
      mask.narrow(0, chunk.frames.begin * tokens_per_frame, chunk.frames.size() * tokens_per_frame)
          .narrow(1, range.begin * tokens_per_frame, range.size() * tokens_per_frame)
          .fill_(true);
    }
  }
  mask.diagonal().fill_(true);
  return mask;
}

}  // namespace minwm::nn
