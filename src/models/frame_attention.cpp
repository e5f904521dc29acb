#include "minwm/models/frame_attention.h"

#include <numeric>

#include "minwm/camera/prope.h"
#include "minwm/core/error.h"
#include "minwm/nn/heads.h"

namespace minwm::models {
namespace {

at::Tensor transposed(const at::Tensor& matrices) {
  return matrices.defined() ? matrices.transpose(2, 3) : matrices;
}

}  // namespace

// Matrices act on rows: q' = P^T q, k' = P^-1 k, v' = P^-1 v and o' = P o become q P, k P^-T, v
// P^-T and o P^T.
at::Tensor transform_queries(const at::Tensor& q, const Geometry& geometry) {
  return nn::split_heads(q, geometry.rotary, geometry.p);
}

at::Tensor transform_keys(const at::Tensor& k, const Geometry& geometry) {
  return nn::split_heads(k, geometry.rotary, transposed(geometry.p_inverse));
}

at::Tensor transform_values(const at::Tensor& v, const Geometry& geometry) {
  return nn::split_heads(v, {}, transposed(geometry.p_inverse));
}

at::Tensor head_rows(const at::Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads});
}

std::vector<at::Tensor> path_rows(const at::Tensor& heads, const Geometry& geometry) {
  const at::Tensor rows = nn::merge_heads(heads, transposed(geometry.p));
  if (!geometry.camera()) {
    return {rows};
  }
  const int64_t width = rows.size(2) / 2;
  return {rows.narrow(2, 0, width), rows.narrow(2, width, width)};
}

Geometry Geometry::from(int64_t first, int64_t tokens) const {
  if (first == 0) {
    return *this;
  }
  Geometry out;
  out.rotary = rotary.slice(0, first * tokens);
  if (camera()) {
    out.p = p.slice(1, first);
    out.p_inverse = p_inverse.slice(1, first);
  }
  return out;
}

Geometry Geometry::cameras_from(int64_t first) const {
  return camera() ? Geometry{{}, p.slice(1, first), {}} : Geometry{};
}

Geometry Geometry::clips(int64_t first, int64_t count) const {
  return camera() ? Geometry{rotary, p.narrow(0, first, count), p_inverse.narrow(0, first, count)}
                  : *this;
}

std::vector<int64_t> positions_from(int64_t first, int64_t count) {
  std::vector<int64_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

Geometry make_geometry(const std::vector<int64_t>& positions, int64_t height, int64_t width,
                       const nn::RotaryAxes& axes, const camera::Cameras& cameras,
                       const parallel::Context& context, const c10::Device& device) {
  Geometry out;
  out.rotary = context.portion_of(nn::rotary_table(positions, height, width, axes), height * width)
                   .to(device);
  if (cameras.defined()) {
    const auto frames = static_cast<int64_t>(positions.size());
    require(cameras.world_to_camera.size(1) == frames, "model: {} cameras for {} latent frames",
            cameras.world_to_camera.size(1), frames);
    const auto matrices = camera::projective_matrices(cameras);
    out.p = matrices.p.to(device);
    out.p_inverse = matrices.p_inverse.to(device);
  }
  return out;
}

Projections FrameSplit::to_heads(const Projections& rows, int64_t frames, int64_t asking) const {
  if (asking == frames) {
    const auto x = context->to_heads({rows.q, rows.k, rows.v}, frames, tokens);
    return {x[0], x[1], x[2]};
  }
  const auto x = context->to_heads({rows.k, rows.v}, frames, tokens);
  return {asking > 0 ? context->to_heads({rows.q}, asking, tokens).front() : at::Tensor(), x[0],
          x[1]};
}

}  // namespace minwm::models
