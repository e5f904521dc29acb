#include "src/apps/compare_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/files.h"
#include "tests/core/temporary_folder.h"

namespace minwm::apps {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TemporaryFolder;

class CompareRuns : public ::testing::Test {
 protected:
  CompareRuns() {
    std::string lines;
    for (int step = 1; step <= 300; ++step) {
      lines += fmt::format("{{\"step\":{},\"loss\":{},\"grad_norm\":0.5}}\n", step, 3. / step);
    }
    atomic_write(run_ / "metrics.jsonl", lines);
  }
  TemporaryFolder folder_;
  std::filesystem::path run_ = folder_ / "run", reference_ = folder_ / "reference.jsonl";
};

TEST_F(CompareRuns, ARunComparedWithItsOwnReferenceIsWithinIt) {
  ASSERT_EQ(write_reference(run_, reference_), kExitDone);
  ::testing::internal::CaptureStdout();
  ASSERT_EQ(compare_runs(run_, reference_), kExitDone);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(),
              AllOf(HasSubstr("grad_norm"), HasSubstr("within 5 % of the reference")));
  EXPECT_THAT(read_file(run_ / "compare.html"),
              AllOf(HasSubstr("<svg"), Not(HasSubstr("<script"))));
  EXPECT_THAT(read_file(run_ / "compare.svg"),
              AllOf(::testing::StartsWith("<svg xmlns"), HasSubstr("Gradient norm")));
}

TEST_F(CompareRuns, RefusesMissingFilesByName) {
  EXPECT_THAT(error_of([&] { compare_runs(folder_ / "none", reference_); }), HasSubstr("none"));
  EXPECT_THAT(error_of([&] { compare_runs(run_, reference_); }), HasSubstr("reference.jsonl"));
  EXPECT_THAT(error_of([&] { compare_runs(run_, ""); }), HasSubstr("config.ini"));
  atomic_write(run_ / "config.ini", "stage = dmd\nmodel = none\n\n[data]\nstores = x\n");
  EXPECT_THAT(error_of([&] { compare_runs(run_, ""); }),
              HasSubstr("recipes/none/reference/dmd.jsonl is absent"));
  EXPECT_FALSE(std::filesystem::exists(run_ / "compare.html"));
}

}  // namespace
}  // namespace minwm::apps
