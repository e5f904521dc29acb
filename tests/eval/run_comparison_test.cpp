#include "minwm/eval/run_comparison.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/files.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

// A loss that falls as factor / sqrt(step), with a gap every 100 steps.
TrainingLog run(int64_t steps, double factor, double gap = 2) {
  TrainingLog log;
  log.name = "run";
  log.steps = steps;
  for (int64_t step = 1; step <= steps; ++step) {
    const auto x = static_cast<double>(step);
    log.loss.x.push_back(x);
    log.loss.y.push_back(factor / std::sqrt(x) * (1 + .2 * (step % 2 == 0 ? 1 : -1)));  // noise
    log.grad_norm.x.push_back(x);
    log.grad_norm.y.push_back(.5);
    if (step % 100 == 0) {
      log.gap.x.push_back(x);
      log.gap.y.push_back(gap);
    }
  }
  return log;
}

TEST(RunComparison, ARunLikeTheReferenceIsWithinFivePercent) {
  const auto comparison = compare(run(400, 1.02), run(400, 1));
  EXPECT_EQ(comparison.verdict, "within 5 % of the reference");
  EXPECT_FALSE(comparison.behind);
  ASSERT_EQ(comparison.marks.size(), 4u);
  EXPECT_EQ(comparison.marks[0].step, 100);
  EXPECT_EQ(comparison.marks[3].step, 400);
  for (const auto& mark : comparison.marks) {
    EXPECT_NEAR(mark.loss / mark.reference_loss, 1.02, 1e-6);
  }
}

TEST(RunComparison, SaysWhatIsBehindAndWhere) {
  const auto loss = compare(run(400, 1.2), run(1000, 1));
  EXPECT_TRUE(loss.behind);
  EXPECT_THAT(loss.verdict,
              AllOf(HasSubstr("behind the reference: loss 0.06"), HasSubstr("at step 400")));
  const auto gap = compare(run(400, 1, 1.5), run(400, 1, 2));
  EXPECT_TRUE(gap.behind);
  EXPECT_THAT(gap.verdict, HasSubstr("camera gap (dB) 1.5 vs 2"));
  EXPECT_THAT(compare(run(400, .8), run(400, 1)).verdict, HasSubstr("ahead of the reference"));
}

TEST(RunComparison, AGapWithinItsNoiseIsNotBehind) {
  EXPECT_FALSE(compare(run(400, 1, .40), run(400, 1, .5)).behind);
}

TEST(RunComparison, TheTextNamesTheStepsThatAreCompared) {
  const std::string text = to_text(compare(run(40, 1), run(400, 1)));
  EXPECT_THAT(text, AllOf(HasSubstr("the first 40 are compared"), HasSubstr("within 5 %"),
                          HasSubstr("grad_norm")));
}

TEST(RunComparison, NothingInCommonIsAnError) {
  TrainingLog empty;
  empty.name = "empty";
  empty.steps = 10;
  EXPECT_THAT(error_of([&] { compare(run(40, 1), empty); }), HasSubstr("empty: has no loss"));
}

TEST(RunComparison, PlotsShowWhatBothMeasured) {
  EXPECT_EQ(comparison_figures(run(400, 1), run(400, 1)).size(), 3u);
  EXPECT_EQ(comparison_figures(run(40, 1), run(400, 1)).size(), 2u);  // no gap yet
}

TEST(ReferenceCurve, IsShortAndComparesLikeTheRunItself) {
  const TemporaryFolder folder;
  const TrainingLog full = run(1000, 1);
  const std::string text = reference_curve(full);
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 200);
  atomic_write(folder / "reference.jsonl", text);
  const TrainingLog thin = read_training_log(folder / "reference.jsonl");
  EXPECT_EQ(thin.steps, 1000);
  EXPECT_EQ(thin.gap.y, full.gap.y);
  for (const int64_t steps : {60, 1000}) {
    const auto comparison = compare(run(steps, 1), thin);
    EXPECT_EQ(comparison.verdict, "within 5 % of the reference") << steps;
  }
  EXPECT_THAT(error_of([] { reference_curve({.name = "new"}); }), HasSubstr("new: has no losses"));
}

}  // namespace
}  // namespace minwm::eval
