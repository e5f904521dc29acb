#include "minwm/nn/embedding.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::nn {

at::Tensor timestep_sinusoid_double(const at::Tensor& t, int64_t width) {
  const int64_t half = width / 2;
  const auto options = at::TensorOptions(at::kDouble).device(t.device());
  const at::Tensor frequencies =
      at::pow(10000.0, -at::arange(half, options) / static_cast<double>(half));
  const at::Tensor angles = t.to(at::kDouble).unsqueeze(-1) * frequencies;
  return at::cat({angles.cos(), angles.sin()}, -1);
}

at::Tensor timestep_sinusoid(const at::Tensor& t, int64_t width) {
  return timestep_sinusoid_double(t, width).to(at::kFloat);
}

std::vector<int64_t> rotary_split(int64_t head_dim) {
  const int64_t third = head_dim / 6;
  return {head_dim / 2 - 2 * third, third, third};
}

at::Tensor rotary_angles(const at::Tensor& positions, int64_t pairs, double base) {
  const at::Tensor frequencies = at::pow(
      base, -at::arange(pairs, at::kDouble) / static_cast<double>(std::max<int64_t>(pairs, 1)));
  return positions.to(at::kDouble).unsqueeze(-1) * frequencies;
}

at::Tensor rotary_table(const std::vector<int64_t>& frame_positions, int64_t height, int64_t width,
                        const RotaryAxes& axes) {
  const auto& split = axes.pairs;
  const auto frames = static_cast<int64_t>(frame_positions.size());
  const at::Tensor f = rotary_angles(at::tensor(frame_positions, at::kLong), split[0], axes.base);
  const at::Tensor r = rotary_angles(at::arange(height, at::kLong), split[1], axes.base);
  const at::Tensor c = rotary_angles(at::arange(width, at::kLong), split[2], axes.base);
  const at::Tensor angles =
      at::cat({f.view({frames, 1, 1, -1}).expand({frames, height, width, split[0]}),
               r.view({1, height, 1, -1}).expand({frames, height, width, split[1]}),
               c.view({1, 1, width, -1}).expand({frames, height, width, split[2]})},
              -1)
          .reshape({frames * height * width, -1});
  return at::polar(at::ones_like(angles), angles).to(at::kComplexFloat);
}

at::Tensor rotary_table(const std::vector<int64_t>& frame_positions, int64_t height, int64_t width,
                        int64_t head_dim) {
  require(head_dim % 2 == 0, "rotary embedding: head size {} is odd", head_dim);
  return rotary_table(frame_positions, height, width, RotaryAxes{rotary_split(head_dim)});
}

at::Tensor apply_rotary(const at::Tensor& x, const at::Tensor& table) {
  auto shape = x.sizes().vec();
  shape.back() /= 2;
  shape.push_back(2);
  const at::Tensor pairs = at::view_as_complex(x.to(at::kFloat).reshape(shape));
  return at::view_as_real(pairs * table.unsqueeze(1)).reshape(x.sizes()).to(x.scalar_type());
}

at::Tensor apply_frame_matrices(const at::Tensor& x, const at::Tensor& m) {
  const int64_t batch = x.size(0), frames = m.size(1);
  TORCH_INTERNAL_ASSERT(x.size(1) % frames == 0 && x.size(3) % 4 == 0);
  const at::Tensor rows = x.reshape({batch * frames, -1, 4});
  return at::bmm(rows.to(m.scalar_type()), m.reshape({batch * frames, 4, 4}))
      .view(x.sizes())
      .to(x.scalar_type());
}

}  // namespace minwm::nn
