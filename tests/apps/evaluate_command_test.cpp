// `minwm evaluate` as a user runs it, on models that were hardly trained: what is shown is that
// everything is measured and told; whether the rulers are right is shown by tests/eval.

#include <filesystem>

#include <nlohmann/json.hpp>

#include "minwm/core/files.h"
#include "tests/apps/small_model.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using testing::expect_refused;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallModels;
using testing::TemporaryFolder;

class EvaluateCommand : public ::testing::Test {
 protected:
  Outcome evaluate(const std::string& checkpoint, const std::string& more) const {
    return run_minwm(fmt::format("evaluate --checkpoint {} --output {} --threads 1 {}", checkpoint,
                                 output().string(), more));
  }
  fs::path output() const { return folder_ / "report"; }

  TemporaryFolder folder_;
};

TEST_F(EvaluateCommand, MeasuresAStreamingModelAndWritesNumbersAndAReport) {
  const auto& models = SmallModels::get();
  const std::string run = models.run("teacher-forcing"), clips = (folder_ / "clips").string();
  ASSERT_EQ(run_minwm("data synth --worlds 1 --paths_per_world 1 --latent_frames 3 --width 48 "
                      "--height 32 --output " +
                      clips)
                .code,
            kExitDone);
  const Outcome outcome = evaluate(
      run,
      fmt::format("--clips 3 --steps 2 --long 24 --long_worlds 1 --metrics-jsonl {0}/metrics.jsonl "
                  "--real_clips {1}",
                  run, clips));
  ASSERT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("bestScale"), HasSubstr("model, cameras of other clips"),
                                 HasSubstr("camera gap"), HasSubstr("report.html")));
  const json numbers = json::parse(read_file(output() / "metrics.json"));
  for (const char* row : {"truth", "still", "model", "wrong"}) {
    EXPECT_TRUE(numbers["rows"][row]["best_scale"]["mean"].is_number()) << row;
  }
  EXPECT_EQ(numbers["clips"].size(), 3u);
  EXPECT_EQ(numbers["stage"], "teacher-forcing");
  EXPECT_EQ(numbers["training"][0]["steps"], 1);
  EXPECT_TRUE(numbers["headlines"]["camera_gap"]["value"].is_number());
  EXPECT_GT(numbers["latency"]["first_frame_seconds"].get<double>(), 0);
  EXPECT_NEAR(numbers["latency"]["frames_per_second"].get<double>() *
                  numbers["latency"]["chunk_seconds"].get<double>(),
              16, 1e-6);
  EXPECT_EQ(numbers["latency"]["first_frames"], 13);
  EXPECT_EQ(numbers["latency"]["steps"], 2);
  EXPECT_EQ(numbers["latency"]["threads"], 1);
  EXPECT_NEAR(numbers["rows"]["truth"]["border_flicker"]["mean"].get<double>(), 1, 1e-6);
  EXPECT_TRUE(numbers["rows"]["model"]["tile_grid"]["mean"].is_number());
  EXPECT_EQ(numbers["long"]["chunks"]["model"]["sharpness"].size(), 6u);
  EXPECT_EQ(numbers["long"]["values_not_finite"], 0);
  EXPECT_GT(numbers["rows"]["truth"]["best_scale"]["mean"].get<double>(), .7);
  EXPECT_NEAR(numbers["rows"]["still"]["best_scale"]["mean"].get<double>(), 0, .15);
  EXPECT_GT(numbers["real_clips"][0]["codec_psnr"].get<double>(), 15);
  EXPECT_THAT(read_file(output() / "report.html"),
              AllOf(HasSubstr("Does the video follow the camera?"), HasSubstr("Strafe"),
                    HasSubstr("Real video"), HasSubstr("A long stream"),
                    HasSubstr("3 times the training length of 8")));
  EXPECT_EQ(std::distance(fs::directory_iterator(output()), {}), 2);
}

TEST_F(EvaluateCommand, MeasuresABidirectionalModelInItsOwnModeAndTwiceAlike) {
  const std::string run = SmallModels::get().run("bidirectional");
  const auto numbers = [&](const char* more) {
    const Outcome outcome = evaluate(run, std::string("--clips 2 --steps 1 --sheets 0 ") + more);
    EXPECT_EQ(outcome.code, kExitDone) << outcome.err;
    return json::parse(read_file(output() / "metrics.json"));
  };
  const json first = numbers("");
  EXPECT_EQ(first["sampler"], "1 euler step, all frames at once");
  EXPECT_EQ(numbers("")["rows"], first["rows"]);
  EXPECT_NE(numbers("--seed 9")["rows"]["model"], first["rows"]["model"]);
}

