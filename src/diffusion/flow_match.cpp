#include "minwm/diffusion/flow_match.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::diffusion {

double shift_sigma(double u, double shift) {
  return shift * u / (1 + (shift - 1) * u);
}
at::Tensor shift_sigma(const at::Tensor& u, double shift) {
  return shift * u / (1 + (shift - 1) * u);
}

at::Tensor per_frame(const at::Tensor& sigma, const at::Tensor& like) {
  auto shape = sigma.sizes().vec();
  shape.resize(static_cast<size_t>(like.dim()), 1);
  return sigma.reshape(shape);
}

at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const at::Tensor& sigma) {
  return at::lerp(x0, noise, per_frame(sigma, x0).to(x0.scalar_type()));
}

at::Tensor predict_x0(const at::Tensor& x, const at::Tensor& flow, const at::Tensor& sigma) {
  return x - per_frame(sigma, x) * flow;
}

std::vector<double> sampling_sigmas(int64_t steps, double shift) {
  require(steps > 0, "sampler: {} steps, expected at least 1", steps);
  std::vector<double> sigmas;
  for (int64_t i = 0; i <= steps; ++i) {
    sigmas.push_back(shift_sigma(1 - static_cast<double>(i) / static_cast<double>(steps), shift));
  }
  return sigmas;
}

std::vector<double> few_step_sigmas(const std::vector<double>& timesteps, double shift) {
  std::vector<double> sigmas;
  for (const double t : timesteps) {
    require(t > 0 && t <= 1000 && (sigmas.empty() || shift_sigma(t / 1000, shift) < sigmas.back()),
            "step list: {} is out of order: expected descending timesteps in (0, 1000]", t);
    sigmas.push_back(shift_sigma(t / 1000, shift));
  }
  return sigmas;
}

FlowMatchTable::FlowMatchTable(const Options& o)
    : reversed_(o.inverse_timesteps || o.reverse_sigmas) {
  const double start = o.sigma_min + (o.sigma_max - o.sigma_min) * o.strength;
  at::Tensor u =
      at::linspace(start, o.sigma_min, o.extra_one_step ? o.steps + 1 : o.steps, at::kFloat);
  u = u.narrow(0, 0, o.steps);
  if (o.inverse_timesteps) {
    u = u.flip(0);
  }
  sigmas_ = shift_sigma(u, o.shift);
  if (o.reverse_sigmas) {
    sigmas_ = 1 - sigmas_;
  }
  timesteps_ = sigmas_ * 1000;
  const auto n = static_cast<double>(o.steps);
  at::Tensor y = at::exp(-2 * at::pow((timesteps_ - n / 2) / n, 2));
  y = y - y.min();
  weights_ = y * (n / y.sum());
}

at::Tensor FlowMatchTable::nearest(const at::Tensor& timestep) const {
  const at::Tensor t = timestep.to(at::kFloat);
  return (timesteps_.to(t.device()) - t.unsqueeze(-1)).abs().argmin(-1);
}

at::Tensor FlowMatchTable::sigma(const at::Tensor& timestep) const {
  return sigmas_.to(timestep.device()).take(nearest(timestep));
}

at::Tensor FlowMatchTable::weight(const at::Tensor& timestep) const {
  return weights_.to(timestep.device()).take(nearest(timestep));
}

at::Tensor FlowMatchTable::sigma_like(const at::Tensor& timestep, const at::Tensor& x,
                                      at::ScalarType type) const {
  return per_frame(sigma(timestep).to(type), x);
}

at::Tensor FlowMatchTable::euler_step(const at::Tensor& flow, const at::Tensor& timestep,
                                      const at::Tensor& x, bool to_final) const {
  const at::Tensor index = nearest(timestep);
  const int64_t last = sigmas_.size(0) - 1;
  const bool final_step = to_final || (index >= last).any().item<bool>();
  const at::Tensor table = sigmas_.to(x.device());
  const at::Tensor now = table.take(index);
  const at::Tensor next =
      final_step ? at::full_like(now, reversed_ ? 1 : 0) : table.take(index + 1);
  return x + flow * per_frame(next - now, x).to(x.scalar_type());
}

at::Tensor FlowMatchTable::x0_from_flow(const at::Tensor& flow, const at::Tensor& x,
                                        const at::Tensor& timestep) const {
  return (x.to(at::kDouble) - sigma_like(timestep, x, at::kDouble) * flow.to(at::kDouble))
      .to(x.scalar_type());
}

at::Tensor FlowMatchTable::flow_from_x0(const at::Tensor& x0, const at::Tensor& x,
                                        const at::Tensor& timestep) const {
  return ((x.to(at::kDouble) - x0.to(at::kDouble)) / sigma_like(timestep, x, at::kDouble))
      .to(x.scalar_type());
}

at::Tensor FlowMatchTable::add_noise(const at::Tensor& x0, const at::Tensor& noise,
                                     const at::Tensor& timestep) const {
  const at::Tensor s = sigma_like(timestep, x0, at::kFloat);
  return ((1 - s) * x0 + s * noise).to(noise.scalar_type());
}

at::Tensor FlowMatchTable::warp(const std::vector<double>& steps) const {
  const at::Tensor table = at::cat({timesteps_, at::zeros({1})});
  std::vector<int64_t> entries;
  for (const double d : steps) {
    entries.push_back(1000 - static_cast<int64_t>(d));
  }
  return table.take(at::tensor(entries, at::kLong));
}

}  // namespace minwm::diffusion
