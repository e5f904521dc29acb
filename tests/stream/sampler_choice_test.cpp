// Which sampler a checkpoint takes, and what is said about the others.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/stream/loaded_model.h"
#include "src/train/checkpoint_files.h"

namespace minwm::stream {
namespace {

using diffusion::Solver;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::ThrowsMessage;

train::CheckpointInfo info_of(const std::string& stage) {
  train::CheckpointInfo info;
  info.stage = stage;
  info.shift = 5;
  if (stage != "bidirectional") {
    info.sampler = "renoise";
    info.step_list = {1000, 750, 500, 250};
  }
  return info;
}

SamplerChoice choose(const train::CheckpointInfo& info, int64_t steps = 0,
                     const std::string& solver = "") {
  SamplerOverrides overrides;
  overrides.steps = steps;
  overrides.solver = solver;
  return choose_sampler(info, overrides, "run/step-000007");
}

TEST(ChooseSampler, FewStepStagesTakeTheirRecordedListAndSolver) {
  for (const char* stage : {"ode", "consistency", "dmd"}) {
    for (const int64_t steps : {0, 4}) {
      const auto choice = choose(info_of(stage), steps);
      EXPECT_EQ(choice.solver, Solver::kRenoise);
      EXPECT_THAT(choice.sigmas, ElementsAre(1, 0.9375, ::testing::DoubleEq(2.5 / 3), 0.625));
      EXPECT_THAT(choice.first_chunk_sigmas, IsEmpty());
    }
  }
}

TEST(ChooseSampler, TheFirstChunkMayHaveAListOfItsOwn) {
  auto info = info_of("dmd");
  info.step_list = {1000};
  info.first_chunk_step_list = {1000, 500};
  const auto choice = choose(info);
  EXPECT_THAT(choice.sigmas, ElementsAre(1));
  EXPECT_THAT(choice.first_chunk_sigmas, ElementsAre(1, ::testing::DoubleEq(2.5 / 3)));
  EXPECT_THAT([&] { choose(info, 2); },
              ThrowsMessage<Error>(
                  HasSubstr("the 1 step 1000 (the first chunk: 1000,500) with solver renoise")));
}

TEST(ChooseSampler, OtherStepsOnAFewStepCheckpointNameTheCallThatWorks) {
  EXPECT_THAT([] { choose(info_of("dmd"), 8); },
              ThrowsMessage<Error>(AllOf(
                  HasSubstr("run/step-000007: --steps 8 does not fit"),
                  HasSubstr("a 'dmd' checkpoint was trained for the 4 steps 1000,750,500,250 with "
                            "solver renoise: drop --steps"))));
  EXPECT_THAT([] { choose(info_of("consistency"), 0, "unipc"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("--solver unipc does not fit"),
                                         HasSubstr("with solver renoise: drop --solver"))));
  EXPECT_THAT([] { choose(info_of("ode"), 50, "euler"); },
              ThrowsMessage<Error>(HasSubstr("drop --steps and --solver")));
}

TEST(ChooseSampler, AFewStepCheckpointWithoutItsListIsRefused) {
  auto info = info_of("dmd");
  info.step_list.clear();
  EXPECT_THAT([&] { choose(info); },
              ThrowsMessage<Error>(HasSubstr("must record its solver and step list")));
}

TEST(ChooseSampler, BidirectionalFollowsTheFlowOverManySteps) {
  EXPECT_EQ(choose(info_of("bidirectional")).solver, Solver::kEuler);
  EXPECT_THAT(choose(info_of("bidirectional")).sigmas, SizeIs(50));
  const auto unipc = choose(info_of("bidirectional"), 20, "unipc");
  EXPECT_EQ(unipc.solver, Solver::kUniPc);
  EXPECT_THAT(unipc.sigmas, SizeIs(20));
  EXPECT_LT(unipc.sigmas.front(), 1);
  EXPECT_THAT([] { choose(info_of("bidirectional"), 4, "renoise"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("only few-step students renoise"),
                                         HasSubstr("use --solver unipc, euler or dpm++"))));
}

TEST(ChooseSampler, TeacherForcingTakesAnySolverAndItsListByDefault) {
  const auto info = info_of("teacher-forcing");
  EXPECT_THAT(choose(info).sigmas, SizeIs(4));
  EXPECT_EQ(choose(info).solver, Solver::kRenoise);
  EXPECT_EQ(choose(info, 0, "euler").sigmas, choose(info).sigmas);
  EXPECT_THAT(choose(info, 8).sigmas, SizeIs(8));
  EXPECT_EQ(choose(info, 8).solver, Solver::kEuler);
  EXPECT_EQ(choose(info, 8, "renoise").solver, Solver::kRenoise);
  EXPECT_THAT(choose(info, 0, "dpm++").sigmas, SizeIs(50));
  EXPECT_THAT(choose(info, 4, "unipc").sigmas, SizeIs(4));
  auto many = info;
  many.step_list.clear();
  EXPECT_THAT(choose(many).sigmas, SizeIs(50));
}

TEST(ChooseSampler, UnknownSolversAndNegativeStepsAreNamed) {
  for (const char* stage : {"dmd", "bidirectional", "teacher-forcing"}) {
    EXPECT_THAT([&] { choose(info_of(stage), 0, "heun"); },
                ThrowsMessage<Error>(HasSubstr("solver 'heun': expected euler, renoise")));
    EXPECT_THAT([&] { choose(info_of(stage), -1); }, ThrowsMessage<Error>(HasSubstr("--steps -1")));
  }
}

TEST(CheckpointInfo, OfBeforeTheFewStepStagesStillOpens) {
  auto info = info_of("teacher-forcing");
  info.first_chunk_step_list = {1000, 500};
  info.guidance = 3;
  info.context_noise = 50;
  auto json = nlohmann::json::parse(train::info_to_json(info));
  const auto whole = train::info_from_json(json.dump(), "file");
  EXPECT_THAT(whole.first_chunk_step_list, ElementsAre(1000, 500));
  EXPECT_EQ(whole.guidance, 3);
  EXPECT_EQ(whole.context_noise, 50);
  for (const char* key : {"first_chunk_step_list", "guidance", "context_noise"}) {
    json.erase(key);
  }
  const auto old = train::info_from_json(json.dump(), "file");
  EXPECT_THAT(old.step_list, SizeIs(4));
  EXPECT_THAT(old.first_chunk_step_list, IsEmpty());
  EXPECT_EQ(old.guidance, 1);
  EXPECT_EQ(old.context_noise, 0);
}

}  // namespace
}  // namespace minwm::stream
