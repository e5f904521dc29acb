// What the planner believes about models, against the models themselves and the published counts.

#include "src/apps/model_shapes.h"

#include <gtest/gtest.h>

#include "minwm/models/backbone.h"
#include "tests/core/temporary_folder.h"

namespace minwm::apps {
namespace {

parallel::UnitShape count(const torch::nn::Module& module) {
  parallel::UnitShape unit;
  for (const auto& p : module.parameters()) {
    (p.dim() == 2 ? unit.matrices : unit.vectors) += p.numel();
  }
  return unit;
}

TEST(ModelShapes, EveryPresetHasExactlyTheParametersOfItsModel) {
  for (const auto& preset : models::backbone_presets()) {
    const auto model = models::make_hollow_backbone(preset);
    const auto shape = model_shape(preset);
    const auto units = model->units();
    ASSERT_EQ(static_cast<int64_t>(units.size()), shape.blocks) << preset;
    auto root = count(*model);
    for (const auto& unit : units) {
      const auto block = count(*unit);
      EXPECT_EQ(block.matrices, shape.block.matrices) << preset;
      EXPECT_EQ(block.vectors, shape.block.vectors) << preset;
      root.matrices -= block.matrices;
      root.vectors -= block.vectors;
    }
    EXPECT_EQ(root.matrices, shape.root.matrices) << preset;
    EXPECT_EQ(root.vectors, shape.root.vectors) << preset;
  }
}

TEST(ModelShapes, WanCountsAreThePublishedOnes) {
  EXPECT_EQ(model_shape("wan-1.3b").parameters(), 1'489'821'760);
  EXPECT_EQ(model_shape("wan-14b").parameters(), 15'337'272'384);
  EXPECT_EQ(model_shape("wan-14b-i2v").parameters(), 17'443'659'584);
}

// Spec hy-mmdit 3.
TEST(ModelShapes, Hy8bCountsAreThePublishedOnes) {
  EXPECT_EQ(model_shape("hy-8b-ti2v").block.parameters(), 151'056'896);
  EXPECT_EQ(model_shape("hy-8b").block.parameters(), 155'253'248);
  EXPECT_EQ(model_shape("hy-8b-ti2v").parameters(), 8'326'608'160);
  EXPECT_EQ(model_shape("hy-8b").parameters(), 8'553'211'168);
  EXPECT_EQ(model_shape("hy-8b-worldplay").parameters(), 8'557'933'856);
}

// Spec hy-mmdit 17: products per token, without modulation, which is per timestep.
TEST(ModelShapes, HyProductsPerTokenAreThoseOfTheSpec) {
  const auto shape = model_shape("hy-8b");
  EXPECT_EQ(shape.token_multiplies, 13 * 2048 * 2048);
  EXPECT_EQ(shape.text_multiplies, 12 * 2048 * 2048);
  EXPECT_EQ(shape.largest_matrix, 6 * 2048 * 2048);
  EXPECT_EQ(shape.text_rows, 1200);
  EXPECT_EQ(shape.pixels_per_token, 16);
  EXPECT_TRUE(shape.joint_text);
  EXPECT_EQ(model_shape("hy-8b-ti2v").token_multiplies, 12 * 2048 * 2048);
}

TEST(ModelShapes, ADepthIsPartOfTheName) {
  const auto two = model_shape("hy-8b@2"), whole = model_shape("hy-8b");
  EXPECT_EQ(two.blocks, 2);
  EXPECT_EQ(two.name, "hy-8b@2");
  EXPECT_EQ(two.root.parameters(), whole.root.parameters());
  EXPECT_EQ(two.parameters(), whole.parameters() - 52 * whole.block.parameters());
  EXPECT_EQ(model_shape("wan-1.3b@3").blocks, 3);
}

TEST(ModelShapes, AnUnknownModelNamesTheNearest) {
  const std::string message = testing::error_of([] { model_shape("hy-8c"); });
  EXPECT_EQ(message, "model 'hy-8c' is not known; did you mean hy-8b?");
}

}  // namespace
}  // namespace minwm::apps
