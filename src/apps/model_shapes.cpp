#include "model_shapes.h"

#include <algorithm>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/nn/parameters.h"

namespace minwm::apps {
namespace {

using parallel::ModelShape;
using parallel::UnitShape;

UnitShape& add_linear(UnitShape& unit, int64_t out, int64_t in, int64_t count = 1) {
  unit.matrices += count * out * in;
  unit.vectors += count * out;
  return unit;
}

/// A module's parameters.
UnitShape shape_of(const torch::nn::Module& module) {
  UnitShape shape;
  for (const auto& p : module.parameters()) {
    (p.dim() == 2 ? shape.matrices : shape.vectors) += p.numel();
  }
  return shape;
}

constexpr int64_t kImageRows = 257;  // CLIP features of a first frame

/// Embeddings, refiner, final layer: the table of spec hy-mmdit 3.
UnitShape hy_root(int64_t width, bool action) {
  constexpr int64_t kChannels = 32, kText = 3584, kGlyphs = 1472, kGlyphWidth = 2048,
                    kVision = 1152, kSinusoid = 256;
  UnitShape root;
  auto embedder = [&] {
    add_linear(root, width, kSinusoid);
    add_linear(root, width, width);
  };
  root.vectors += width * (2 * kChannels + 1) + width;  // img_in: a kernel of five axes
  embedder();                                           // time_in
  add_linear(root, width, kText);                       // txt_in.input_embedder
  embedder();                                           // txt_in.t_embedder
  add_linear(root, width, kText);                       // txt_in.c_embedder
  add_linear(root, width, width);
  for (int refiner = 0; refiner < 2; ++refiner) {
    root.vectors += 4 * width;
    add_linear(root, 3 * width, width);
    add_linear(root, width, width);
    add_linear(root, 4 * width, width);
    add_linear(root, width, 4 * width);
    add_linear(root, 2 * width, width);
  }
  root.vectors += 2 * kGlyphs;  // byt5_in
  add_linear(root, kGlyphWidth, kGlyphs);
  add_linear(root, kGlyphWidth, kGlyphWidth);
  add_linear(root, width, kGlyphWidth);
  root.vectors += 2 * kVision + 2 * width;  // vision_in
  add_linear(root, kVision, kVision);
  add_linear(root, width, kVision);
  root.matrices += 3 * width;  // cond_type_embedding
  add_linear(root, kChannels, width);
  add_linear(root, 2 * width, width);
  if (action) {
    embedder();
  }
  return root;
}

}  // namespace

ModelShape wan_shape(const std::string& name, const models::WanConfig& c) {
  const nn::HollowParameters hollow;
  models::WanBackbone model(c, 0);
  ModelShape shape;
  shape.name = name;
  shape.blocks = c.num_layers;
  shape.block = shape_of(*model.units().front());
  shape.root = shape_of(model);
  shape.root.matrices -= shape.blocks * shape.block.matrices;
  shape.root.vectors -= shape.blocks * shape.block.vectors;
  shape.width = c.dim;
  shape.heads = c.num_heads;
  shape.ffn_width = c.ffn_dim;
  const bool image = c.model_type == "i2v";
  shape.text_rows = c.text_len + (image ? kImageRows : 0);
  shape.pixels_per_token = 8 * c.patch_size[1];
  shape.camera = c.camera;
  shape.token_multiplies = (6 + (c.camera ? 1 : 0)) * c.dim * c.dim + 2 * c.dim * c.ffn_dim;
  shape.text_multiplies = 2 * c.dim * c.dim;
  shape.largest_matrix = c.dim * std::max(c.dim, c.ffn_dim);
  return shape;
}

ModelShape hy_8b_shape(bool camera, bool action) {
  constexpr int64_t kWidth = 2048, kHeads = 16;
  ModelShape shape;
  shape.name = "hy-8b";
  shape.root = hy_root(kWidth, action);
  for (int stream = 0; stream < 2; ++stream) {
    add_linear(shape.block, 6 * kWidth, kWidth);
    add_linear(shape.block, kWidth, kWidth, 4);
    add_linear(shape.block, 4 * kWidth, kWidth);
    add_linear(shape.block, kWidth, 4 * kWidth);
    shape.block.vectors += 2 * kWidth / kHeads;
  }
  if (camera) {
    add_linear(shape.block, kWidth, kWidth);
  }
  shape.blocks = 54;
  shape.width = kWidth;
  shape.heads = kHeads;
  shape.ffn_width = 4 * kWidth;
  shape.text_rows = 1200;  // 729 of vision and a usual prompt (spec hy-mmdit 17)
  shape.pixels_per_token = 16;
  shape.camera = camera;
  shape.joint_text = true;
  // Modulation is a product per frame, not per token.
  shape.token_multiplies = (12 + (camera ? 1 : 0)) * kWidth * kWidth;
  shape.text_multiplies = 12 * kWidth * kWidth;
  shape.largest_matrix = 6 * kWidth * kWidth;  // modulation
  return shape;
}

ModelShape model_shape(const std::string& name) {
  if (name == "hy-8b") {
    return hy_8b_shape(true, false);
  }
  const auto presets = models::wan_presets();
  if (std::find(presets.begin(), presets.end(), name) == presets.end()) {
    const std::string nearest = nearest_name(name, model_shapes());
    fail("model '{}' is not known{}", name,
         nearest.empty() ? "" : "; did you mean " + nearest + "?");
  }
  return wan_shape(name, models::wan_preset(name));
}

std::vector<std::string> model_shapes() {
  auto names = models::wan_presets();
  names.emplace_back("hy-8b");
  return names;
}

}  // namespace minwm::apps
