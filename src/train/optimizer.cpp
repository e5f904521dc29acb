#include "minwm/train/optimizer.h"

#include <numbers>

#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::train {
namespace {

constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;  // Muon's quintic
constexpr double kNormEps = 1e-7;
constexpr int kNewtonSchulzSteps = 5;

}  // namespace

void OptimizerOptions::declare(Options& options) {
  options.add_choice("optimizer.name", &name, {"adamw", "muon"}, "optimizer");
  options.add("optimizer.lr", &lr, "learning rate");
  options.add("optimizer.beta1", &beta1, "decay of the first moment (vectors only under muon)");
  options.add("optimizer.beta2", &beta2, "decay of the second moment");
  options.add("optimizer.eps", &eps, "added to the root of the second moment");
  options.add("optimizer.weight_decay", &weight_decay, "decoupled weight decay");
  options.add("optimizer.clip", &clip, "largest global gradient norm");
  options.add("optimizer.skip_norm", &skip_norm,
              "a step whose gradient norm reaches this is not applied; 0 = off");
  options.add("optimizer.muon_momentum", &muon_momentum, "momentum of matrices");
  options.add("optimizer.muon_bf16", &muon_bf16, "round as the reference does in Newton-Schulz");
  options.add("optimizer.muon_min_side", &muon_min_side, "smaller matrices are left to AdamW");
  options.add("optimizer.muon_one_dim_rule", &muon_one_dim_rule,
              "the reference's rule for vectors instead of AdamW");
  options.add_choice("optimizer.schedule", &schedule,
                     {"constant", "linear", "cosine", "restarts", "polynomial", "piecewise"},
                     "learning rate after warm-up");
  options.add("optimizer.warmup", &warmup, "steps of linear warm-up");
  options.add("optimizer.decay_fraction", &decay_fraction,
              "share of the run over which a constant rate falls at the end");
  options.add("optimizer.final_ratio", &final_ratio, "the rate ends at this share of lr");
  options.add("optimizer.cycles", &cycles, "restarts: how often the cosine falls to 0");
  options.add("optimizer.power", &power, "polynomial: power of the remaining share of the run");
  options.add("optimizer.pieces", &pieces,
              "piecewise: factor,step,factor,step,…,factor; a factor of lr up to each step");
}

