#include "model_shapes.h"

#include <algorithm>

#include "minwm/core/error.h"
#include "minwm/models/hy/backbone.h"
#include "minwm/models/wan/backbone.h"

namespace minwm::apps {
namespace {

using parallel::ModelShape;
using parallel::UnitShape;

// CLIP features of a first frame.
constexpr int64_t kWanImageRows = 257;
// A SigLIP encoder's rows and a usual prompt; together the 1,200 of spec hy-mmdit 17.
constexpr int64_t kHyVisionRows = 729, kHyPromptRows = 471;
// Pixels of a latent's side: Wan's and the embedded codec, HunyuanVideo's.
constexpr int64_t kCodecSide = 8, kHyCodecSide = 16;
// Latents of a side in the embedded world, whose first frame's patches are the vision rows, and
// its prompts.
constexpr int64_t kEmbeddedSide = 8, kEmbeddedPromptRows = 6;

/// A module's parameters.
UnitShape count(const torch::nn::Module& module) {
  UnitShape shape;
  for (const auto& p : module.parameters()) {
    (p.dim() == 2 ? shape.matrices : shape.vectors) += p.numel();
  }
  return shape;
}

int64_t largest_matrix(const torch::nn::Module& module) {
  int64_t largest = 0;
  for (const auto& p : module.parameters()) {
    largest = std::max(largest, p.dim() == 2 ? p.numel() : 0);
  }
  return largest;
}

void describe(const models::WanConfig& c, ModelShape& shape) {
  const bool image = c.model_type == "i2v";
  shape.width = c.dim;
  shape.heads = c.num_heads;
  shape.ffn_width = c.ffn_dim;
  shape.text_rows = c.text_len + (image ? kWanImageRows : 0);
  shape.pixels_per_token = kCodecSide * c.patch_size[1];
  shape.camera = c.camera;
  shape.token_multiplies = (6 + (c.camera ? 1 : 0)) * c.dim * c.dim + 2 * c.dim * c.ffn_dim;
  shape.text_multiplies = 2 * c.dim * c.dim;
}

void describe(const models::HyConfig& c, ModelShape& shape) {
  const int64_t side = kEmbeddedSide / c.patch_size[1];
  shape.width = c.hidden_size;
  shape.heads = c.heads_num;
  shape.ffn_width = c.mlp_width();
  shape.text_rows =
      c.latent_vision ? side * side + kEmbeddedPromptRows : kHyVisionRows + kHyPromptRows;
  shape.pixels_per_token = (c.latent_vision ? kCodecSide : kHyCodecSide) * c.patch_size[1];
  shape.camera = c.camera;
  shape.joint_text = true;
  // Modulation is a product for each distinct timestep, not for each token: nothing beside these.
  shape.text_multiplies = 4 * c.hidden_size * c.hidden_size + 2 * c.hidden_size * c.mlp_width();
  shape.token_multiplies = shape.text_multiplies + (c.camera ? c.hidden_size * c.hidden_size : 0);
}

}  // namespace

ModelShape shape_of(const std::string& name, models::Backbone& model) {
  const auto units = model.units();
  ModelShape shape;
  shape.name = name;
  shape.blocks = static_cast<int64_t>(units.size());
  shape.block = count(*units.front());
  shape.largest_matrix = largest_matrix(*units.front());
  shape.root = count(model);
  shape.root.matrices -= shape.blocks * shape.block.matrices;
  shape.root.vectors -= shape.blocks * shape.block.vectors;
  if (const auto* wan = dynamic_cast<const models::WanBackbone*>(&model)) {
    describe(wan->config(), shape);
  } else if (const auto* hy = dynamic_cast<const models::HyBackbone*>(&model)) {
    describe(hy->config(), shape);
  } else {
    fail("model '{}': its memory cannot be planned", name);
  }
  return shape;
}

ModelShape model_shape(const std::string& name) {
  return shape_of(name, *models::make_hollow_backbone(name));
}

}  // namespace minwm::apps