TEST_F(EvaluateCommand, TabulatesEarlierEvaluations) {
  const auto& models = SmallModels::get();
  std::string entries;
  for (const char* stage : {"bidirectional", "teacher-forcing"}) {
    const std::string into = (folder_ / stage).string();
    ASSERT_EQ(run_minwm(fmt::format("evaluate --checkpoint {} --output {} --threads 1 --clips 2 "
                                    "--steps 1 --sheets 0",
                                    models.run(stage), into))
                  .code,
              kExitDone);
    entries += fmt::format("{}{}={}", entries.empty() ? "" : ",", stage, into);
  }
  const Outcome outcome = run_minwm(fmt::format(
      "evaluate --table {} --teacher bidirectional --baseline bidirectional --output {} "
      "--metrics-jsonl {}/metrics.jsonl",
      entries, output().string(), models.run("teacher-forcing")));
  ASSERT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("| teacher-forcing | 1 euler step, streamed |"));
  const json table = json::parse(read_file(output() / "table.json"));
  EXPECT_NEAR(table["rows"][0]["speed_up"].get<double>(), 1, 1e-9);
  EXPECT_GT(table["rows"][1]["keeps_psnr"].get<double>(), 0);
  EXPECT_THAT(read_file(output() / "report.html"), HasSubstr("Training loss"));
  EXPECT_TRUE(fs::exists(output() / "table.md"));
  expect_refused(run_minwm("evaluate --output x --table a=absent"), "absent");
  expect_refused(run_minwm("evaluate --output x --table absent"), "expected NAME=FOLDER");
  expect_refused(run_minwm(fmt::format("evaluate --output x --table {} --teacher b", entries)),
                 "--teacher b: names no evaluation");
  expect_refused(evaluate("absent", "--table a=b"), "give one");
  expect_refused(evaluate("absent", "--teacher a"), "belong to --table");
}

TEST_F(EvaluateCommand, RefusesWhatItCannotReadBeforeAnyWork) {
  expect_refused(evaluate("absent", ""), "checkpoint absent: does not exist");
  expect_refused(evaluate("absent", "--clips 1"), "--clips 1");
  expect_refused(evaluate("absent", "--style ugly"), "detail");
  expect_refused(evaluate("absent", "--metrics-jsonl absent.jsonl"), "absent.jsonl");
  expect_refused(run_minwm("evaluate --checkpoint x"), "--output is missing");
  expect_refused(run_minwm("evaluate --output x"), "--checkpoint is missing");
  EXPECT_EQ(folder_.entries(), 0);
}

TEST_F(EvaluateCommand, RefusesWhatDoesNotFitTheModelInOneLine) {
  const std::string run = SmallModels::get().run("teacher-forcing"),
                    codec = (folder_ / "other").string();
  expect_refused(evaluate(run, "--given 8"), "8 given");
  expect_refused(evaluate(run, "--long 8"), "more than two chunks of 4");
  expect_refused(evaluate(SmallModels::get().run("bidirectional"), "--long 24"), "cannot stream");
  expect_refused(evaluate(run, "--real_store " + codec + ".h5"), "other.h5");
  expect_refused(evaluate(run, "--real_clips " + codec), "other");
  ASSERT_EQ(run_minwm("data fit-codec --worlds 6 --check_worlds 1 --width 32 --height 32 --samples "
                      "1 --first_seed 5 --output " +
                      codec + ".safetensors")
                .code,
            kExitDone);
  ASSERT_EQ(run_minwm("data synth --worlds 1 --latent_frames 2 --width 32 --height 32 --codec " +
                      codec + ".safetensors --store " + codec + ".h5")
                .code,
            kExitDone);
  expect_refused(evaluate(run, "--real_store " + codec + ".h5"), "holds latents of codec");
  EXPECT_FALSE(fs::exists(output() / "report.html"));
}

TEST_F(EvaluateCommand, RunsOnOneRankOnly) {
  const Outcome outcome =
      run_minwm(fmt::format("evaluate --checkpoint absent --output {}", output().string()), 2);
  EXPECT_EQ(outcome.code, kExitBadInput) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("runs on one rank"));
}

}  // namespace
}  // namespace minwm
