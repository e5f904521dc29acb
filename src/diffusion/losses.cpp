#include "minwm/diffusion/losses.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/diffusion/guidance.h"

namespace minwm::diffusion {
namespace {

/// [T] or [B, T] → float32, broadcastable to `like` [B, T, …]; anything with more axes as it is.
at::Tensor per_frame_factor(const at::Tensor& factor, const at::Tensor& like) {
  at::Tensor out = factor.to(like.device(), at::kFloat);
  if (out.dim() == 1) {
    out = out.unsqueeze(0);
  }
  require(out.dim() > 2 ||
              (out.size(-1) == like.size(1) && (out.size(0) == 1 || out.size(0) == like.size(0))),
          "mask or weight of {} entries per clip for {} frames", out.size(-1), like.size(1));
  return out.dim() == 2 ? per_frame(out, like) : out;
}

}  // namespace

at::Tensor flow_target(const at::Tensor& clean, const at::Tensor& noise) {
  return noise - clean;
}

at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& mask) {
  if (!mask.defined()) {
    return values.mean();
  }
  const at::Tensor kept = per_frame_factor(mask, values).expand(values.sizes());
  return (values * kept).sum() / kept.sum().clamp_min(1);
}

at::Tensor squared_error(const at::Tensor& prediction, const at::Tensor& target,
                         const at::Tensor& mask, const at::Tensor& weight) {
  at::Tensor error = (prediction.to(at::kFloat) - target.detach().to(at::kFloat)).square();
  if (weight.defined()) {
    error = error * per_frame_factor(weight, error);
  }
  return masked_mean(error, mask);
}

at::Tensor critic_loss(const at::Tensor& flow, const at::Tensor& generated, const at::Tensor& noise,
                       const at::Tensor& mask, const at::Tensor& weight) {
  return squared_error(flow, flow_target(generated, noise), mask, weight);
}

at::Tensor teacher_step(const at::Tensor& x, const at::Tensor& conditional,
                        const at::Tensor& unconditional, double scale, const at::Tensor& sigma,
                        const at::Tensor& sigma_next) {
  return x + per_frame(sigma_next - sigma, x) * guide(conditional, unconditional, scale);
}

at::Tensor score_difference(const at::Tensor& fake_flow, const at::Tensor& real_flow,
                            const at::Tensor& sigma) {
  return per_frame(sigma, real_flow) * (real_flow.to(at::kFloat) - fake_flow.to(at::kFloat));
}

at::Tensor dmd_gradient(const at::Tensor& difference, const at::Tensor& real_x0,
                        const at::Tensor& generated, Normalizer normalizer) {
  constexpr double kSmallest = 1e-8;
  at::Tensor gradient = difference.detach();
  if (normalizer != Normalizer::kNone) {
    const at::Tensor distance = (generated.detach() - real_x0.detach()).abs();
    std::vector<int64_t> axes;
    for (int64_t axis = 1; axis < distance.dim(); ++axis) {
      axes.push_back(axis);
    }
    const at::Tensor size =
        normalizer == Normalizer::kGlobal ? distance.mean() : distance.mean(axes, true);
    gradient = gradient / size.clamp_min(kSmallest);
  }
  return at::nan_to_num(gradient);
}

at::Tensor dmd_loss(const at::Tensor& generated, const at::Tensor& gradient,
                    const at::Tensor& mask) {
  const at::Tensor x = generated.to(at::kDouble);
  const at::Tensor wanted = (x - gradient.to(at::kDouble)).detach();
  return (0.5 * masked_mean((x - wanted).square(), mask)).to(at::kFloat);
}

at::Tensor last_frames(int64_t frames, int64_t count) {
  const at::Tensor mask = at::ones({frames}, at::kFloat);
  if (count > 0 && count < frames) {
    mask.narrow(0, 0, frames - count).zero_();
  }
  return mask;
}

at::Tensor keep_gradient(const at::Tensor& x, const at::Tensor& mask) {
  return at::where(per_frame_factor(mask, x) != 0, x, x.detach());
}

}  // namespace minwm::diffusion
