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

TEST(ModelShapes, EveryWanPresetHasExactlyTheParametersOfItsModel) {
  for (const auto& preset : models::wan_presets()) {
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

TEST(ModelShapes, Hy8bCountsAreThePublishedOnes) {
  EXPECT_EQ(hy_8b_shape(false, false).block.parameters(), 151'056'896);
  EXPECT_EQ(hy_8b_shape(true, false).block.parameters(), 155'253'248);
  EXPECT_EQ(hy_8b_shape(false, false).parameters(), 8'326'608'160);
  EXPECT_EQ(hy_8b_shape(true, false).parameters(), 8'553'211'168);
  EXPECT_EQ(hy_8b_shape(true, true).parameters(), 8'557'933'856);
}

TEST(ModelShapes, AnUnknownModelNamesTheNearest) {
  const std::string message = testing::error_of([] { model_shape("hy-8c"); });
  EXPECT_EQ(message, "model 'hy-8c' is not known; did you mean hy-8b?");
}

}  // namespace
}  // namespace minwm::apps
