#pragma once
// Positions and times as numbers a network can use.

#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::nn {

/// Sinusoid of a timestep: [cos(t w_0) …, sin(t w_0) …], w_j = 10000^(-j / (width / 2)), cosines
/// first, computed in float64.
/// @param t any shape, 0 … 1000. @return [..., width] float32.
at::Tensor timestep_sinusoid(const at::Tensor& t, int64_t width);
/// The same in float64, as the reference keeps it before its cast.
at::Tensor timestep_sinusoid_double(const at::Tensor& t, int64_t width);

/// How the D / 2 rotary pairs of a head are split over (frame, row, column): D/2 - 2 (D/6), D/6,
/// D/6.
std::vector<int64_t> rotary_split(int64_t head_dim);

/// How a model turns positions into rotations: pairs of a head for (frame, row, column), and the
/// base of the frequencies.
struct RotaryAxes {
  std::vector<int64_t> pairs;
  double base = 10000;
};

/// exp(i angle) of every token: frames at the given positions, each with height x width tokens in
/// row order.
/// @return complex64 [frames * height * width, head_dim / 2], tables made in float64.
at::Tensor rotary_table(const std::vector<int64_t>& frame_positions, int64_t height, int64_t width,
                        const RotaryAxes& axes);
/// The same with Wan's split of a head.
at::Tensor rotary_table(const std::vector<int64_t>& frame_positions, int64_t height, int64_t width,
                        int64_t head_dim);

/// Angles of `positions` on one axis with n pairs: positions × base^(-j / n), float64 [positions,
/// n].
at::Tensor rotary_angles(const at::Tensor& positions, int64_t pairs, double base = 10000);

/// Rotates interleaved pairs. x [B, N, A, D]; table [N, D / 2] complex64. Same dtype as x.
at::Tensor apply_rotary(const at::Tensor& x, const at::Tensor& table);

/// Multiplies every consecutive 4-vector of a frame's tokens by that frame's matrix from the right:
/// y_row = x_row · m. x [B, T * S, A, D] (S tokens per frame), m [B, T, 4, 4]; D a multiple of 4.
/// Same dtype as x.
at::Tensor apply_frame_matrices(const at::Tensor& x, const at::Tensor& m);

}  // namespace minwm::nn
