// `minwm generate` as a user runs it.

#include <filesystem>

#include "minwm/core/files.h"
#include "tests/apps/small_model.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::expect_refused;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallModels;
using testing::TemporaryFolder;

class GenerateCommand : public ::testing::Test {
 protected:
  Outcome generate(const std::string& checkpoint, const std::string& more) const {
    return run_minwm(
        fmt::format("generate --checkpoint {} --output {} {}", checkpoint, output(), more));
  }
  std::string output() const { return (folder_ / "video.mp4").string(); }
  void expect_no_file() const { EXPECT_EQ(folder_.entries(), 0); }

  TemporaryFolder folder_;
};

TEST_F(GenerateCommand, StreamsAVideoAndRecordsItsOptions) {
  const Outcome outcome = generate(SmallModels::get().run("teacher-forcing"),
                                   "--world 3 --pose \"w*4,l*3\" --steps 2 --seed 5");
  ASSERT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_EQ(outcome.out, output() + "\n");
  EXPECT_THAT(read_file(output()), HasSubstr("ftyp"));
  EXPECT_THAT(read_file(output() + ".ini"),
              AllOf(HasSubstr("pose = w*4,l*3"), HasSubstr("seed = 5")));
  EXPECT_EQ(folder_.entries(), 2);
}

TEST_F(GenerateCommand, TheVideoDependsOnTheSeedAloneNotOnTheRun) {
  const auto video = [&](const char* seed) {
    const Outcome outcome =
        generate(SmallModels::get().run("bidirectional"),
                 fmt::format("--world 3 --pose \"w*3\" --steps 1 --seed {}", seed));
    EXPECT_EQ(outcome.code, kExitDone) << outcome.err;
    return read_file(output());
  };
  const std::string first = video("1");
  EXPECT_EQ(video("1"), first);
  EXPECT_NE(video("2"), first);
}

TEST_F(GenerateCommand, APathOfAnotherLengthIsPaddedOrCutWithAWarning) {
  const std::string run = SmallModels::get().run("teacher-forcing");
  const Outcome padded = generate(run, "--pose \"w*2\" --frames 17 --steps 1");
  EXPECT_EQ(padded.code, kExitDone) << padded.err;
  EXPECT_THAT(padded.err,
              HasSubstr("--pose has 2 motions, 17 frames need 4: the camera stands still"));
  const Outcome cut = generate(run, "--pose \"w*9\" --frames 5 --steps 1");
  EXPECT_EQ(cut.code, kExitDone) << cut.err;
  EXPECT_THAT(cut.err, HasSubstr("take only 1: the rest is cut off"));
}

TEST_F(GenerateCommand, RefusesWhatItCannotReadBeforeAnyWork) {
  expect_refused(generate("absent", "--pose \"w*3,q*4\""), "q*4");
  expect_refused(generate("absent", "--pose \"w*3,w*x\""), "w*x");
  expect_refused(generate("absent", ""), "checkpoint absent: does not exist");
  expect_refused(generate(folder_.path().string(), ""), "holds no complete checkpoint");
  expect_refused(generate("absent", "--frames 10"), "--frames 10: expected 1 + 4 n");
  expect_refused(generate("absent", "--fps 0"), "--fps 0");
  expect_refused(generate("absent", "--stepz 3"), "unknown option --stepz");
  expect_refused(run_minwm("generate --output x.mp4"), "--checkpoint is missing");
  expect_refused(run_minwm("generate --checkpoint x"), "--output is missing");
  expect_refused(run_minwm("generate --checkpoint x --output video.txt"), "ends in .mp4");
  expect_no_file();
}

TEST_F(GenerateCommand, ATornOrDamagedCheckpointIsNamed) {
  const TemporaryFolder copy;
  fs::copy(SmallModels::get().run("bidirectional"), copy.path(), fs::copy_options::recursive);
  const fs::path state = copy / "checkpoints" / "step-000001" / "state.h5";
  const auto size = fs::file_size(state);
  std::string bytes = read_file(state);
  for (size_t at = 100000; at < size; at += 100000) {  // in every large dataset
    bytes[at] = static_cast<char>(bytes[at] + 1);
  }
  atomic_write(state, bytes);
  expect_refused(generate(state.parent_path().string(), "--steps 1"), "state.h5");
  fs::resize_file(state, size / 2);
  expect_refused(generate(state.parent_path().string(), "--steps 1"), "state.h5");
  fs::remove(state);
  expect_refused(generate(state.parent_path().string(), "--steps 1"), "step-000001");
  expect_no_file();
}

TEST_F(GenerateCommand, AModeOfAnotherStageNamesTheOneThatWorks) {
  expect_refused(generate(SmallModels::get().run("bidirectional"), "--mode stream"),
                 "use --mode bidirectional");
  expect_refused(generate(SmallModels::get().run("teacher-forcing"), "--mode bidirectional"),
                 "use --mode stream");
  expect_refused(generate(SmallModels::get().run("teacher-forcing"), "--mode sideways"),
                 "stream or bidirectional");
  expect_refused(generate(SmallModels::get().run("teacher-forcing"), "--solver heun"),
                 "expected euler, renoise, unipc or dpm++");
  expect_no_file();
}

