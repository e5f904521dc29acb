// The text stream in front of the blocks (spec hy-mmdit 5).

#include <algorithm>

#include "minwm/core/error.h"
#include "minwm/models/hy/embedders.h"

namespace minwm::models {
namespace {

/// A mask as bool on the CPU, where lengths are counted.
at::Tensor counted(const at::Tensor& mask) {
  return mask.to(at::kCPU).ne(0);
}

at::Tensor text_mask(const Conditions& conditions) {
  const at::Tensor& text = conditions.text;
  if (!conditions.text_mask.defined()) {
    at::Tensor mask = text.detach().ne(0).any(2).to(at::kCPU);
    mask.select(1, 0).fill_(true);  // an empty prompt is one blank
    return mask;
  }
  require(conditions.text_mask.sizes() == text.sizes().slice(0, 2),
          "hy: the text mask must be {}, is {}", c10::str(text.sizes().slice(0, 2)),
          c10::str(conditions.text_mask.sizes()));
  return counted(conditions.text_mask);
}

void require_states(const at::Tensor& x, const char* what, int64_t batch, int64_t width) {
  require(x.dim() == 3 && x.size(0) == batch && x.size(2) == width,
          "hy: {} must be [{}, rows, {}], is {}", what, batch, width, c10::str(x.sizes()));
}

/// Every sample's valid rows first, in order; the rest is dropped as far as no sample needs it.
HyTextStream valid_first(const at::Tensor& rows, const at::Tensor& valid) {
  HyTextStream out;
  const at::Tensor lengths = valid.sum(1);
  for (int64_t i = 0; i < lengths.size(0); ++i) {
    out.lengths.push_back(lengths[i].item<int64_t>());
  }
  const int64_t longest = *std::max_element(out.lengths.begin(), out.lengths.end());
  if (valid.all().item<bool>()) {
    out.rows = rows;
    return out;
  }
  const at::Tensor order = at::argsort(valid.logical_not().to(at::kInt), /*stable=*/true, 1, false)
                               .narrow(1, 0, longest)
                               .to(rows.device());
  out.rows = rows.gather(1, order.unsqueeze(2).expand({-1, -1, rows.size(2)}));
  return out;
}

}  // namespace

HyTextStream HyTextModules::assemble(const Conditions& conditions, const at::Tensor& text_timestep,
                                     const HyConfig& config, at::ScalarType compute) const {
  const at::Tensor& states = conditions.text;
  require(states.defined(), "hy: text must be [B, L, {}], none was given", config.text_states_dim);
  const int64_t batch = states.size(0);
  require_states(states, "text", batch, config.text_states_dim);
  const at::Tensor mask = text_mask(conditions);
  require(mask.any(1).all().item<bool>(),
          "hy: a text mask without any 1; an empty prompt is encoded as one blank");
  std::vector<at::Tensor> rows, valid;
  const auto add = [&](const at::Tensor& mapped, int64_t type, const at::Tensor& of) {
    rows.push_back(mapped + type_table[type]);
    valid.push_back(of);
  };
  if (const at::Tensor& image = conditions.vision; image.defined()) {
    require_states(image, "vision", batch, config.vision_states_dim);
    at::Tensor counts = at::ones({batch, image.size(1)}, at::kBool);
    if (conditions.text_to_video) {
      const at::Tensor given = image.detach().flatten(1).ne(0).any(1).to(at::kCPU);
      counts = counts.logical_and(given.unsqueeze(1));
    }
    add(vision->forward(image, compute), 2, counts);
  }
  if (conditions.byt5.defined()) {
    require_states(conditions.byt5, "byt5", batch, config.byt5_dims.in);
    const at::Tensor shape = conditions.byt5.select(2, 0);
    require(!conditions.byt5_mask.defined() || conditions.byt5_mask.sizes() == shape.sizes(),
            "hy: the byt5 mask must be {}", c10::str(shape.sizes()));
    add(byt5->forward(conditions.byt5, compute), 1,
        conditions.byt5_mask.defined() ? counted(conditions.byt5_mask)
                                       : at::ones(shape.sizes(), at::kBool));
  }
  add(text->forward(states, text_timestep, mask.to(states.device()), compute), 0, mask);
  return valid_first(at::cat(rows, 1), at::cat(valid, 1));
}

}  // namespace minwm::models
