// Decoding in overlapping tiles (spec vae 4.5).

#include <algorithm>
#include <cmath>

#include "minwm/core/error.h"
#include "minwm/models/codec/hy_vae.h"

namespace minwm::models {
namespace {

/// Mixes the end of `before` into the start of `tile` along a dimension, in place: weights go
/// linearly from the former to the latter over at most `extent` pixels.
void blend(const at::Tensor& before, at::Tensor& tile, int64_t dim, int64_t extent) {
  const int64_t n = std::min({before.size(dim), tile.size(dim), extent});
  if (n == 0) {
    return;
  }
  std::vector<int64_t> shape(5, 1);
  shape[static_cast<size_t>(dim)] = n;
  const at::Tensor weight = at::arange(n, tile.options()).div_(static_cast<double>(n)).view(shape);
  at::Tensor start = tile.narrow(dim, 0, n);
  start.copy_(before.narrow(dim, before.size(dim) - n, n) * (1 - weight) + start * weight);
}

}  // namespace

at::Tensor HyVaeDecoderImpl::decode_tiled(const at::Tensor& z, const HyVaeTiling& tiling) const {
  check_latents(z);
  const int64_t side = tiling.sample_size / config_.ffactor_spatial;
  const double shared = static_cast<double>(side) * tiling.overlap;
  require(side >= 1 && tiling.sample_size % config_.ffactor_spatial == 0 && tiling.overlap >= 0 &&
              tiling.overlap < 1 && std::abs(shared - std::round(shared)) < 1e-6,
          "tiles of {} pixels that overlap by {}: expected a multiple of {} pixels and an overlap "
          "in [0, 1) of whole latents",
          tiling.sample_size, tiling.overlap, config_.ffactor_spatial);
  const int64_t stride = side - std::llround(shared);
  const int64_t extent = std::llround(shared) * config_.ffactor_spatial;
  const int64_t kept = tiling.sample_size - extent;
  std::vector<at::Tensor> above, rows;
  for (int64_t y = 0; y < z.size(3); y += stride) {
    std::vector<at::Tensor> tiles, cropped;
    for (int64_t x = 0; x < z.size(4); x += stride) {
      const at::Tensor part =
          z.narrow(3, y, std::min(side, z.size(3) - y)).narrow(4, x, std::min(side, z.size(4) - x));
      at::Tensor tile = decode_oneshot(part);
      if (!above.empty()) {
        blend(above[tiles.size()], tile, 3, extent);
      }
      if (!tiles.empty()) {
        blend(tiles.back(), tile, 4, extent);
      }
      cropped.push_back(tile.narrow(3, 0, std::min(kept, tile.size(3)))
                            .narrow(4, 0, std::min(kept, tile.size(4))));
      tiles.push_back(std::move(tile));
    }
    rows.push_back(at::cat(cropped, 4));
    above = std::move(tiles);
  }
  return at::cat(rows, 3);
}

}  // namespace minwm::models
