#pragma once
// What the families' self-attention shares: projections of the tokens of a sequence of frames, how
// positions and cameras transform them, and the ranks that share them.

#include <memory>
#include <vector>

#include <torch/torch.h>

#include "minwm/camera/cameras.h"
#include "minwm/nn/embedding.h"
#include "minwm/parallel/context.h"

namespace minwm::models {

/// Queries, keys and values of one sequence, heads split and normed, untransformed: [B, N, A, D].
struct Projections {
  at::Tensor q, k, v;
};

/// Where tokens are and which cameras see them; the same for every block of a forward.
struct Geometry {
  at::Tensor rotary;        ///< [N, D / 2] complex64
  at::Tensor p, p_inverse;  ///< [B, T, 4, 4]; undefined = no camera
  bool camera() const { return p.defined(); }
  /// The frames from `first` on, `tokens` tokens each (of those that rotary has).
  Geometry from(int64_t first, int64_t tokens) const;
  /// Only the cameras of the frames from `first` on. The table of rotations goes another way: under
  /// context parallelism its rows are not those that this rank has of a frame.
  Geometry cameras_from(int64_t first) const;
  /// Clips [first, first + count).
  Geometry clips(int64_t first, int64_t count) const;
};

/// Queries (or keys, values) of the rotary path and, with a camera, of the camera path as more
/// heads: [B, N, A or 2A, D].
at::Tensor transform_queries(const at::Tensor& q, const Geometry& geometry);
at::Tensor transform_keys(const at::Tensor& k, const Geometry& geometry);
at::Tensor transform_values(const at::Tensor& v, const Geometry& geometry);

/// x [B, N, A D] → [B, N, A, D].
at::Tensor head_rows(const at::Tensor& x, int64_t heads);
/// What attention made of the heads [B, N, A or 2A, D], as rows: one [B, N, A D], or the rotary
/// path's and the camera path's, the latter back through its camera.
std::vector<at::Tensor> path_rows(const at::Tensor& heads, const Geometry& geometry);

/// `count` positions from `first` on.
std::vector<int64_t> positions_from(int64_t first, int64_t count);
/// The geometry of frames at `positions`, height x width tokens each, as this rank's portion of
/// them has it. @throws Error unless there is a camera for every frame, or none at all.
Geometry make_geometry(const std::vector<int64_t>& positions, int64_t height, int64_t width,
                       const nn::RotaryAxes& axes, const camera::Cameras& cameras,
                       const parallel::Context& context, const c10::Device& device);

/// The tokens of every frame in pieces for context ranks, heads first (parallel/context.h).
struct FrameSplit {
  std::shared_ptr<const parallel::Context> context;
  int64_t tokens, heads;  ///< of a whole frame, of the model

  /// Tokens of a frame that this rank attends with.
  int64_t portion() const { return context->portion(tokens).count; }
  /// This rank's rows of all heads → its portion's rows of its own heads. Of `frames` frames the
  /// last `asking` have queries.
  Projections to_heads(const Projections& rows, int64_t frames, int64_t asking) const;
};

}  // namespace minwm::models
