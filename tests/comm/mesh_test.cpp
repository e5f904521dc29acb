#include "minwm/comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

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

TEST(Mesh, EveryAxisCanBeWhatTheOthersLeave) {
  const auto world = testing::world().communicator();
  const int64_t size = world->size();
  for (const int64_t given : {int64_t{1}, size}) {
    const int64_t left = size / given;
    const Mesh replicate =
        make_mesh(world, {.replicate = -1, .shard = given, .context = 1, .timeout = 30});
    EXPECT_EQ(replicate.replicate->size(), left);
    EXPECT_EQ(replicate.copy_size(), given);
    const Mesh shard =
        make_mesh(world, {.replicate = given, .shard = -1, .context = 1, .timeout = 30});
    EXPECT_EQ(shard.copy_size(), left);
    EXPECT_EQ(shard.replicate->size(), given);
    const Mesh context =
        make_mesh(world, {.replicate = given, .shard = 1, .context = -1, .timeout = 30});
    EXPECT_EQ(context.context->size(), left);
    EXPECT_EQ(context.data_size(), given);
  }
}

/// World ranks of a group, in its order.
std::vector<int64_t> members(Communicator& group) {
  at::Tensor all = at::empty({group.size()}, at::kLong);
  group.all_gather(at::full({1}, static_cast<int64_t>(testing::world().rank()), at::kLong), all,
                   "members");
  return {all.const_data_ptr<int64_t>(), all.const_data_ptr<int64_t>() + all.numel()};
}

using Ranks = std::vector<int64_t>;

TEST(Mesh, OfFourRanksHoldsTheRightRanksInEveryGroup) {
  const auto world = testing::world().communicator();
  if (world->size() != 4) {
    GTEST_SKIP() << "needs 4 ranks";
  }
  const int64_t rank = world->rank();
  const int64_t even = rank / 2 * 2;  // the first of this rank's pair of neighbours
  const Ranks alone = {rank}, all = {0, 1, 2, 3}, neighbours = {even, even + 1},
              apart = {rank % 2, rank % 2 + 2};
  struct Case {
    MeshOptions options;
    Ranks data, context, copy, replicate;
  };
  // Rank = (r * S + s) * C + c.
  const std::vector<Case> cases = {
      {{.replicate = 1, .shard = 2, .context = 2, .timeout = 30}, apart, neighbours, all, alone},
      {{.replicate = 2, .shard = 2, .context = 1, .timeout = 30}, all, alone, neighbours, apart},
      {{.replicate = 2, .shard = 1, .context = 2, .timeout = 30},
       apart,
       neighbours,
       neighbours,
       apart},
      {{.replicate = 1, .shard = 4, .context = 1, .timeout = 30}, all, alone, all, alone},
      {{.replicate = 4, .shard = 1, .context = 1, .timeout = 30}, all, alone, alone, all},
  };
  for (const Case& c : cases) {
    const Mesh mesh = make_mesh(world, c.options);
    SCOPED_TRACE(fmt::format("{}x{}x{}", c.options.replicate, c.options.shard, c.options.context));
    EXPECT_EQ(members(*mesh.world), all);
    EXPECT_EQ(members(*mesh.data), c.data);
    EXPECT_EQ(members(*mesh.context), c.context);
    EXPECT_EQ(members(*mesh.parameters), c.copy);
    EXPECT_EQ(members(*mesh.gradients), c.copy);
    EXPECT_EQ(members(*mesh.replicate), c.replicate);
    // Two purposes, two communicators: what one does is not in the other's order.
    EXPECT_NE(mesh.parameters, mesh.gradients);
    mesh.gradients->check_order();
  }
}

