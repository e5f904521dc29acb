// One rank's failure ends the whole job quickly, with its message and the agreed exit code.

#include <array>
#include <chrono>
#include <cstdio>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <nlohmann/json.hpp>

namespace minwm::comm {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  double seconds = 0;
  std::string output;
};

Outcome run_job(const std::string& launcher, const std::string& way) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string command = launcher + FAILING_PROGRAM + " " + way + " 2>&1";
  Outcome outcome;
  FILE* const pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
    outcome.output += buffer.data();
  }
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return outcome;
}

Outcome run_ranks(const std::string& way) {
  return run_job(LAUNCHER " -n 2 ", way);
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
  const Outcome outcome = run_ranks("throw");
  EXPECT_EQ(outcome.code, 2) << outcome.output;
  const auto line = json_line(outcome.output);
  EXPECT_EQ(line.value("rank", -1), 1);
  EXPECT_EQ(line.value("what", ""), "the weights of \"blocks.3\" are missing");
  EXPECT_FALSE(line.value("host", "").empty());
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, AnUnexpectedErrorEndsTheJobWith70) {
  const Outcome outcome = run_ranks("torch");
  EXPECT_EQ(outcome.code, 70) << outcome.output;
  EXPECT_THAT(json_line(outcome.output).value("what", ""), HasSubstr("mat1 and mat2"));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, AKilledRankEndsTheJobAndTheLauncherNamesIt) {
  const Outcome outcome = run_ranks("kill");
  EXPECT_EQ(outcome.code, 137) << outcome.output;
  EXPECT_THAT(outcome.output, ::testing::AllOf(HasSubstr("process rank 1 with PID"),
                                               HasSubstr("on signal 9 (Killed)")));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, ARankThatNeverComesEndsTheJobWith75AndNamesTheCall) {
  const Outcome outcome = run_ranks("hang");
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
  const Outcome outcome = run_ranks("suspend");
  EXPECT_EQ(outcome.code, 75) << outcome.output;
  const auto line = json_line(outcome.output);
  ASSERT_EQ(line.at("absent").size(), 1) << line;
  EXPECT_THAT(line.at("absent")[0].get<std::string>(),
              ::testing::AllOf(HasSubstr("rank 1 ("), HasSubstr("does not answer: stopped")));
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, ACollectiveThatNobodyWaitsForIsWatchedToo) {
  const Outcome outcome = run_ranks("forget");
  EXPECT_EQ(outcome.code, 75) << outcome.output;
  EXPECT_EQ(json_line(outcome.output).value("purpose", ""), "grad blocks.9");
  EXPECT_LT(outcome.seconds, kSoon);
}

TEST(Failure, AStopThatAllRanksAgreeOnKeepsItsExitCode) {
  EXPECT_EQ(run_ranks("stop").code, 3);
}

TEST(Failure, WithoutALauncherTheProgramIsAWorldOfOne) {
  const Outcome outcome = run_job("", "throw");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "");
}

}  // namespace
}  // namespace minwm::comm
