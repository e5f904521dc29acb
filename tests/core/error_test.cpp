#include "minwm/core/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <c10/util/Exception.h>

#include "minwm/core/device.h"
#include "minwm/core/log.h"
#include "minwm/core/progress.h"
#include "temporary_folder.h"

namespace minwm {
namespace {

using ::testing::HasSubstr;

/// What run_main prints to stderr, and its exit code.
std::pair<std::string, int> outcome(int (*body)(int, char**)) {
  ::testing::internal::CaptureStderr();
  const int code = run_main("minwm", body, 0, nullptr);
  return {::testing::internal::GetCapturedStderr(), code};
}

TEST(RunMain, TurnsEveryExceptionIntoOneLineAndItsExitCode) {
  using Outcome = std::pair<std::string, int>;
  EXPECT_EQ(outcome([](int, char**) -> int { return 3; }), Outcome("", 3));
  EXPECT_EQ(outcome([](int, char**) -> int { fail("{} is wrong", "this"); }),
            Outcome("minwm: error: this is wrong\n", 2));
  EXPECT_EQ(outcome([](int, char**) -> int { throw Error("gone", kExitTimeout); }),
            Outcome("minwm: error: gone\n", 75));
  EXPECT_EQ(outcome([](int, char**) -> int { throw std::runtime_error("two\nlines"); }),
            Outcome("minwm: error: two\n", 70));
  EXPECT_EQ(outcome([](int, char**) -> int { throw std::bad_alloc(); }),
            Outcome("minwm: error: out of memory\n", 70));
  EXPECT_EQ(outcome([](int, char**) -> int { throw 1; }).second, 70);
}

TEST(RunMain, ShowsLibTorchErrorsWithoutTheirBacktrace) {
  const auto [text, code] =
      outcome([](int, char**) -> int { TORCH_CHECK(false, "sizes ", 3, " and ", 4); });
  EXPECT_EQ(text, "minwm: error: sizes 3 and 4\n");
  EXPECT_EQ(code, 70);
}

TEST(Device, UnknownNamesAreRefused) {
  EXPECT_TRUE(open_device("cpu").is_cpu());
  EXPECT_EQ(testing::error_of([] { (void)open_device("tpu"); }),
            "device 'tpu': expected cpu or cuda");
}

TEST(Log, UnknownLevelsAreRefused) {
  EXPECT_THAT(testing::error_of([] { init_logging(0, 1, "loud"); }), HasSubstr("'loud'"));
}

TEST(Progress, EndsWithOneLineOffATerminal) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("encoding", 10, "clips");
    for (int i = 1; i <= 10; ++i) {
      progress.update(i, "loss 0.5");
    }
    progress.finish();
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("encoding 10/10 clips"));
  EXPECT_THAT(text, HasSubstr("loss 0.5\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(Progress, IsSilentWhereItIsNotEnabled) {
  ::testing::internal::CaptureStderr();
  { Progress("encoding", 10, "clips", false).update(3); }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace minwm
