// The count of bytes against Open MPI's own, which its component pml_monitoring writes to a file
// per rank when the program ends.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"

namespace minwm::comm {
namespace {

constexpr int kRanks = 4;
constexpr int64_t kShardBytes = 400'000;

struct Sent {
  std::map<std::string, int64_t> counted;  ///< of each collective
  int64_t monitored = 0;                   ///< of the whole program, to other ranks
  int64_t total() const {
    int64_t sum = 0;
    for (const auto& [name, bytes] : counted) {
      sum += bytes;
    }
    return sum;
  }
};

/// One entry per rank; empty if Open MPI has no such component.
std::vector<Sent> run(const std::string& kind) {
  const testing::TemporaryFolder folder;
  const std::string profile = (folder.path() / "profile").string();
  const std::string counts = (folder.path() / "counts").string();
  const std::string command = fmt::format(
      "{} -n {} --mca pml_monitoring_enable 1 --mca pml_monitoring_enable_output 3 "
      "--mca pml_monitoring_filename {} {} {} {} 2>&1",
      LAUNCHER, kRanks, profile, COUNTING_PROGRAM, kind, counts);
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::vector<Sent> ranks;
  for (int rank = 0; rank < kRanks; ++rank) {
    std::ifstream file(fmt::format("{}.{}.prof", profile, rank));
    if (!file) {
      return {};
    }
    Sent sent;
    for (std::string line; std::getline(file, line);) {
      // E, from rank, to rank, bytes: between two ranks; inside collectives counts as well.
      std::istringstream words(line);
      std::string what;
      int from = -1, to = -1;
      int64_t bytes = 0;
      if (words >> what >> from >> to >> bytes && (what == "E" || what == "I") && from == rank &&
          to != rank) {
        sent.monitored += bytes;
      }
    }
    std::ifstream lines(fmt::format("{}.{}", counts, rank));
    int number = -1;
    std::string name;
    int64_t bytes = 0;
    while (lines >> number >> name >> bytes) {
      EXPECT_EQ(number, rank);
      sent.counted[name] = bytes;
    }
    ranks.push_back(sent);
  }
  return ranks;
}

TEST(BytesSent, BetweenPairsAreExactlyWhatOpenMpiCounts) {
  const auto start_alone = run("nothing"), pairs = run("pairs");
  if (start_alone.empty()) {
    GTEST_SKIP() << "Open MPI's component pml_monitoring is not installed";
  }
  ASSERT_EQ(pairs.size(), kRanks);
  for (size_t rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(pairs[rank].total(), pairs[rank].monitored - start_alone[rank].monitored)
        << "rank " << rank;
    const auto& counted = pairs[rank].counted;
    // (N - 1) / N of the whole buffer; bf16 is sent as bf16.
    EXPECT_EQ(counted.at("all_gather"), 3 * kShardBytes);
    EXPECT_EQ(counted.at("reduce_scatter"), 3 * kShardBytes);
    EXPECT_EQ(counted.at("reduce_scatter_bf16"), 3 * kShardBytes / 2);
    EXPECT_EQ(counted.at("all_reduce"), 6 * kShardBytes);
    EXPECT_EQ(counted.at("ring_shift"), kShardBytes);
    const auto r = static_cast<int64_t>(rank);
    EXPECT_EQ(counted.at("all_to_all"), 4 * (0 + 1 + 2 + 3 + 4 * r - 2 * r));
  }
}

TEST(BytesSent, AlongTreesTheSumOverRanksIsWhatOpenMpiCounts) {
  const auto start_alone = run("nothing"), trees = run("trees");
  if (start_alone.empty()) {
    GTEST_SKIP() << "Open MPI's component pml_monitoring is not installed";
  }
  int64_t counted = 0, monitored = 0;
  for (size_t rank = 0; rank < kRanks; ++rank) {
    counted += trees.at(rank).total();
    monitored += trees[rank].monitored - start_alone[rank].monitored;
  }
  EXPECT_EQ(counted, 3 * 4800 + 6 * 4800);
  EXPECT_EQ(counted, monitored);
}

}  // namespace
}  // namespace minwm::comm
