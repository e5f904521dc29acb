#include "minwm/stages/text_dropout.h"

#include "minwm/stages/noise.h"

namespace minwm::stages {

at::Tensor draw_text_kept(const data::Batch& batch, const StepAddress& address,
                          std::string_view purpose, double probability) {
  if (probability <= 0) {
    return {};
  }
  const at::Tensor u = sample_uniform(1, batch, address, purpose);
  return (u >= probability).to(at::kFloat).unsqueeze(2);
}

models::Conditions keep_text(const models::Conditions& conditions, const at::Tensor& kept,
                             const models::Conditions& negative) {
  if (!kept.defined()) {
    return conditions;
  }
  const models::Conditions dropped = conditions.with_text_of(negative);
  models::Conditions out = conditions;
  auto choose = [&](at::Tensor models::Conditions::*field) {
    const at::Tensor& text = conditions.*field;
    if (text.defined()) {
      const at::Tensor keep = text.dim() == 2 ? kept.squeeze(2) : kept;
      out.*field = at::where(keep > 0, text, dropped.*field);
    }
  };
  choose(&models::Conditions::text);
  choose(&models::Conditions::text_mask);
  choose(&models::Conditions::byt5);
  choose(&models::Conditions::byt5_mask);
  return out;
}

}  // namespace minwm::stages
