// The world that comes with the repository: it opens, streams, follows the camera, and is not for
// anything else.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/apps/small_model.h"

namespace minwm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_minwm;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

const std::string kShipped = MINWM_SOURCE_DIR "/recipes/wan-small/pretrained";

TEST(ShippedWorld, IsSmall) {
  uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(kShipped)) {
    bytes += entry.is_regular_file() ? entry.file_size() : 0;
  }
  EXPECT_GT(bytes, 1U << 20);
  EXPECT_LE(bytes, 12U << 20);
}

TEST(ShippedWorld, StreamsAWalk) {
  const TemporaryFolder folder;
  const std::string video = (folder / "walk.mp4").string();
  const Outcome outcome = run_minwm("generate --checkpoint " + kShipped +
                                    " --world 900001 --pose w*6,l*3,d*6 --output " + video);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GT(fs::file_size(video), 2000U);
}

TEST(ShippedWorld, IsNotSampledInManySteps) {
  const TemporaryFolder folder;
  testing::expect_refused(
      run_minwm("generate --checkpoint " + kShipped + " --steps 50 --pose w*3 " + "--output " +
                (folder / "walk.mp4").string()),
      "'dmd'");
}

TEST(ShippedWorld, FollowsTheCameraInWorldsItHasNotSeen) {
  const TemporaryFolder folder;
  const std::string out = (folder / "report").string();
  const Outcome outcome = run_minwm("evaluate --checkpoint " + kShipped +
                                    " --clips 8 --sheets 0 --threads 1 --output " + out);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json report = json::parse(read_file(fs::path(out) / "metrics.json"));
  auto best_scale = [&](const char* row) {
    return report.at("rows").at(row).at("best_scale").at("mean").get<double>();
  };
  EXPECT_GT(best_scale("model"), 0.5);
  EXPECT_LT(best_scale("wrong"), 0.4);
}

}  // namespace
}  // namespace minwm
