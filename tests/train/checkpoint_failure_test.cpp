// What a job leaves behind whose checkpoint goes wrong, and that it ends.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/error.h"
#include "minwm/train/checkpoint.h"
#include "tests/comm/job.h"
#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::JobOutcome;
using testing::run_job;

JobOutcome run_ranks(const std::string& arguments, int count = 3) {
  return run_job(fmt::format("{} -n {} {} {}", LAUNCHER, count, FAILING_SAVES, arguments));
}

TEST(CheckpointFailure, ARankThatFailsInsideACollectiveCallEndsTheJob) {
  const testing::TemporaryFolder folder;
  const JobOutcome outcome = run_ranks("limit " + (folder / "checkpoints").string());
  EXPECT_EQ(outcome.code, kExitFailure) << outcome.output;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("checkpoint of step 2 was not saved"), HasSubstr("state.h5")));
  EXPECT_LT(outcome.seconds, 15) << outcome.output;
}

TEST(CheckpointFailure, ADiskSlowerThanTheTimeoutIsNoFault) {
  const testing::TemporaryFolder folder;
  const fs::path checkpoints = folder / "checkpoints";
  const JobOutcome outcome = run_ranks("slow " + checkpoints.string());
  EXPECT_EQ(outcome.code, kExitDone) << outcome.output;
  EXPECT_EQ(Checkpoint(checkpoints).info().step, 2);
  EXPECT_GE(outcome.seconds, 3);
}

TEST(CheckpointFailure, ADiskThatNeverAnswersEndsTheJobWith75) {
  for (const int ranks : {1, 3}) {
    const testing::TemporaryFolder folder;
    const JobOutcome outcome = run_ranks("stuck " + (folder / "checkpoints").string(), ranks);
    EXPECT_EQ(outcome.code, kExitTimeout) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr("checkpoint of step 2 was not saved; older ones are "
                                          "untouched: writing it is not complete after 0.5 s"));
    EXPECT_LT(outcome.seconds, 15) << outcome.output;
  }
}

TEST(CheckpointFailure, AKilledSaveLeavesOnlyWhatTheNextOneRemoves) {
  for (const char* milliseconds : {"20", "120"}) {
    const testing::TemporaryFolder folder;
    const fs::path checkpoints = folder / "checkpoints";
    const JobOutcome outcome = run_ranks("kill " + checkpoints.string() + " " + milliseconds);
    EXPECT_EQ(outcome.code, 137) << outcome.output;
    const auto self = comm::self_communicator();
    const auto latest = latest_valid_checkpoint(folder.path(), *self);
    ASSERT_TRUE(latest.has_value()) << outcome.output;
    // Killed in time or just too late; whole either way.
    const Checkpoint checkpoint(*latest);
    const int64_t step = checkpoint.info().step;
    EXPECT_TRUE(checkpoint.read("model/b").eq(static_cast<float>(step)).all().item<bool>());
    EXPECT_EQ(fs::exists(checkpoints / "step-000002.tmp"), step == 1);
    CheckpointInfo info;
    info.step = 3;
    save_checkpoint(checkpoints, info, {{"model/a", at::ones({3})}}, {}, 5, *self);
    EXPECT_FALSE(fs::exists(checkpoints / "step-000002.tmp"));
    EXPECT_TRUE(fs::exists(checkpoints / "step-000001"));
  }
}

}  // namespace
}  // namespace minwm::train
