#include "multistep.h"

#include <cmath>

#include <ATen/ATen.h>

namespace minwm::diffusion {
namespace {

/// ln(alpha / sigma), alpha = 1 - sigma; -inf at sigma = 1, where the formulas below take their
/// limits: the first step is then exactly a first-order one.
double log_snr(double sigma) {
  return std::log1p(-sigma) - std::log(sigma);
}

/// UniPC of order 2 in its bh2 form: a predictor, and a corrector that redoes the previous step
/// with the prediction at its end. The prediction is not evaluated again at the corrected state.
class UniPc : public Sampler {
 public:
  explicit UniPc(std::vector<double> sigmas) : Sampler(std::move(sigmas), true) {}

 protected:
  at::Tensor advance(int64_t k, const at::Tensor& x, const at::Tensor& /*flow*/,
                     const at::Tensor& x0, const at::Tensor& /*noise*/) override {
    const at::Tensor state = k > 0 ? correct(k, x0) : x;
    const double start = log_snr(sigma(k)), h = log_snr(sigma(k + 1)) - start;
    at::Tensor guess = x0;
    order_ = k > 0 ? 2 : 1;  // the last step, of order 1 again, is the base class's
    if (order_ == 2) {
      guess = x0 + 0.5 * h / (log_snr(sigma(k - 1)) - start) * (last_ - x0);
    }
    before_ = last_;
    last_ = x0;
    state_ = state;
    return move(state, guess, k, h);
  }

 private:
  /// The exact solution from level k to k + 1 for a constant prediction.
  at::Tensor move(const at::Tensor& from, const at::Tensor& prediction, int64_t k, double h) const {
    const double alpha = 1 - sigma(k + 1);
    return sigma(k + 1) / sigma(k) * from - alpha * std::expm1(-h) * prediction;
  }

  at::Tensor correct(int64_t k, const at::Tensor& x0) const {
    const double start = log_snr(sigma(k - 1)), h = log_snr(sigma(k)) - start;
    if (order_ == 1) {
      return move(state_, last_ + 0.5 * (x0 - last_), k - 1, h);
    }
    // rho solves [[1, 1], [r, 1]] rho = b.
    const double r = (log_snr(sigma(k - 2)) - start) / h, phi = std::expm1(-h);
    const double b1 = (phi / -h - 1) / phi, b2 = 2 * ((phi / -h - 1) / -h - 0.5) / phi;
    const double rho1 = (b2 - b1) / (r - 1), rho2 = b1 - rho1;
    return move(state_, last_ + rho1 / r * (before_ - last_) + rho2 * (x0 - last_), k - 1, h);
  }

  at::Tensor last_, before_;  ///< x0 predictions of the two steps before
  at::Tensor state_;          ///< the (corrected) state that the previous predictor started from
  int64_t order_ = 0;         ///< of the previous predictor
};

class DpmPlusPlus : public Sampler {
 public:
  explicit DpmPlusPlus(std::vector<double> sigmas) : Sampler(std::move(sigmas), true) {}

 protected:
  at::Tensor advance(int64_t k, const at::Tensor& x, const at::Tensor& /*flow*/,
                     const at::Tensor& x0, const at::Tensor& /*noise*/) override {
    const double h = log_snr(sigma(k + 1)) - log_snr(sigma(k));
    at::Tensor guess = x0;
    if (k > 0) {
      const double previous_h = log_snr(sigma(k)) - log_snr(sigma(k - 1));
      guess = x0 + 0.5 * h / previous_h * (x0 - last_);
    }
    last_ = x0;
    return sigma(k + 1) / sigma(k) * x - (1 - sigma(k + 1)) * std::expm1(-h) * guess;
  }

 private:
  at::Tensor last_;
};

}  // namespace

std::unique_ptr<Sampler> make_unipc(std::vector<double> sigmas) {
  return std::make_unique<UniPc>(std::move(sigmas));
}

std::unique_ptr<Sampler> make_dpm_plus_plus(std::vector<double> sigmas) {
  return std::make_unique<DpmPlusPlus>(std::move(sigmas));
}

}  // namespace minwm::diffusion