TEST_F(GenerateCommand, ASamplerThatDoesNotFitTheStageNamesTheOneThatDoes) {
  expect_refused(generate(SmallModels::get().run("bidirectional"), "--solver renoise --steps 4"),
                 "use --solver unipc, euler or dpm++");
  expect_refused(generate(SmallModels::get().run("bidirectional"), "--steps -1"), "--steps -1");
  expect_no_file();
}

TEST_F(GenerateCommand, TeacherForcingModelsTakeEverySolver) {
  for (const char* solver : {"euler", "renoise", "unipc", "dpm++"}) {
    const Outcome outcome = generate(SmallModels::get().run("teacher-forcing"),
                                     fmt::format("--pose \"w*3\" --steps 2 --solver {}", solver));
    EXPECT_EQ(outcome.code, kExitDone) << solver << ": " << outcome.err;
  }
}

TEST_F(GenerateCommand, HyModelsAreToldTheirFirstFrameInBothModes) {
  for (const char* stage : {"bidirectional", "teacher-forcing"}) {
    const std::string run = SmallModels::get().run_of("hy-tiny", stage);
    const auto video = [&](const std::string& more) {
      const Outcome outcome = generate(run, "--pose \"w*7\" --steps 2 --prompt house " + more);
      EXPECT_EQ(outcome.code, kExitDone) << outcome.err;
      return read_file(output());
    };
    const std::string one = video("--world 3");
    EXPECT_NE(video("--world 4"), one) << stage;
    EXPECT_NE(video(""), one) << stage;
  }
}

TEST_F(GenerateCommand, AStreamLooksBackAsItIsToldTo) {
  const std::string run = SmallModels::get().run_of("hy-tiny-worldplay", "teacher-forcing");
  const auto video = [&](const std::string& more) {
    const Outcome outcome = generate(run, "--pose \"l*27\" --world 3 --steps 2 " + more);
    EXPECT_EQ(outcome.code, kExitDone) << outcome.err;
    return read_file(output());
  };
  const std::string plain = video("");
  const std::string remembered = video("--memory worldplay");
  EXPECT_NE(remembered, plain);
  EXPECT_THAT(read_file(output() + ".ini"), HasSubstr("memory = worldplay"));
  EXPECT_NE(video("--camera_cache rope_only"), plain);
  EXPECT_NE(video("--compute bfloat16"), plain);
  EXPECT_EQ(video("--camera_cache dual --memory none --compute float32"), plain);
}

TEST_F(GenerateCommand, AModelWithoutCamerasTakesNoPathAndALengthOfItsOwn) {
  const std::string run = SmallModels::get().run_of("hy-tiny-ti2v", "teacher-forcing");
  expect_refused(generate(run, "--pose \"w*3\""),
                 "--pose w*3: hy-tiny-ti2v reads no cameras, its video follows the prompt");
  expect_refused(generate(run, "--camera_cache dual"), "reads no cameras: drop --camera_cache");
  expect_no_file();
  const Outcome outcome = generate(run, "--world 3 --steps 1");
  EXPECT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_THAT(read_file(output() + ".ini"), HasSubstr("\npose =\n"));
  const auto trained = fs::file_size(output());
  const Outcome longer = generate(run, "--config " + output() + ".ini --frames 61");
  EXPECT_EQ(longer.code, kExitDone) << longer.err;
  EXPECT_GT(fs::file_size(output()), trained);
}

TEST_F(GenerateCommand, WaysToReadThePastThatDoNotFitAreRefused) {
  const auto& models = SmallModels::get();
  expect_refused(generate(models.run("bidirectional"), "--memory worldplay"), "drop --memory");
  expect_refused(generate(models.run("bidirectional"), "--camera_cache dual"),
                 "drop --camera_cache");
  expect_refused(generate(models.run("teacher-forcing"), "--camera_cache rope_only"),
                 "neither camera_cache nor context_action");
  expect_refused(generate(models.run("teacher-forcing"), "--memory all"), "none, worldplay");
  expect_refused(generate(models.run("teacher-forcing"), "--compute float16"), "--compute");
  expect_no_file();
}

TEST_F(GenerateCommand, AnOutputThatCannotBeWrittenIsFoundOutFirst) {
  atomic_write(folder_ / "file", "kept");
  const Outcome outcome = run_minwm(fmt::format("generate --checkpoint {} --steps 1 --output {}",
                                                SmallModels::get().run("bidirectional"),
                                                (folder_ / "file" / "video.mp4").string()));
  expect_refused(outcome, "video.mp4");
  EXPECT_EQ(read_file(folder_ / "file"), "kept");
  EXPECT_EQ(folder_.entries(), 1);
}

TEST_F(GenerateCommand, AFirstFrameThatIsNoPictureIsNamed) {
  const TemporaryFolder other;
  atomic_write(other / "photo.png", "no picture");
  const std::string run = SmallModels::get().run("bidirectional"),
                    photo = (other / "photo.png").string();
  expect_refused(generate(run, "--image " + photo), "photo.png");
  expect_refused(generate(run, "--world 1 --image " + photo), "give one");
  expect_no_file();
}

}  // namespace
}  // namespace minwm
