// minwm doctor on sound ranks and on wrong ones.

#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "shell.h"
#include "tests/core/small_disk.h"
#include "tests/core/temporary_folder.h"

namespace minwm::apps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;
using testing::shell;
using testing::TemporaryFolder;

const std::string kDoctor = MINWM_BINARY_DIR "/minwm doctor";
const std::string kRanks = LAUNCHER;

TEST(Doctor, SoundRanksAreOk) {
  const TemporaryFolder folder;
  const Outcome outcome =
      shell(kRanks + " -n 2 " + kDoctor + " --output.dir " + folder.path().string());
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("minwm doctor: 2 ranks"), HasSubstr("HDF5 1."),
                                    HasSubstr("all-reduce GB/s"), ::testing::EndsWith("ok\n")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Doctor, FoldersThatItMadeAreGoneAfterwards) {
  const TemporaryFolder folder;
  const Outcome outcome =
      shell(kRanks + " -n 2 " + kDoctor + " --output.dir " + (folder / "made" / "below").string());
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Doctor, AFullDiskIsToldAsSuch) {
  const TemporaryFolder folder;
  const testing::SmallDisk disk(folder / "small", "1m");
  if (!disk.mounted()) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  const Outcome outcome = shell(kDoctor + " --output.dir " + (folder / "small").string());
  EXPECT_EQ(outcome.code, 70) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("of 4194304 bytes went through (is the disk full?)"),
                                    Not(HasSubstr("Success"))));
  EXPECT_TRUE(std::filesystem::is_empty(folder / "small"));
}

TEST(Doctor, OneRankNeedsNoLauncherAndSaysItAsJson) {
  const Outcome outcome = shell(kDoctor + " --json");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  const auto report = nlohmann::json::parse(outcome.output);
  EXPECT_EQ(report.at("ok"), true);
  EXPECT_EQ(report.at("ranks").size(), 1);
  EXPECT_GT(report.at("ranks")[0].at("all_reduce_gbs")[2].get<double>(), 0);
}

TEST(Doctor, ARankThatCannotWriteItsFolderIsNamed) {
  const TemporaryFolder folder;
  const std::string good = folder.path().string(), file = (folder / "file").string();
  const Outcome outcome =
      shell("touch " + file + "; " + kRanks + " -n 1 " + kDoctor + " --output.dir " + good +
            " : -n 1 " + kDoctor + " --output.dir " + file + "/below");
  EXPECT_EQ(outcome.code, 70) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("\nrank 1 ("), HasSubstr(file + "/below"),
                                    HasSubstr("Not a directory"), Not(HasSubstr("\nrank 0 (")),
                                    Not(HasSubstr("\nok\n"))));
}

TEST(Doctor, AFolderThatIsNotSharedIsNamedWithItsRank) {
  const TemporaryFolder one, other;
  const Outcome outcome =
      shell(kRanks + " -n 1 " + kDoctor + " --output.dir " + one.path().string() + " : -n 1 " +
            kDoctor + " --output.dir " + other.path().string());
  EXPECT_EQ(outcome.code, 70) << outcome.output;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("\nrank 1 ("),
                    HasSubstr(other.path().string() +
                              " does not show the file that rank 0 has written in " +
                              one.path().string())));
  EXPECT_TRUE(std::filesystem::is_empty(one.path()));
  EXPECT_TRUE(std::filesystem::is_empty(other.path()));
}

TEST(Doctor, ARankWithOtherThreadsIsNamed) {
  const Outcome outcome =
      shell(kRanks + " -n 2 " + kDoctor + " : -n 1 env OMP_NUM_THREADS=2 " + kDoctor);
  EXPECT_EQ(outcome.code, 70) << outcome.output;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("\nrank 2 ("), HasSubstr("2 threads, the others have 1"),
                    HasSubstr("OMP_NUM_THREADS"), Not(HasSubstr("\nrank 0 ("))));
}

TEST(Doctor, AMachineWithoutAGpuIsToldSo) {
  const Outcome outcome = shell(kDoctor + " --device cuda");
  if (outcome.output.find("GPU 0") != std::string::npos) {
    EXPECT_EQ(outcome.code, 0) << outcome.output;
    return;
  }
  EXPECT_EQ(outcome.code, 70) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("rank 0 ("), HasSubstr("device cuda:")));
}

TEST(Doctor, ASuspendedRankEndsItByTimeoutAndIsNamed) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string command = kRanks + " -n 2 " + kDoctor + " --parallel.timeout 2 2>&1";
  FILE* const pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> line{};
  std::string output;
  while (std::fgets(line.data(), line.size(), pipe) != nullptr) {
    output += line.data();
    int rank = -1, local = -1;
    pid_t process = 0;
    char host[256];
    // The table of ranks comes first; its line of rank 1 tells the process.
    if (std::sscanf(line.data(), "%d %255s %d %d", &rank, host, &local, &process) == 4 &&
        rank == 1 && process > 1) {
      ASSERT_EQ(::kill(process, SIGSTOP), 0);
    }
  }
  const int status = ::pclose(pipe);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 75) << output;
  EXPECT_THAT(output, AllOf(HasSubstr("\"absent\":[\"rank 1 ("), HasSubstr("does not answer")));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace minwm::apps
