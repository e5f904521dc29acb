// What a job leaves behind whose checkpoint goes wrong, and that it ends.

#include <array>
#include <chrono>
#include <cstdio>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "minwm/train/checkpoint.h"
#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  double seconds = 0;
  std::string output;
};

Outcome run_ranks(const std::string& arguments) {
  const auto begin = std::chrono::steady_clock::now();
  Outcome outcome;
  FILE* const pipe =
      ::popen((LAUNCHER " -n 3 " FAILING_SAVES " " + arguments + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
    outcome.output += buffer.data();
  }
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return outcome;
}

TEST(CheckpointFailure, ARankThatFailsInsideACollectiveCallEndsTheJob) {
  const testing::TemporaryFolder folder;
  const Outcome outcome = run_ranks("limit " + (folder / "checkpoints").string());
  EXPECT_EQ(outcome.code, 2) << outcome.output;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("checkpoint of step 2 was not saved"), HasSubstr("state.h5")));
  EXPECT_LT(outcome.seconds, 15) << outcome.output;
}

TEST(CheckpointFailure, AKilledSaveLeavesOnlyWhatTheNextOneRemoves) {
  for (const char* milliseconds : {"20", "120"}) {
    const testing::TemporaryFolder folder;
    const fs::path checkpoints = folder / "checkpoints";
    const Outcome outcome = run_ranks("kill " + checkpoints.string() + " " + milliseconds);
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
