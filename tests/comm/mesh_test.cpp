#include "minwm/comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "mpi_test.h"

namespace minwm::comm {
namespace {

using ::testing::HasSubstr;

std::string error_of(const MeshOptions& options) {
  try {
    (void)make_mesh(testing::world().communicator(), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Mesh, ContextIsTheInnermostAxis) {
  const auto world = testing::world().communicator();
  for (const int64_t context : {1, 2, 4}) {
    if (world->size() % context != 0) {
      continue;
    }
    const Mesh mesh = make_mesh(world, {.context = context, .timeout = 30});
    EXPECT_EQ(mesh.context->size(), context);
    EXPECT_EQ(mesh.context->rank(), world->rank() % context);
    EXPECT_EQ(mesh.data_size(), world->size() / context);
    EXPECT_EQ(mesh.data_rank(), world->rank() / context);
    // Ranks with one sample agree on the data rank.
    EXPECT_EQ(mesh.context->all_reduce_max(static_cast<double>(mesh.data_rank()), "x"),
              static_cast<double>(mesh.data_rank()));
  }
}

TEST(Mesh, ReplicasAndShardsSplitTheData) {
  const auto world = testing::world().communicator();
  const Mesh mesh = make_mesh(world, {.shard = world->size(), .timeout = 30});
  EXPECT_EQ(mesh.data_rank(), world->rank());
  EXPECT_EQ(mesh.data_size(), world->size());
}

TEST(Mesh, AxesThatDoNotMultiplyToTheRanksAreErrors) {
  const int size = testing::world().size();
  EXPECT_EQ(error_of({.replicate = size + 1}),
            fmt::format("parallel.replicate {} x parallel.shard 1 x parallel.context 1 is not {} "
                        "ranks",
                        size + 1, size));
  EXPECT_THAT(error_of({.context = size * 2}), HasSubstr("does not fit"));
  EXPECT_THAT(error_of({.shard = 0}), HasSubstr("parallel.shard 0: expected 1 or more"));
  EXPECT_THAT(error_of({.replicate = 0}), HasSubstr("parallel.replicate 0"));
  EXPECT_THAT(error_of({.timeout = 0}), HasSubstr("parallel.timeout 0"));
}

TEST(Mesh, ItsOptionsAreInTheParallelSection) {
  MeshOptions mesh;
  Options options("test", "");
  mesh.declare(options);
  const char* arguments[] = {"test", "--parallel.replicate=2", "--parallel.shard=3",
                             "--parallel.context=4", "--parallel.timeout=5"};
  ASSERT_TRUE(options.parse(5, arguments));
  EXPECT_EQ(mesh.replicate, 2);
  EXPECT_EQ(mesh.shard, 3);
  EXPECT_EQ(mesh.context, 4);
  EXPECT_EQ(mesh.timeout, 5);
}

}  // namespace
}  // namespace minwm::comm
