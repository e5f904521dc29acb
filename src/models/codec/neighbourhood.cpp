#include "minwm/models/codec/neighbourhood.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

constexpr int64_t kFurthestReach = 3;  ///< 7 x 7: beyond it the equations are only large

/// The K x K vectors around every cell, K = 2 reach + 1: [B, C, h, w] → [B h w, K K C].
at::Tensor neighbours(const at::Tensor& latents, int64_t reach) {
  const int64_t side = 2 * reach + 1;
  // Channels last: the copy below then moves K C numbers at a time.
  const at::Tensor padded = at::replication_pad2d(latents, {reach, reach, reach, reach})
                                .permute({0, 2, 3, 1})
                                .contiguous();
  return padded.unfold(1, side, 1)
      .unfold(2, side, 1)
      .permute({0, 1, 2, 4, 5, 3})
      .reshape({latents.size(0) * latents.size(2) * latents.size(3), -1});
}

}  // namespace

void NeighbourhoodOptions::check() const {
  require(reach >= 0 && reach <= kFurthestReach, "decoder reach {}: expected 0 to {} blocks", reach,
          kFurthestReach);
  require(noise >= 0 && noise <= 10, "decoder noise {}: expected 0 (exact latents) to 10", noise);
  require(ridge > 0 && ridge <= 1e9, "decoder ridge {}: expected above 0, at most 1e9", ridge);
}

at::Tensor NeighbourhoodDecoder::decode(const at::Tensor& latents) const {
  return at::addmm(bias.to(latents.device()), neighbours(latents, weight.size(0) / 2),
                   weight.flatten(0, 2).to(latents.device()));
}

NeighbourhoodFit::NeighbourhoodFit(int64_t channels, int64_t size, int64_t reach)
    : channels_(channels), reach_(reach) {
  const int64_t cells = (2 * reach + 1) * (2 * reach + 1), features = cells * channels;
  gram_ = at::zeros({features + 1, features + 1}, at::kDouble);
  products_ = at::zeros({features + 1, size}, at::kDouble);
  same_ = at::zeros({cells, cells}, at::kDouble);
}

void NeighbourhoodFit::add(const at::Tensor& latents, const at::Tensor& blocks) {
  const int64_t h = latents.size(2), w = latents.size(3);
  const at::Tensor x = at::constant_pad_nd(neighbours(latents.to(at::kDouble), reach_), {0, 1}, 1);
  gram_.addmm_(x.t(), x);
  products_.addmm_(x.t(), blocks.to(at::kDouble));
  const at::Tensor cell =
      neighbours(at::arange(h * w, at::kDouble).view({1, 1, h, w}), reach_);  // [h w, K K]
  same_ += (cell.unsqueeze(1) == cell.unsqueeze(2)).sum(0) * latents.size(0);
}

NeighbourhoodDecoder NeighbourhoodFit::solve(const at::Tensor& own, double noise,
                                             double ridge) const {
  const int64_t side = 2 * reach_ + 1, features = gram_.size(0) - 1;
  at::Tensor left = gram_.clone(), right = products_.clone();
  // Noise adds its covariance to that of the features, and nothing on average to the products.
  left.narrow(0, 0, features).narrow(1, 0, features) +=
      at::kron(same_ * (noise * noise), at::eye(channels_, at::kDouble)) +
      ridge * at::eye(features, at::kDouble);
  right.narrow(0, side * side / 2 * channels_, channels_) += ridge * own.to(at::kDouble);
  const at::Tensor solution = at::cholesky_solve(right, at::linalg_cholesky(left));
  return {
      solution.narrow(0, 0, features).view({side, side, channels_, -1}).to(at::kFloat).contiguous(),
      solution[features].to(at::kFloat).contiguous()};
}

}  // namespace minwm::models
