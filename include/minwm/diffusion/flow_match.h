#pragma once
// Flow matching: x_sigma = (1 - sigma) x0 + sigma e, the model predicts v = e - x0, timestep t =
// 1000 sigma.

#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::diffusion {

/// shift(u; s) = s u / (1 + (s - 1) u). u in [0, 1].
double shift_sigma(double u, double shift);
at::Tensor shift_sigma(const at::Tensor& u, double shift);

/// sigma [B, T] → broadcastable to `like` [B, T, C, H, W].
at::Tensor per_frame(const at::Tensor& sigma, const at::Tensor& like);

/// (1 - sigma) x0 + sigma noise; sigma [B, T].
at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const at::Tensor& sigma);
/// x0 = x_sigma - sigma v; sigma [B, T].
at::Tensor predict_x0(const at::Tensor& x, const at::Tensor& flow, const at::Tensor& sigma);

/// Sigmas of an N-step sampler: shift(linspace(1, 0, N + 1); s), N + 1 entries, the last 0.
std::vector<double> sampling_sigmas(int64_t steps, double shift);
/// Sigmas of a few-step list in timesteps before the shift, e.g. {1000, 750, 500, 250} at shift 5 →
/// 1, .9375, .8333, .625 (the final 0 is not part of it).
std::vector<double> few_step_sigmas(const std::vector<double>& timesteps, double shift);

/// Wan's flow-match scheduler: a table of sigmas, and the rule that every operation looks its
/// timestep up as the nearest entry (first on ties). Spec stages 2.1.
class FlowMatchTable {
 public:
  struct Options {
    int64_t steps = 1000;
    double shift = 5, sigma_max = 1, sigma_min = 0, strength = 1;
    bool extra_one_step = true, inverse_timesteps = false, reverse_sigmas = false;
  };
  explicit FlowMatchTable(const Options& options);

  const at::Tensor& sigmas() const { return sigmas_; }        ///< [N] float32
  const at::Tensor& timesteps() const { return timesteps_; }  ///< [N] float32, 1000 sigma
  /// Bell-shaped training weights [N]: exp(-2 ((t - N/2)/N)^2), lowered to 0 at the lowest, mean 1.
  const at::Tensor& training_weights() const { return weights_; }

  /// Index of the nearest timestep, int64, shape of t.
  at::Tensor nearest(const at::Tensor& timestep) const;
  at::Tensor sigma(const at::Tensor& timestep) const;
  at::Tensor weight(const at::Tensor& timestep) const;
  /// x + v (sigma_next - sigma) at each timestep's entry; if any is the last one (or to_final) the
  /// next sigma is 0 for all (1 for inverse or reversed tables). timestep [n]; x, v [n, ...].
  at::Tensor euler_step(const at::Tensor& flow, const at::Tensor& timestep, const at::Tensor& x,
                        bool to_final) const;
  /// x0 = x - sigma v and back, in float64, cast to the type of x. timestep has the leading axes of
  /// x.
  at::Tensor x0_from_flow(const at::Tensor& flow, const at::Tensor& x,
                          const at::Tensor& timestep) const;
  at::Tensor flow_from_x0(const at::Tensor& x0, const at::Tensor& x,
                          const at::Tensor& timestep) const;
  at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise,
                       const at::Tensor& timestep) const;
  /// Requested steps d → entry (1000 - d) of [t_0 … t_999, 0].
  at::Tensor warp(const std::vector<double>& steps) const;

 private:
  at::Tensor sigma_like(const at::Tensor& timestep, const at::Tensor& x, at::ScalarType type) const;
  bool reversed_;
  at::Tensor sigmas_, timesteps_, weights_;
};

}  // namespace minwm::diffusion
