// `minwm showcase` as a user runs it.

#include "minwm/data/video.h"
#include "tests/apps/small_model.h"

namespace minwm {
namespace {

using testing::expect_refused;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallModels;
using testing::TemporaryFolder;

class ShowcaseCommand : public ::testing::Test {
 protected:
  Outcome showcase(const std::string& checkpoint, const std::string& more) const {
    return run_minwm(fmt::format("showcase --checkpoint {} --threads 1 --steps 1 --solver euler {}",
                                 checkpoint, more));
  }
  TemporaryFolder folder_;
};

TEST_F(ShowcaseCommand, WritesASheetAndAVideoOfAllPaths) {
  const std::string sheet = (folder_ / "sheet.png").string(),
                    video = (folder_ / "all.mp4").string();
  const Outcome outcome = showcase(
      SmallModels::get().run("teacher-forcing"),
      fmt::format("--paths \"forward=w,turn left=j,tour=w*2;l*2\" --latents 5 --columns 5 --output "
                  "{} --video {}",
                  sheet, video));
  ASSERT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_EQ(outcome.out, sheet + "\n" + video + "\n");
  const at::Tensor picture = data::read_image(sheet);
  EXPECT_GT(picture.size(0), 3 * 64);       // three rows of 32 pixels, twice as large
  EXPECT_GT(picture.size(1), 5 * 64 + 60);  // five frames and a label
  EXPECT_EQ(data::read_video(video).frames.size(0), 17);
}

TEST_F(ShowcaseCommand, ShowsABidirectionalModelToo) {
  const std::string sheet = (folder_ / "sheet.png").string();
  const Outcome outcome = showcase(SmallModels::get().run("bidirectional"),
                                   "--paths w --latents 8 --exact --output " + sheet);
  ASSERT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_GT(data::read_image(sheet).size(0), 2 * 64);
}

TEST_F(ShowcaseCommand, RefusesBadInputInOneLine) {
  const std::string run = SmallModels::get().run("teacher-forcing"),
                    output = "--output " + (folder_ / "x.png").string();
  expect_refused(showcase("absent", output), "absent");
  expect_refused(showcase(run, "--output x.gif"), ".png or .jpg");
  expect_refused(showcase(run, output + " --video x.avi"), ".mp4");
  expect_refused(showcase(run, output + " --paths forward=q"), "--paths: 'forward=q'");
  expect_refused(showcase(run, output + " --paths =w"), "NAME=KEYS");
  expect_refused(showcase(run, output + " --latents 1"), "1 latents");
  expect_refused(run_minwm("showcase --output x.png"), "--checkpoint is missing");
  EXPECT_EQ(folder_.entries(), 0);
}

}  // namespace
}  // namespace minwm
