#pragma once
// A linear decoder that sees around its block: the pixels of a block from the latent vectors of the
// block and of those around it, fitted by ridge regression in closed form. It smooths what decoding
// every block alone leaves at the borders, and leaves the latent space as it is.

#include <ATen/core/Tensor.h>

namespace minwm::models {

struct NeighbourhoodOptions {
  int64_t reach = 1;  ///< blocks on every side: 1 = 3 x 3 latent vectors
  /// Standard deviation of the Gaussian noise that the latents are taken to have, in latent units
  /// (their mean square is 1): what a network generates is never exact.
  double noise = 0.15;
  /// Strength of the pull towards decoding the block alone, in blocks seen. It decides where the
  /// clips are few, and fades where they are many.
  double ridge = 200;

  void check() const;  ///< @throws Error naming the option and its range
};

/// An affine map of the K x K latent vectors around a block to the block's D numbers. Outside the
/// picture stands the nearest latent vector inside it.
struct NeighbourhoodDecoder {
  at::Tensor weight;  ///< [K, K, C, D] float32 by row, column and channel; K = 2 reach + 1
  at::Tensor bias;    ///< [D] float32

  /// One latent frame: [B, C, h, w] → [B h w, D], on the latents' device.
  at::Tensor decode(const at::Tensor& latents) const;
};

/// Normal equations of the decoder, in float64.
class NeighbourhoodFit {
 public:
  /// @param channels  C
  /// @param size      D
  NeighbourhoodFit(int64_t channels, int64_t size, int64_t reach);

  /// @param latents  [B, C, h, w] float32
  /// @param blocks   [B h w, D], what they should become
  void add(const at::Tensor& latents, const at::Tensor& blocks);

  /// Minimises the expected squared error over noise of the latents, plus
  /// ridge |weight - own|², where `own` decodes each block alone.
  /// @param own  [C, D]
  NeighbourhoodDecoder solve(const at::Tensor& own, double noise, double ridge) const;

 private:
  int64_t channels_, reach_;
  at::Tensor gram_;      ///< [F + 1, F + 1], F = K K C features and the constant
  at::Tensor products_;  ///< [F + 1, D]
  /// [K K, K K]: how often two neighbours were the same latent vector (a border repeats it), and
  /// so have the same noise.
  at::Tensor same_;
};

}  // namespace minwm::models
