#pragma once
// Synthetic video for the tests of codecs: drifting waves with an exactly known span.

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include <ATen/ATen.h>

#include "minwm/core/random.h"
#include "minwm/models/codec/codec.h"

namespace minwm::models::testing {

constexpr int64_t kHeight = 32, kWidth = 48;

/// Smooth waves drifting at their own speeds plus a little noise: uint8 [frames, H, W, 3].
inline at::Tensor waves(uint64_t seed, int64_t frames, double noise = 2) {
  RandomStream random(RandomKey{.seed = seed, .purpose = "test.waves"});
  const at::Tensor t = at::arange(frames, at::kDouble).view({-1, 1, 1, 1});
  const at::Tensor y = at::arange(kHeight, at::kDouble).view({1, -1, 1, 1});
  const at::Tensor x = at::arange(kWidth, at::kDouble).view({1, 1, -1, 1});
  at::Tensor sum = at::full({frames, kHeight, kWidth, 3}, 127.5, at::kDouble);
  for (int wave = 0; wave < 3; ++wave) {
    const double angle = 2 * std::numbers::pi * random.uniform();
    const double length = 12 + 20 * random.uniform(), speed = 2 * random.uniform() - 1;
    const at::Tensor color = at::tensor({random.uniform(), random.uniform(), random.uniform()});
    sum += 50 * color *
           at::sin((std::cos(angle) * x + std::sin(angle) * y + speed * t) *
                       (2 * std::numbers::pi / length) +
                   6 * random.uniform());
  }
  sum += noise * random_normal(sum.sizes(), {.seed = seed, .purpose = "test.noise"});
  return sum.round().clamp(0, 255).to(at::kByte);
}

inline std::vector<at::Tensor> training_clips() {
  std::vector<at::Tensor> clips;
  for (uint64_t seed = 0; seed < 24; ++seed) {
    clips.push_back(waves(seed, 13));
  }
  return clips;
}

/// [1, F, 3, H, W] in [-1, 1].
inline at::Tensor to_pixels(const at::Tensor& clip) {
  return (clip.to(at::kFloat) / 127.5 - 1).permute({0, 3, 1, 2}).unsqueeze(0).contiguous();
}

inline double psnr(const at::Tensor& a, const at::Tensor& b) {
  const double mse =
      (to_uint8(a).to(at::kDouble) - to_uint8(b).to(at::kDouble)).square().mean().item<double>();
  return 10 * std::log10(255 * 255 / mse);
}

}  // namespace minwm::models::testing
