// The arithmetic of a plan: sums, limits, the figures of parallel.md section 3.7, and proposals.

#include "minwm/parallel/planning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/apps/model_shapes.h"
#include "tests/core/temporary_folder.h"

namespace minwm::parallel {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

const std::vector<std::string> kStages = {"bidirectional", "teacher-forcing", "ode", "consistency",
                                          "dmd"};
constexpr double kGB = 1e9;

const ModelShape& hy_8b(bool camera) {
  static const ModelShape with = apps::model_shape("hy-8b"),
                          without = apps::model_shape("hy-8b-ti2v");
  return camera ? with : without;
}

/// The 8.3e9 parameters of the spec's table: hy-8b without cameras, on 480x832x77.
StepShape hy(const std::string& stage, bool camera = false) {
  StepShape step;
  step.model = hy_8b(camera);
  step.device = device_kind("h200");
  step.stage = stage;
  step.averaged = stage == "dmd";  // as the recipes have it
  return step;
}

MeshShape mesh_of(int64_t replicate, int64_t shard, int64_t context, int64_t ulysses = 1) {
  return {replicate, shard, context, ulysses};
}

double gigabytes(int64_t bytes) {
  return static_cast<double>(bytes) / kGB;
}

TEST(Plan, OneRankHoldsSixteenBytesPerParameterAndGathersNothing) {
  StepShape step = hy("bidirectional");
  const auto memory = plan_memory(step, mesh_of(1, 1, 1));
  EXPECT_EQ(memory.steady(), 16 * step.model.parameters());
  EXPECT_EQ(memory.root + memory.exchange + memory.flat_gradients + memory.unreduced, 0);
  EXPECT_EQ(plan_wire(step, mesh_of(1, 1, 1)).total(), 0);
  step.device = device_kind("cpu");  // float32: weights are used as they are
  EXPECT_EQ(plan_memory(step, mesh_of(1, 1, 1)).gathered, 0);
}

TEST(Plan, AWholeCopyIsFloat32AndFrozenNetworksAsWell) {
  StepShape step = hy("dmd");
  const auto memory = plan_memory(step, mesh_of(8, 1, 1));
  EXPECT_EQ(memory.frozen, 4 * step.model.parameters());
  EXPECT_EQ(memory.averages, 4 * step.model.parameters());
  EXPECT_EQ(memory.casts, 0);
  const auto wire = plan_wire(step, mesh_of(8, 1, 1));
  EXPECT_EQ(wire.gathers + wire.reductions, 0);
  // Kept activations keep the matrices that were cast for them.
  step = hy("bidirectional");
  step.recompute = false;
  EXPECT_EQ(plan_memory(step, mesh_of(1, 1, 1)).gathered,
            2 * step.model.blocks * step.model.block.matrices);
}

TEST(Plan, AnAverageIsFourBytesPerParameterAndInConsistencyANetwork) {
  StepShape step = hy("teacher-forcing");
  const auto mesh = mesh_of(1, 8, 1);
  const auto without = plan_memory(step, mesh);
  step.averaged = true;
  const auto with = plan_memory(step, mesh);
  EXPECT_EQ(without.averages, 0);
  EXPECT_EQ(with.averages, with.parameters);
  EXPECT_EQ(with.casts, without.casts);
  step.stage = "dmd";
  const auto dmd = plan_memory(step, mesh);
  EXPECT_EQ(dmd.averages, with.averages);  // of the generator alone
  EXPECT_EQ(dmd.casts, 2 * with.casts);
  step.stage = "consistency";
  step.averaged = false;
  const auto consistency = plan_memory(step, mesh);
  EXPECT_EQ(consistency.averages, with.averages);
  EXPECT_EQ(consistency.casts, 2 * with.casts);  // it runs, so it is gathered
}

TEST(Plan, TheTotalIsTheSumOfItsItems) {
  for (const auto& stage : kStages) {
    const auto m = plan_memory(hy(stage), mesh_of(2, 4, 2, 2));
    EXPECT_EQ(m.total(), m.parameters + m.casts + m.gradients + m.moments + m.averages + m.frozen +
                             m.root + m.text_work + m.gathered + m.exchange + m.flat_gradients +
                             m.block_gradients + m.unreduced + m.activations + m.block_work +
                             m.kv_cache)
        << stage;
    EXPECT_EQ(m.activations, m.activations_recomputed) << stage;
    EXPECT_LT(m.activations_recomputed, m.activations_kept) << stage;
  }
}

// Table of spec parallel 3.7, in GB, to its rounding.
TEST(Plan, StatePerRankIsThatOfThePublishedTable) {
  struct Row {
    int64_t ranks;
    double trained, averaged, dmd;
  };
  for (const Row& row :
       {Row{8, 16.6, 20.8, 39}, Row{16, 8.3, 10.4, 19.7}, Row{64, 2.1, 2.6, 4.9}}) {
    const auto mesh = mesh_of(1, row.ranks, 1);
    const auto trained = plan_memory(hy("bidirectional"), mesh);
    EXPECT_NEAR(gigabytes(trained.steady() - trained.casts), row.trained, 0.06) << row.ranks;
    EXPECT_NEAR(gigabytes(trained.steady() - trained.casts + trained.parameters), row.averaged,
                0.06)
        << row.ranks;
    const auto dmd = plan_memory(hy("dmd"), mesh);
    EXPECT_NEAR(gigabytes(dmd.steady() - dmd.casts), row.dmd, 0.6) << row.ranks;
    // 2 trained with moments, one average, one frozen in bfloat16 but for its root and vectors.
    const double ideal = 38.0 * 8.3266e9 / static_cast<double>(row.ranks) / kGB;
    EXPECT_NEAR(gigabytes(dmd.steady() - dmd.casts), ideal, 0.02 * ideal) << row.ranks;
  }
}

TEST(Plan, TransientBytesAreThoseOfTheSpec) {
  const auto step = hy("bidirectional");
  const auto memory = plan_memory(step, mesh_of(1, 64, 1));
  const int64_t root = 4 * step.model.root.parameters();
  // Two gathered blocks and one float32 gradient: 8 bytes per parameter of a block, 1.2 GB.
  EXPECT_NEAR(gigabytes(memory.gathered + memory.flat_gradients - root), 1.2, 0.05);
  EXPECT_EQ(memory.root, root);
}

TEST(Plan, TheRootOfAJointTextIsCastAndNotRunAgain) {
  StepShape step = hy("bidirectional");
  const auto mesh = mesh_of(1, 8, 1);
  const int64_t casts = 2 * step.model.root.matrices;
  EXPECT_GT(plan_memory(step, mesh).text_work, casts);
  step.model.text_rows = 0;
  EXPECT_EQ(plan_memory(step, mesh).text_work, casts);
  step.model = apps::model_shape("wan-1.3b");
  EXPECT_EQ(plan_memory(step, mesh).text_work, 0);
}

TEST(Plan, TeacherForcingCopiesKeysAndValuesForNoisyFrames) {
  StepShape step = hy("bidirectional", true);
  step.model.text_rows = 0;
  const auto mesh = mesh_of(1, 8, 1);
  const auto whole = plan_memory(step, mesh);
  step.stage = "teacher-forcing";
  const auto forced = plan_memory(step, mesh);
  // 36 of 20 frames, and copies for 4 + 8 + … + 20 frames: keys and values of two paths, bfloat16.
  const double copies = 60.0 * 1560 * 2 * 2 * 2048 * 2;
  EXPECT_NEAR(gigabytes(forced.activations_kept) / 54,
              1.8 * gigabytes(whole.activations_kept) / 54 + copies / kGB, 0.01);
}

TEST(Plan, ABlockThatIsAllHasNoneToGatherAhead) {
  StepShape step = hy("bidirectional");
  const int64_t two = plan_memory(step, mesh_of(1, 8, 1)).gathered;
  step.model.blocks = 1;
  EXPECT_EQ(2 * plan_memory(step, mesh_of(1, 8, 1)).gathered, two);
}

TEST(Plan, OneReductionPerStepKeepsAWholeGradient) {
  StepShape step = hy("bidirectional");
  const auto each = plan_memory(step, mesh_of(1, 8, 1));
  step.reduce_each = false;
  const auto once = plan_memory(step, mesh_of(1, 8, 1));
  EXPECT_EQ(once.unreduced + once.flat_gradients, 4 * step.model.parameters());
  EXPECT_EQ(once.total() - once.unreduced - once.flat_gradients,
            each.total() - each.flat_gradients - each.exchange);
}

TEST(Plan, ActivationsAreTheBlocksInputs) {
  StepShape step = hy("bidirectional");
  step.model.text_rows = 0;
  step.model.residual_bytes = 2;  // as the spec counts; ours keeps the residual stream in float32
  EXPECT_NEAR(gigabytes(plan_memory(step, mesh_of(1, 8, 1)).activations), 6.9, 0.05);
  EXPECT_NEAR(gigabytes(plan_memory(step, mesh_of(1, 1, 8, 8)).activations), 6.9 / 8, 0.01);
  step.stage = "teacher-forcing";  // noisy frames, and clean ones but for the last chunk
  EXPECT_NEAR(gigabytes(plan_memory(step, mesh_of(1, 8, 1)).activations), 6.9 * 1.8, 0.1);
}

TEST(Plan, SlicesShrinkWithTheCopyAndStayWithTheReplicas) {
  const auto step = hy("teacher-forcing");
  const auto eight = plan_memory(step, mesh_of(1, 8, 1)),
             sixteen = plan_memory(step, mesh_of(1, 16, 1));
  EXPECT_NEAR(static_cast<double>(eight.steady()) / static_cast<double>(sixteen.steady()), 2, 1e-3);
  EXPECT_EQ(plan_memory(step, mesh_of(4, 8, 1)).total(), eight.total());
  EXPECT_EQ(plan_memory(step, mesh_of(1, 2, 4, 4)).steady(), eight.steady());
}

TEST(Plan, OffloadMovesSlicesToTheHostAndKeepsTheirSum) {
  StepShape step = hy("dmd");
  const auto mesh = mesh_of(1, 8, 1);
  const auto before = plan_memory(step, mesh);
  step.offload_teacher = true;
  const auto teacher = plan_memory(step, mesh);
  EXPECT_EQ(teacher.frozen, 0);
  EXPECT_EQ(teacher.host, before.frozen);
  step.offload_optimizer = true;
  const auto both = plan_memory(step, mesh);
  EXPECT_EQ(both.steady(), 0);
  EXPECT_EQ(both.host, before.steady());
}

TEST(Plan, OffloadNeedsSharedWeights) {
  StepShape step = hy("dmd");
  step.offload_teacher = true;
  const std::string why = "parallel.offload needs parallel.shard x parallel.context > 1";
  EXPECT_EQ(error_of([&] { plan_memory(step, mesh_of(8, 1, 1)); }), why);
  EXPECT_EQ(error_of([&] { choose_mesh(step, 8, {.replicate = 8}); }),
            "hy-8b-ti2v dmd on 8 x h200: " + why);
  const auto mesh = propose_mesh(step, 8);
  ASSERT_TRUE(mesh.has_value());
  EXPECT_GT(mesh->copy(), 1);
}

TEST(Plan, MuonKeepsOneMomentOfAMatrix) {
  StepShape step = hy("bidirectional");
  step.muon = true;
  const auto memory = plan_memory(step, mesh_of(1, 1, 1));
  const auto& m = step.model;
  const int64_t matrices = m.blocks * m.block.matrices + m.root.matrices;
  EXPECT_EQ(memory.moments, 8 * m.parameters() - 4 * matrices);
}

TEST(Plan, WireBytesOfWeightsAreThoseOfTheSpec) {
  StepShape step = hy("bidirectional");
  const auto wire = plan_wire(step, mesh_of(1, 64, 1));
  const auto root = 4.0 * static_cast<double>(step.model.root.parameters());
  // 2 gathers of 2 bytes and one reduction of 4 per parameter: 33 GB each.
  EXPECT_NEAR(wire.gathers / kGB, 33, 0.5);
  EXPECT_NEAR(wire.reductions / kGB, 33, 0.5);
  EXPECT_NEAR(wire.gathers,
              (63.0 / 64) * (4.0 * static_cast<double>(54 * step.model.block.matrices) +
                             8.0 * static_cast<double>(54 * step.model.block.vectors) + root),
              1);
  EXPECT_EQ(wire.replicate, 0);
  step.global_batch = 64 * 64;
  EXPECT_NEAR(plan_wire(step, mesh_of(64, 64, 1)).replicate / kGB, 1, 0.05);
}

TEST(Plan, WireBytesOfContextAreThoseOfTheSpec) {
  StepShape step = hy("bidirectional");
  step.model.text_rows = 0;
  step.recompute = false;
  step.global_batch = 1;
  // Per attention pass of 31 200 tokens on 8 ranks; forward and backward are two, 54 blocks.
  const double passes = 2 * 54;
  const auto ulysses = plan_wire(step, mesh_of(1, 1, 8, 8));
  EXPECT_NEAR(ulysses.ulysses / passes, 56e6, 0.5e6);
  EXPECT_EQ(ulysses.ring, 0);
  const auto ring = plan_wire(step, mesh_of(1, 1, 8, 1));
  EXPECT_EQ(ring.ulysses, 0);
  // 224 MB forward, as much again in backward, and the float32 gradients over all 8 hops.
  EXPECT_NEAR(ring.ring / 54, 2 * 224e6 + 2 * 224e6 * 8 / 7, 4e6);
  // Cameras: a second output on the way back (5 tensors instead of 4), twice the keys and values.
  step.model.camera = true;
  EXPECT_NEAR(plan_wire(step, mesh_of(1, 1, 8, 8)).ulysses / ulysses.ulysses, 1.25, 1e-6);
  EXPECT_NEAR(plan_wire(step, mesh_of(1, 1, 8, 1)).ring / ring.ring, 2, 1e-6);
}

TEST(Plan, ForwardFlopAreThoseOfTheSpec) {
  StepShape step = hy("bidirectional");
  step.global_batch = 1;
  // Attention 464 and products 189 TFLOP; a training step with recomputation is four forwards.
  EXPECT_NEAR(plan_time(step, mesh_of(1, 1, 1)).flop / 4e12, 464 + 189 - 15, 8);
  step.model = hy_8b(true);
  EXPECT_NEAR(plan_time(step, mesh_of(1, 1, 1)).flop / 4e12, 1100, 40);
  EXPECT_NEAR(plan_time(step, mesh_of(1, 1, 4, 4)).flop, plan_time(step, mesh_of(1, 1, 1)).flop / 4,
              1e9);
}

TEST(Plan, AccumulationGathersAgainAndReducesAgainUnlessTold) {
  StepShape step = hy("bidirectional");
  step.global_batch = 8;
  const auto once = plan_wire(step, mesh_of(1, 8, 1));
  step.global_batch = 16;
  const auto twice = plan_wire(step, mesh_of(1, 8, 1));
  EXPECT_NEAR(twice.gathers, 2 * once.gathers, 1);
  EXPECT_NEAR(twice.reductions, 2 * once.reductions, 1);
  step.reduce_each = false;
  EXPECT_NEAR(plan_wire(step, mesh_of(1, 8, 1)).reductions, once.reductions, 1);
}

TEST(Plan, ARecordedRolloutGathersItsRootOnceAndReducesPerCallOnlyIfRecomputed) {
  StepShape step = hy("dmd");
  step.generator_every = 1;
  step.rollout_steps = 1;
  step.global_batch = 8;
  const auto mesh = mesh_of(1, 8, 1);
  const auto recomputed = plan_wire(step, mesh);
  step.recompute = false;
  const auto kept = plan_wire(step, mesh);
  const auto& m = step.model;
  const auto others = [](double bytes) { return bytes * 7 / 8; };
  const double root = 4.0 * static_cast<double>(m.root.parameters());
  const double blocks = 4.0 * static_cast<double>(m.blocks * m.block.parameters());
  // The generator's five chunks and the critic's pass.
  EXPECT_NEAR(recomputed.reductions, others(5 * blocks + root + blocks + root), 1);
  EXPECT_NEAR(kept.reductions, others(blocks + root + blocks + root), 1);
  const double gathered =
      static_cast<double>(m.blocks) *
      (2.0 * static_cast<double>(m.block.matrices) + 4.0 * static_cast<double>(m.block.vectors));
  // Blocks: the critic's rollout of 5 chunks twice each (denoise, commit), the recorded one's 5
  // commits, its 5 calls there and back; the critic there and back and once; the teacher twice. The
  // root: in each of the 10 calls, once for the recorded rollout, 2 and 2.
  EXPECT_NEAR(recomputed.gathers,
              others((10 + 5 + 10 + 3 + 2) * gathered + (10 + 1 + 2 + 2) * root), 1);
}

/// With as many context ranks and a smaller copy of the weights there would be no room.
void expect_smallest(StepShape step, const MeshShape& mesh) {
  const double room = kRoom * usable_memory(step.device);
  if (static_cast<double>(plan_memory(step, mesh).total()) > room) {
    return;  // the best of a tight choice
  }
  for (int64_t shard = 1; shard < mesh.shard; ++shard) {
    if (mesh.data() % shard == 0) {
      const MeshShape smaller{mesh.data() / shard, shard, mesh.context, mesh.ulysses};
      EXPECT_GT(static_cast<double>(plan_memory(step, smaller).total()), room)
          << step.stage << ": " << to_string(mesh) << ", but also " << to_string(smaller);
    }
  }
}

TEST(Plan, EveryStageHasAProposalOnEightToAThousandRanks) {
  for (const bool recompute : {true, false}) {
    for (const auto& stage : kStages) {
      for (const int64_t ranks : {8, 16, 64, 128, 256, 512, 1024}) {
        StepShape step = hy(stage, true);
        step.recompute = recompute;
        const auto mesh = propose_mesh(step, ranks);
        if (!mesh) {
          EXPECT_FALSE(recompute) << stage << " on " << ranks;  // activations may be too many
          continue;
        }
        EXPECT_EQ(mesh->ranks(), ranks) << stage;
        EXPECT_EQ(step.global_batch % mesh->data(), 0) << stage << " on " << ranks;
        EXPECT_EQ(step.model.heads % mesh->ulysses, 0) << stage;
        EXPECT_LE(mesh->ulysses, 8) << stage;
        EXPECT_LE(static_cast<double>(plan_memory(step, *mesh).total()), usable_memory(step.device))
            << stage << " on " << ranks;
        expect_smallest(step, *mesh);
      }
    }
  }
}

TEST(Plan, MoreRanksThanClipsShareTheTokens) {
  const auto step = hy("teacher-forcing", true);
  const auto mesh = propose_mesh(step, 1024);
  ASSERT_TRUE(mesh.has_value());
  EXPECT_EQ(mesh->data(), step.global_batch);
  EXPECT_EQ(*mesh, (MeshShape{mesh->replicate, mesh->shard, 16, 8}));
}

TEST(Plan, ACollectiveOfWholeNodesUsesAllTheirAdapters) {
  const auto step = hy("bidirectional");
  const auto& d = step.device;
  const auto rate = [&](const MeshShape& mesh) {
    const auto wire = plan_wire(step, mesh);
    return (wire.gathers + wire.reductions) / plan_time(step, mesh).weights;
  };
  EXPECT_NEAR(rate(mesh_of(1, 8, 1)), d.node_bandwidth, 1);
  EXPECT_NEAR(rate(mesh_of(1, 16, 1)), 8 * d.wire_bandwidth, 1);
  // One rank of each node: its own adapter alone.
  const auto across = mesh_of(8, 8, 1);
  EXPECT_NEAR(plan_wire(step, across).replicate / plan_time(step, across).replicate,
              d.wire_bandwidth, 1);
}

TEST(Plan, TwelveHeadsOnEightRanksExchangeInFours) {
  StepShape step = hy("bidirectional");
  step.model = apps::model_shape("wan-1.3b");
  EXPECT_EQ(ulysses_of(step, 8), 4);
  EXPECT_EQ(ulysses_of(step, 12), 6);
  EXPECT_EQ(ulysses_of(step, 1), 1);
}

TEST(Plan, WhatCannotFitIsRefusedWithAMeshThatDoes) {
  const auto step = hy("dmd", true);
  const std::string message =
      error_of([&] { choose_mesh(step, 64, {.replicate = 64, .shard = 1, .context = 1}); });
  EXPECT_THAT(
      message,
      AllOf(HasSubstr("hy-8b dmd on 64 x h200: replicate 64 x shard 1 x context 1 needs "),
            HasSubstr(" GB per rank, "), HasSubstr(" GB are usable; it fits as replicate ")));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(Plan, WhereNoMeshFitsMoreRanksAreNamed) {
  const auto step = hy("dmd", true);
  const std::string message = error_of([&] { choose_mesh(step, 1, {}); });
  EXPECT_THAT(message, AllOf(HasSubstr("no mesh of these ranks fits; "),
                             HasSubstr("with 4 ranks it fits as replicate ")));
}

TEST(Plan, WhereNoMeshFitsSlicesInHostMemoryAreProposedBeforeMoreRanks) {
  StepShape step = hy("dmd", true);
  step.device.memory = 40e9;
  ASSERT_FALSE(propose_mesh(step, 8).has_value());
  const auto remedy = find_remedy(step, 8);
  ASSERT_TRUE(remedy.has_value());
  EXPECT_TRUE(remedy->step.offload_optimizer);
  EXPECT_EQ(remedy->ranks, 8);
  EXPECT_LE(static_cast<double>(plan_memory(remedy->step, remedy->mesh).total()),
            usable_memory(step.device));
  EXPECT_THAT(error_of([&] { choose_mesh(step, 8, {}); }),
              HasSubstr("with " + remedy->options + " it fits as " + to_string(remedy->mesh)));
  step.device.memory = 3e9;
  EXPECT_FALSE(find_remedy(step, 8).has_value());
}

TEST(Plan, TheNetworksOfAStageAddUpToWhatItHolds) {
  for (const auto& stage : kStages) {
    StepShape step = hy(stage, true);
    step.offload_teacher = true;
    const auto mesh = mesh_of(1, 8, 1);
    const auto memory = plan_memory(step, mesh);
    int64_t device = 0, host = 0;
    for (const auto& network : plan_networks(step, mesh)) {
      (network.offloaded ? host : device) += network.bytes;
    }
    EXPECT_EQ(device, memory.steady()) << stage;
    EXPECT_EQ(host, memory.host) << stage;
  }
  const auto dmd = plan_networks(hy("dmd", true), mesh_of(1, 8, 1));
  ASSERT_EQ(dmd.size(), 3);
  EXPECT_EQ(dmd[0].name, "generator");
  EXPECT_TRUE(dmd[0].trained && dmd[0].averaged);
  EXPECT_EQ(dmd[1].name, "critic");
  EXPECT_TRUE(dmd[1].trained && !dmd[1].averaged);
  EXPECT_EQ(dmd[2].name, "real score");
  EXPECT_FALSE(dmd[2].trained);
}

TEST(Plan, AxesAndBatchesThatCannotBeAreNamed) {
  StepShape step = hy("bidirectional");
  EXPECT_THAT(error_of([&] { choose_mesh(step, 8, {.shard = 3}); }),
              HasSubstr("no mesh with parallel.replicate 0, parallel.shard 3, parallel.context 0"));
  step.global_batch = 3;
  step.micro_batch = 2;
  EXPECT_THAT(error_of([&] { choose_mesh(step, 8, {}); }),
              HasSubstr("shares train.global_batch 3 out in micro-batches of 2"));
  EXPECT_THAT(
      error_of([&] { plan_wire(step, mesh_of(1, 2, 1)); }),
      HasSubstr("train.global_batch 3 is no whole number of micro-batches of 2 on 2 data ranks"));
  step = hy("distillation");
  EXPECT_THAT(error_of([&] { choose_mesh(step, 8, {}); }),
              HasSubstr("stage 'distillation': expected"));
  step = hy("dmd");
  step.chunk_frames = 3;
  EXPECT_EQ(error_of([&] { choose_mesh(step, 8, {}); }),
            "20 latent frames are no whole chunks of 3");
  EXPECT_EQ(
      error_of([] { device_kind("h10"); }).rfind("gpu 'h10' is not known; did you mean h100?", 0),
      0U);
}

TEST(Plan, AMeshThatCannotBeForItsHeadsOrTokensIsRefusedForThat) {
  StepShape step = hy("bidirectional");
  EXPECT_EQ(error_of([&] { choose_mesh(step, 8, {.context = 4, .ulysses = 3}); }),
            "hy-8b-ti2v bidirectional on 8 x h200: parallel.ulysses 3 does not divide "
            "parallel.context 4");
  EXPECT_EQ(
      error_of([&] { choose_mesh(step, 32, {.context = 32, .ulysses = 32}); }),
      "hy-8b-ti2v bidirectional on 32 x h200: parallel.ulysses 32 is more than the 16 heads of "
      "hy-8b-ti2v");
  step.frame_tokens = 4;
  EXPECT_EQ(
      error_of([&] { choose_mesh(step, 8, {.context = 8}); }),
      "hy-8b-ti2v bidirectional on 8 x h200: parallel.context 8 is more than the 4 tokens of a "
      "latent frame");
  step.prefetch = -1;
  EXPECT_EQ(error_of([&] { choose_mesh(step, 8, {}); }),
            "parallel.prefetch -1: expected 0 or more");
}

TEST(Plan, AWishedAxisIsKept) {
  const auto step = hy("teacher-forcing", true);
  const auto mesh = choose_mesh(step, 64, {.context = 8});
  EXPECT_EQ(mesh.context, 8);
  EXPECT_EQ(mesh.ranks(), 64);
  EXPECT_EQ(choose_mesh(step, 64, {.replicate = 2, .shard = 8, .context = 4, .ulysses = 2}),
            (MeshShape{2, 8, 4, 2}));
}

}  // namespace
}  // namespace minwm::parallel