TEST(Mesh, UlyssesRanksAreNeighboursAndRingRanksAreApart) {
  const auto world = testing::world().communicator();
  if (world->size() != 4) {
    GTEST_SKIP() << "needs 4 ranks";
  }
  const int64_t rank = world->rank();
  const Ranks alone = {rank}, all = {0, 1, 2, 3};
  const auto mesh_of = [&](int64_t ulysses) {
    return make_mesh(world, {.context = 4, .ulysses = ulysses, .timeout = 30});
  };
  const Mesh both = mesh_of(2);
  EXPECT_EQ(members(*both.context), all);
  EXPECT_EQ(members(*both.ulysses), (Ranks{rank / 2 * 2, rank / 2 * 2 + 1}));
  EXPECT_EQ(members(*both.ring), (Ranks{rank % 2, rank % 2 + 2}));
  EXPECT_EQ(members(*mesh_of(0).ulysses), all);
  EXPECT_EQ(members(*mesh_of(0).ring), alone);
  EXPECT_EQ(members(*mesh_of(1).ulysses), alone);
  EXPECT_EQ(members(*mesh_of(1).ring), all);
}

TEST(Mesh, OnACpuTheDeviceMeshIsTheSame) {
  const Mesh mesh = make_mesh(testing::world().communicator(), {.timeout = 30});
  const Mesh same = make_device_mesh(mesh, c10::Device(c10::kCPU));
  EXPECT_EQ(same.parameters, mesh.parameters);
  EXPECT_EQ(same.ring, mesh.ring);
}

TEST(Mesh, AxesThatDoNotMultiplyToTheRanksAreErrors) {
  const int size = testing::world().size();
  const auto given = [](int64_t replicate, int64_t shard, int64_t context) {
    return fmt::format("parallel.replicate {} x parallel.shard {} x parallel.context {}", replicate,
                       shard, context);
  };
  EXPECT_EQ(error_of({.replicate = size + 1}),
            fmt::format("{} does not fit {} ranks", given(size + 1, 1, 1), size));
  EXPECT_EQ(error_of({.context = size * 2}),
            fmt::format("{} does not fit {} ranks", given(-1, 1, 2 * size), size));
  EXPECT_EQ(error_of({.shard = int64_t{1} << 62, .context = 4}),
            fmt::format("{} does not fit {} ranks", given(-1, int64_t{1} << 62, 4), size));
  EXPECT_EQ(error_of({.shard = -1}),
            given(-1, -1, 1) + ": only one of them may be -1 (what is left)");
  if (size > 1) {
    EXPECT_EQ(error_of({.replicate = 1}), fmt::format("{} is not {} ranks", given(1, 1, 1), size));
    EXPECT_EQ(error_of({.replicate = size, .shard = size}),
              fmt::format("{} is not {} ranks", given(size, size, 1), size));
  }
  EXPECT_THAT(error_of({.shard = 0}),
              HasSubstr("parallel.shard 0: expected 1 or more, or -1 for what is left"));
  EXPECT_THAT(error_of({.replicate = 0}), HasSubstr("parallel.replicate 0"));
  EXPECT_THAT(error_of({.context = -2}), HasSubstr("parallel.context -2"));
  EXPECT_THAT(error_of({.timeout = 0}), HasSubstr("parallel.timeout 0"));
  EXPECT_EQ(error_of({.context = size, .ulysses = size + 1}),
            fmt::format("parallel.ulysses {} does not divide parallel.context {}", size + 1, size));
  EXPECT_THAT(error_of({.ulysses = -1}), HasSubstr("parallel.ulysses -1"));
}

TEST(Mesh, ItsOptionsAreInTheParallelSection) {
  MeshOptions mesh;
  Options options("test", "");
  mesh.declare(options);
  const char* arguments[] = {"test",
                             "--parallel.replicate=2",
                             "--parallel.shard=3",
                             "--parallel.context=4",
                             "--parallel.ulysses=2",
                             "--parallel.timeout=5"};
  ASSERT_TRUE(options.parse(6, arguments));
  EXPECT_EQ(mesh.replicate, 2);
  EXPECT_EQ(mesh.shard, 3);
  EXPECT_EQ(mesh.context, 4);
  EXPECT_EQ(mesh.ulysses, 2);
  EXPECT_EQ(mesh.timeout, 5);
}

}  // namespace
}  // namespace minwm::comm
