// Whom minwm doctor names, given what every rank has found.

#include "src/apps/doctor_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace minwm::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

/// What `count` sound ranks find.
std::vector<Json> sound_ranks(int count) {
  std::vector<Json> ranks;
  for (int rank = 0; rank < count; ++rank) {
    ranks.push_back({{"rank", rank},
                     {"host", "node"},
                     {"threads", 1},
                     {"versions", {{"MPI", "1"}}},
                     {"gflops", 10.0},
                     {"skew_low_ms", 0.0},
                     {"skew_high_ms", 0.0},
                     {"collectives", {{"device", "cpu"}}}});
  }
  return ranks;
}

TEST(DoctorChecks, SoundRanksHaveNoProblem) {
  EXPECT_THAT(find_problems(sound_ranks(4)), IsEmpty());
}

TEST(DoctorChecks, OnlyTheSenderOfWrongDataIsNamed) {
  auto ranks = sound_ranks(4);
  for (auto& rank : ranks) {
    rank["collectives"]["wrong_from"] = {2};
    rank["collectives"]["wrong_sums"] = "1000 Float";  // a consequence
  }
  EXPECT_THAT(find_problems(ranks),
              ElementsAre("rank 2 (node): what it sends to ranks 0, 1, 2, 3 is wrong on cpu: check "
                          "memory and network of this host"));
}

TEST(DoctorChecks, ARankThatReceivesNothingRightIsNamedItself) {
  auto ranks = sound_ranks(4);
  ranks[1]["collectives"]["wrong_from"] = {0, 2, 3};
  EXPECT_THAT(find_problems(ranks),
              ElementsAre(StartsWith("rank 1 (node): what it receives from ranks 0, 2, 3 is")));
}

TEST(DoctorChecks, EachOfTwoCausesIsNamed) {
  auto ranks = sound_ranks(5);
  for (auto& rank : ranks) {
    rank["collectives"]["wrong_from"] = {4};
  }
  ranks[0]["collectives"]["wrong_from"] = {1, 4};
  EXPECT_THAT(find_problems(ranks),
              ElementsAre(StartsWith("rank 4 (node): what it sends to ranks 0, 1, 2, 3, 4"),
                          StartsWith("rank 1 (node): what it sends to rank 0 is wrong")));
}

TEST(DoctorChecks, WrongSumsOfRightDataAreToldByTheRanksThatHaveThem) {
  auto ranks = sound_ranks(3);
  ranks[1]["gpu"] = {{"device", "cuda:1"}, {"wrong_sums", "1 Long, 1000 Long"}};
  EXPECT_THAT(find_problems(ranks),
              ElementsAre("rank 1 (node): wrong all-reduce of 1 Long, 1000 Long on cuda:1: check "
                          "memory and network of this host"));
}

TEST(DoctorChecks, RightCollectivesLeaveNothingToBlame) {
  const auto self = comm::self_communicator();
  EXPECT_EQ(check_collectives(*self, c10::kCPU), (Json{{"device", "cpu"}}));
}

}  // namespace
}  // namespace minwm::apps
