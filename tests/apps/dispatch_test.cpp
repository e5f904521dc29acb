// How `minwm` finds its subcommands: the real main with subcommands of the test's own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/apps/shell.h"

namespace {

using minwm::testing::Outcome;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// `arguments` may redirect; stderr is not part of the output.
Outcome run(const std::string& arguments) {
  return minwm::testing::shell("{ " DISPATCH_PROGRAM " " + arguments + "; } 2>/dev/null");
}

TEST(Dispatch, FindsCommandsOfOneAndTwoWordsAndPassesTheRest) {
  const Outcome two = run("data synth --seed 3");
  EXPECT_EQ(two.code, 3);
  EXPECT_EQ(two.output, "rank 0 of 1: synth --seed 3\n");
  EXPECT_EQ(run("train data synth").output, "rank 0 of 1: train data synth\n");
}

TEST(Dispatch, HelpListsEveryCommandOnStdout) {
  const Outcome help = run("--help 2>/dev/null");
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("data inspect       shows a store"),
                                 HasSubstr("train              runs one stage")));
  const Outcome group = run("data --help 2>/dev/null");
  EXPECT_EQ(group.code, 0);
  EXPECT_THAT(group.output, AllOf(HasSubstr("data synth"), Not(HasSubstr("train  "))));
}

TEST(Dispatch, NoCommandPrintsTheUsageAndFails) {
  EXPECT_EQ(run("2>/dev/null").output, "");
  const Outcome none = run("2>&1");
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.output, HasSubstr("usage: minwm COMMAND"));
  EXPECT_EQ(run("data 2>/dev/null").code, 2);
}

TEST(Dispatch, AnUnknownCommandNamesTheNearest) {
  const Outcome typo = run("trian 2>&1");
  EXPECT_EQ(typo.code, 2);
  EXPECT_EQ(typo.output, "minwm: error: unknown command 'trian'; did you mean 'minwm train'?\n");
  EXPECT_EQ(run("data inspct 2>&1").output,
            "minwm: error: unknown command 'data inspct'; did you mean 'minwm data inspect'?\n");
  EXPECT_EQ(run("weather 2>&1").output,
            "minwm: error: unknown command 'weather'; minwm --help lists them\n");
}

TEST(Dispatch, AnErrorOfACommandIsOneLine) {
  const Outcome refused = run("refuse 2>&1");
  EXPECT_EQ(refused.code, 2);
  EXPECT_EQ(refused.output, "minwm: error: no such checkpoint\n");
}

TEST(Dispatch, TellsItsVersion) {
  EXPECT_EQ(run("--version").output, "minwm " MINWM_VERSION "\n");
}

}  // namespace
