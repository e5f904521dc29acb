// One rank's failure ends the whole job quickly, with its message and the agreed exit code.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "job.h"

namespace minwm::comm {
namespace {

using ::testing::HasSubstr;
using testing::JobOutcome;
using testing::run_job;

JobOutcome run_ranks(const std::string& way) {
  return run_job(LAUNCHER " -n 2 " FAILING_PROGRAM " " + way);
}

/// The first line of the output that is a JSON object.
nlohmann::json json_line(const std::string& output) {
  const size_t begin = output.find("{\"rank\"");
  EXPECT_NE(begin, std::string::npos) << output;
  return begin == std::string::npos
             ? nlohmann::json()
             : nlohmann::json::parse(output.substr(begin, output.find('\n', begin) - begin));
}

// A clean start and end of the job takes about 2 s on a loaded machine of two cores.
constexpr double kSoon = 15;

TEST(Failure, AnErrorOnOneRankEndsTheJobWithItsMessage) {
  const JobOutcome outcome = run_ranks("throw");
  EXPECT_EQ(outcome.code, 2) << outcome.output;
  const auto line = json_line(outcome.output);
  EXPECT_EQ(line.value("rank", -1), 1);
  EXPECT_EQ(line.value("what", ""), "the weights of \"blocks.3\" are missing");
  EXPECT_FALSE(line.value("host", "").empty());
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, AnUnexpectedErrorEndsTheJobWith70) {
  const JobOutcome outcome = run_ranks("torch");
  EXPECT_EQ(outcome.code, 70) << outcome.output;
  EXPECT_THAT(json_line(outcome.output).value("what", ""), HasSubstr("mat1 and mat2"));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, AKilledRankEndsTheJobAndTheLauncherNamesIt) {
  const JobOutcome outcome = run_ranks("kill");
  EXPECT_EQ(outcome.code, 137) << outcome.output;
  EXPECT_THAT(outcome.output, ::testing::AllOf(HasSubstr("process rank 1 with PID"),
                                               HasSubstr("on signal 9 (Killed)")));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, ARankThatNeverComesEndsTheJobWith75AndNamesTheCall) {
  const JobOutcome outcome = run_ranks("hang");
  EXPECT_EQ(outcome.code, 75) << outcome.output;
  const auto line = json_line(outcome.output);
  EXPECT_THAT(line.value("what", ""),
              ::testing::AllOf(HasSubstr("all_reduce 'grad blocks.7' seq 1 not complete after"),
                               HasSubstr("last calls: barrier 'start' seq 0")));
  EXPECT_EQ(line.value("rank", -1), 0);
  EXPECT_EQ(line.value("operation", ""), "all_reduce");
  EXPECT_EQ(line.value("purpose", ""), "grad blocks.7");
  EXPECT_EQ(line.value("sequence", -1), 1);
  EXPECT_GE(line.value("elapsed", 0.0), 1.0);
  EXPECT_EQ(line.at("last_calls").size(), 2);
  // The place of the caller, not of the class that it calls.
  EXPECT_THAT(line.value("call_site", ""),
              ::testing::MatchesRegex("tests/comm/failing_program.cpp:[0-9]+"));
  // The rank that is missing still lives, and says where it is.
  ASSERT_EQ(line.at("absent").size(), 1) << line;
  EXPECT_THAT(line.at("absent")[0].get<std::string>(),
              ::testing::AllOf(HasSubstr("rank 1 ("),
                               HasSubstr("has not called it, its last call is barrier 'start'")));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, ASuspendedRankEndsTheJobWith75AndIsNamed) {
  const JobOutcome outcome = run_ranks("suspend");
  EXPECT_EQ(outcome.code, 75) << outcome.output;
  const auto line = json_line(outcome.output);
  ASSERT_EQ(line.at("absent").size(), 1) << line;
  EXPECT_THAT(line.at("absent")[0].get<std::string>(),
              ::testing::AllOf(HasSubstr("rank 1 ("), HasSubstr("does not answer: stopped")));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, ACollectiveThatNobodyWaitsForIsWatchedToo) {
  const JobOutcome outcome = run_ranks("forget");
  EXPECT_EQ(outcome.code, 75) << outcome.output;
  EXPECT_EQ(json_line(outcome.output).value("purpose", ""), "grad blocks.9");
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, ACallWithADeadlineOfItsOwnMayTakeLonger) {
  const JobOutcome outcome = run_ranks("slow");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "");
}

TEST(Failure, ACallWithADeadlineOfItsOwnEndsTheJobToo) {
  const JobOutcome outcome = run_ranks("too_slow");
  EXPECT_EQ(outcome.code, 75) << outcome.output;
  EXPECT_THAT(json_line(outcome.output).value("what", ""),
              ::testing::AllOf(HasSubstr("all_reduce 'disk'"), HasSubstr("(limit 1.5 s")));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, AStuckOperationOfAWorldOfOneEndsWith75) {
  const JobOutcome outcome = run_job(FAILING_PROGRAM " stuck");
  EXPECT_EQ(outcome.code, 75) << outcome.output;
  EXPECT_EQ(json_line(outcome.output).value("operation", ""), "stuck");
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, AStopThatAllRanksAgreeOnKeepsItsExitCode) {
  EXPECT_EQ(run_ranks("stop").code, 3);
}

TEST(Failure, WithoutALauncherTheProgramIsAWorldOfOne) {
  const JobOutcome outcome = run_job(FAILING_PROGRAM " throw");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "");
}

}  // namespace
}  // namespace minwm::comm
