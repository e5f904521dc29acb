#pragma once
// Samplers: how latents are walked from noise to clean through descending levels. Spec stages 3;
// golden kind stages.sampler.trajectory.
//
//   auto sampler = make_sampler(Solver::kUniPc, 50, 5);
//   at::Tensor x = noise;
//   for (int64_t k = 0; k < sampler->steps(); ++k) {
//     x = sampler->step(k, x, network(x, sampler->timesteps()[k]));
//   }

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::diffusion {

enum class Solver {
  kEuler,        ///< follow the flow: x + v (sigma' - sigma)
  kRenoise,      ///< predict x0, add fresh noise at the next level (consistency sampling)
  kUniPc,        ///< UniPC, order 2 (bh2), with its corrector: Wan's many-step default
  kDpmPlusPlus,  ///< DPM-Solver++ 2M (midpoint)
};

/// "euler", "renoise", "unipc", "dpm++". @throws Error otherwise, with that list.
Solver parse_solver(const std::string& name);
std::string solver_name(Solver solver);

/// The levels of a solver's own N-step schedule: N + 1 entries, the last 0. Euler, renoise and
/// DPM-Solver++ take shift(linspace(1, 0, N + 1)); UniPC's start at shift(.999).
std::vector<double> solver_sigmas(Solver solver, int64_t steps, double shift);

/// One walk down. Multi-step solvers keep their history in it: a sampler is for one clip, or one
/// chunk of it, and its steps are taken in order.
class Sampler {
 public:
  virtual ~Sampler() = default;

  int64_t steps() const { return static_cast<int64_t>(timesteps_.size()); }
  /// steps() + 1 levels, descending; the last is 0.
  const std::vector<double>& sigmas() const { return sigmas_; }
  /// What the network is given at each step: 1000 sigma, and its integer part for UniPC and
  /// DPM-Solver++, as their references do.
  const std::vector<double>& timesteps() const { return timesteps_; }
  /// Whether every step but the last needs noise.
  virtual bool renoises() const { return false; }

  /// The state at level k + 1 from the state x at level k and the flow there (any shape), in
  /// float32, returned in the type of x. The last step gives the x0 prediction itself.
  /// @throws Error if noise is needed and missing.
  at::Tensor step(int64_t k, const at::Tensor& x, const at::Tensor& flow,
                  const at::Tensor& noise = {});

 protected:
  Sampler(std::vector<double> sigmas, bool integer_timesteps);
  /// One step in float32, not the last one; `x0` is its prediction.
  virtual at::Tensor advance(int64_t k, const at::Tensor& x, const at::Tensor& flow,
                             const at::Tensor& x0, const at::Tensor& noise) = 0;
  /// Level k as the references hold it, rounded to float32.
  double sigma(int64_t k) const { return static_cast<float>(sigmas_[static_cast<size_t>(k)]); }

 private:
  std::vector<double> sigmas_, timesteps_;
  int64_t next_ = 0;
};

/// A sampler on the solver's own schedule.
std::unique_ptr<Sampler> make_sampler(Solver solver, int64_t steps, double shift);
/// A sampler on given levels: descending in (0, 1]; a final 0 is added if it is not there.
/// @throws Error naming the level that is out of order.
std::unique_ptr<Sampler> make_sampler(Solver solver, std::vector<double> sigmas);

}  // namespace minwm::diffusion
