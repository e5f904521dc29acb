// Every stage of the HY line on every kind of mesh is the run of one rank.

#include <gtest/gtest.h>

#include "tests/apps/mesh_runs.h"
#include "tests/apps/small_hy_chain.h"

namespace minwm {
namespace {

class HyMeshes : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Chain, HyMeshes, testing::every_stage(), testing::stage_name);

TEST_P(HyMeshes, LossesAndGradientsAreThoseOfOneRank) {
  const std::vector<testing::Arrangement> meshes = {
      {"shard 2", 2, "--parallel.shard 2"},
      {"context 2, ulysses", 2, "--parallel.context 2"},
      {"shard 2 x context 2, ring", 4,
       "--parallel.shard 2 --parallel.context 2 --parallel.ulysses 1"},
  };
  // Samples with and without a first frame side by side, their texts of different lengths.
  const std::string mixed = GetParam() == "ode" ? "" : " --condition.first_frame 0.5";
  testing::expect_one_rank_everywhere(testing::small_hy_chain(), GetParam(), meshes,
                                      " --train.micro_batch 2" + mixed);
}

}  // namespace
}  // namespace minwm