namespace {

double piecewise(const std::vector<double>& pieces, int64_t step) {
  require(pieces.size() % 2 == 1, "optimizer.pieces: expected factor,step,factor,…,factor");
  for (size_t i = 3; i < pieces.size(); i += 2) {
    require(pieces[i] > pieces[i - 2], "optimizer.pieces: step {} does not come after step {}",
            pieces[i], pieces[i - 2]);
  }
  size_t piece = 0;
  while (piece + 1 < pieces.size() && static_cast<double>(step) >= pieces[piece + 1]) {
    piece += 2;
  }
  return pieces[piece];
}

double half_cosine(double progress) {
  return 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace

double learning_rate(const OptimizerOptions& o, int64_t step, int64_t steps) {
  if (step < o.warmup) {
    return o.lr * static_cast<double>(step + 1) / static_cast<double>(o.warmup);
  }
  const double span = static_cast<double>(std::max<int64_t>(steps - o.warmup, 1));
  const double progress = std::min(1.0, static_cast<double>(step - o.warmup) / span);
  if (o.schedule == "linear") {
    return o.lr * (1 - progress * (1 - o.final_ratio));
  }
  if (o.schedule == "cosine") {
    return o.lr * (o.final_ratio + (1 - o.final_ratio) * half_cosine(progress));
  }
  if (o.schedule == "restarts") {
    const double turn = progress * static_cast<double>(o.cycles);
    return progress >= 1 ? 0 : o.lr * half_cosine(turn - std::floor(turn));
  }
  if (o.schedule == "polynomial") {
    return o.lr * (o.final_ratio + (1 - o.final_ratio) * std::pow(1 - progress, o.power));
  }
  if (o.schedule == "piecewise") {
    return o.lr * piecewise(o.pieces, step);
  }
  const double decay_from = static_cast<double>(steps) * (1 - o.decay_fraction);
  if (o.decay_fraction > 0 && static_cast<double>(step) > decay_from) {
    const double done =
        (static_cast<double>(step) - decay_from) / (static_cast<double>(steps) * o.decay_fraction);
    return o.lr * (1 - std::min(1.0, done) * (1 - o.final_ratio));
  }
  return o.lr;
}

namespace {

std::vector<at::Tensor> gradients_of(const NamedParameters& parameters) {
  std::vector<at::Tensor> gradients;
  for (const auto& [name, p] : parameters) {
    if (p.grad().defined()) {
      gradients.push_back(p.grad());
    }
  }
  return gradients;
}

/// The reference's bfloat16 products on a CPU without them: float32 products of rounded inputs,
/// rounded.
at::Tensor newton_schulz_float(at::Tensor x, bool rounded) {
  auto r = [rounded](const at::Tensor& t) {
    return rounded ? t.to(at::kBFloat16).to(at::kFloat) : t;
  };
  x = r(x);
  x = r(x / r(r(x.square().sum({1, 2}, true).sqrt()) + kNormEps));
  for (int step = 0; step < kNewtonSchulzSteps; ++step) {
    const at::Tensor a = r(at::bmm(x, x.transpose(1, 2)));
    const at::Tensor b = r(r(kB * a) + r(at::bmm(r(kC * a), a)));
    x = r(r(kA * x) + r(at::bmm(b, x)));
  }
  return x;
}

/// The same rounding points, as every operation on bfloat16 tensors rounds its result once.
at::Tensor newton_schulz_bfloat16(at::Tensor x) {
  x = x.to(at::kBFloat16);
  const at::Tensor norm = x.to(at::kFloat).square_().sum({1, 2}, true).sqrt_().to(at::kBFloat16);
  x.div_(norm.add_(kNormEps));
  const int64_t rows = x.size(1);
  at::Tensor a = at::empty({x.size(0), rows, rows}, x.options()), b = at::empty_like(a),
             scaled = at::empty_like(a);
  at::Tensor product = at::empty_like(x);
  // As the second operand of an out-of-place product, a plain number is not rounded to bfloat16
  // first; mul_ would round it.
  auto scale = [](at::Tensor& out, const at::Tensor& in, double by) {
    at::Tensor number = at::scalar_tensor(by, at::kDouble);
    number.unsafeGetTensorImpl()->set_wrapped_number(true);
    at::mul_out(out, in, number);
  };
  for (int step = 0; step < kNewtonSchulzSteps; ++step) {
    at::bmm_out(a, x, x.transpose(1, 2));
    scale(scaled, a, kC);
    at::bmm_out(b, scaled, a);
    scale(a, a, kB);
    b.add_(a);
    at::bmm_out(product, b, x);
    scale(x, x, kA);
    x.add_(product);
  }
  return x.to(at::kFloat);
}

}  // namespace

at::Tensor gradient_norm(const NamedParameters& parameters) {
  const auto gradients = gradients_of(parameters);
  if (gradients.empty()) {
    return at::zeros({}, at::kDouble);
  }
  return at::stack(at::_foreach_norm(gradients)).to(at::kDouble).norm();
}

void scale_gradients(const NamedParameters& parameters, double norm, double max_norm) {
  const double factor = max_norm / (norm + 1e-6);
  if (factor < 1) {
    at::_foreach_mul_(gradients_of(parameters), factor);
  }
}

at::Tensor newton_schulz(const at::Tensor& matrices, bool bf16) {
  at::NoGradGuard no_grad;
  const bool transpose = matrices.size(1) > matrices.size(2);
  at::Tensor x = transpose ? matrices.transpose(1, 2).contiguous() : matrices;
  const bool native = bf16 && has_native_bfloat16(x.device());
  x = native ? newton_schulz_bfloat16(x) : newton_schulz_float(x, bf16);
  return transpose ? x.transpose(1, 2) : x;
}

}  // namespace minwm::train
