#include "minwm/stages/first_frame.h"

#include "minwm/stages/noise.h"

namespace minwm::stages {
namespace {

/// `x` [B, ...] or undefined, zero in the samples whose `kept` [B] is 0.
at::Tensor zeroed(const at::Tensor& x, const at::Tensor& kept) {
  if (!x.defined()) {
    return x;
  }
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  return x * kept.to(x.options()).view(shape);
}

}  // namespace

models::Conditions told_conditions(const models::Backbone& model, const data::Batch& batch,
                                   const StepAddress& address, std::string_view purpose,
                                   double probability) {
  const int64_t frames = batch.latents.size(1);
  if (!model.reads_first_latent() || probability <= 0) {
    return models::conditions_for(model, batch.conditions, {}, frames);
  }
  models::Conditions told =
      models::conditions_for(model, batch.conditions, batch.latents.narrow(1, 0, 1), frames);
  if (probability < 1) {
    const at::Tensor kept = sample_uniform(1, batch, address, purpose).squeeze(1) < probability;
    told = first_frame_only_of(std::move(told), kept);
  }
  return told;
}

models::Conditions first_frame_only_of(models::Conditions told, const at::Tensor& given) {
  told.image_latents = zeroed(told.image_latents, given);
  told.vision = zeroed(told.vision, given);
  told.text_to_video = true;  // under which vision rows that are zero do not count, by sample
  return told;
}

}  // namespace minwm::stages
