#include "minwm/diffusion/sampler.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "multistep.h"

namespace minwm::diffusion {
namespace {

/// The largest level of UniPC's reference before the shift: its training table ends at 1 - 1/1000.
constexpr double kUniPcStart = 0.999F;

class Euler : public Sampler {
 public:
  explicit Euler(std::vector<double> sigmas) : Sampler(std::move(sigmas), false) {}

 protected:
  at::Tensor advance(int64_t k, const at::Tensor& x, const at::Tensor& flow,
                     const at::Tensor& /*x0*/, const at::Tensor& /*noise*/) override {
    return x + flow * (sigma(k + 1) - sigma(k));
  }
};

class Renoise : public Sampler {
 public:
  explicit Renoise(std::vector<double> sigmas) : Sampler(std::move(sigmas), false) {}
  bool renoises() const override { return true; }

 protected:
  at::Tensor advance(int64_t k, const at::Tensor& /*x*/, const at::Tensor& /*flow*/,
                     const at::Tensor& x0, const at::Tensor& noise) override {
    require(noise.defined(), "renoise sampler: step {} needs noise", k);
    return x0 * (1 - sigma(k + 1)) + noise.to(at::kFloat) * sigma(k + 1);
  }
};

/// Descending in (0, 1], then one 0.
std::vector<double> checked(std::vector<double> sigmas) {
  if (!sigmas.empty() && sigmas.back() == 0) {
    sigmas.pop_back();
  }
  require(!sigmas.empty(), "sampler: at least one noise level is needed");
  double above = 1;
  for (size_t i = 0; i < sigmas.size(); ++i) {
    require(sigmas[i] > 0 && sigmas[i] <= 1 && (i == 0 || sigmas[i] < above),
            "sampler: level {} is out of order: expected descending sigmas in (0, 1]", sigmas[i]);
    above = sigmas[i];
  }
  sigmas.push_back(0);
  return sigmas;
}

}  // namespace

Solver parse_solver(const std::string& name) {
  for (const Solver solver :
       {Solver::kEuler, Solver::kRenoise, Solver::kUniPc, Solver::kDpmPlusPlus}) {
    if (solver_name(solver) == name) {
      return solver;
    }
  }
  fail("solver '{}': expected euler, renoise, unipc or dpm++", name);
}

std::string solver_name(Solver solver) {
  switch (solver) {
    case Solver::kEuler:
      return "euler";
    case Solver::kRenoise:
      return "renoise";
    case Solver::kUniPc:
      return "unipc";
    case Solver::kDpmPlusPlus:
      return "dpm++";
  }
  TORCH_INTERNAL_ASSERT(false, "a solver without a name");
}

std::vector<double> solver_sigmas(Solver solver, int64_t steps, double shift) {
  require(steps > 0, "sampler: {} steps, expected at least 1", steps);
  // start + i (end - start) / N, in this order: another one moves truncated timesteps by 1.
  const double start = solver == Solver::kUniPc ? kUniPcStart : 1.0;
  const double spacing = -start / static_cast<double>(steps);
  std::vector<double> sigmas;
  for (int64_t i = 0; i < steps; ++i) {
    sigmas.push_back(shift_sigma(start + static_cast<double>(i) * spacing, shift));
  }
  sigmas.push_back(0);
  return sigmas;
}

Sampler::Sampler(std::vector<double> sigmas, bool integer_timesteps) : sigmas_(std::move(sigmas)) {
  for (size_t k = 0; k + 1 < sigmas_.size(); ++k) {
    const double t = 1000 * sigmas_[k];
    timesteps_.push_back(integer_timesteps ? std::trunc(t) : t);
  }
}

at::Tensor Sampler::step(int64_t k, const at::Tensor& x, const at::Tensor& flow,
                         const at::Tensor& noise) {
  TORCH_INTERNAL_ASSERT(k == next_ && k < steps(), "sampler: step ", k, " after ", next_ - 1);
  ++next_;
  const at::Tensor state = x.to(at::kFloat), velocity = flow.to(at::kFloat);
  const at::Tensor x0 = state - sigma(k) * velocity;
  return (next_ == steps() ? x0 : advance(k, state, velocity, x0, noise)).to(x.scalar_type());
}

std::unique_ptr<Sampler> make_sampler(Solver solver, int64_t steps, double shift) {
  return make_sampler(solver, solver_sigmas(solver, steps, shift));
}

std::unique_ptr<Sampler> make_sampler(Solver solver, std::vector<double> sigmas) {
  sigmas = checked(std::move(sigmas));
  switch (solver) {
    case Solver::kEuler:
      return std::make_unique<Euler>(std::move(sigmas));
    case Solver::kRenoise:
      return std::make_unique<Renoise>(std::move(sigmas));
    case Solver::kUniPc:
      return make_unipc(std::move(sigmas));
    case Solver::kDpmPlusPlus:
      return make_dpm_plus_plus(std::move(sigmas));
  }
  TORCH_INTERNAL_ASSERT(false, "a solver without a sampler");
}

}  // namespace minwm::diffusion
