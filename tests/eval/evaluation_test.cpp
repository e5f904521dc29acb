#include "minwm/eval/evaluation.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/files.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TemporaryFolder;

// Scores as if every clip were moved at `scale` of the commanded amplitude.
ClipScores clip_scores(double scale, double ok_share = 1) {
  ClipScores scores;
  scores.rerender = {.psnr = 25,
                     .margin = scale - .9,
                     .vs_mirror = 5 * scale,
                     .best_scale = scale,
                     .top1 = scale > .9,
                     .best_rival = "half"};
  scores.path.translation_dot = scores.path.rotation_dot = scale;
  scores.path.translation_norm = scores.path.rotation_norm = 1;
  scores.path.ok_share = ok_share;
  scores.actions.three.steps[0] = 4;
  scores.actions.three.hits[0] = scale > .5 ? 4 : 0;
  return scores;
}

Evaluation evaluation(double model, double wrong, double ok_share = 1) {
  Evaluation e;
  e.checkpoint = "runs/<a>";
  e.model = "wan-tiny";
  e.stage = "teacher-forcing";
  e.step = 930;
  for (uint64_t i = 0; i < 3; ++i) {
    e.clips.push_back(command_clip(i, {}, 4, 1, "w*3"));
  }
  const auto rows = [&](double scale) {
    return std::vector<ClipScores>{clip_scores(scale - .01, ok_share), clip_scores(scale, ok_share),
                                   clip_scores(scale + .01, ok_share)};
  };
  e.rows = {make_row("truth", "truth through the codec", rows(1)),
            make_row("still", "still picture", rows(0)), make_row("model", "model", rows(model)),
            make_row("wrong", "model, cameras of other clips", rows(wrong))};
  return e;
}

const Headline& find(const std::vector<Headline>& list, const std::string& key) {
  for (const auto& h : list) {
    if (h.key == key) {
      return h;
    }
  }
  fail("no headline {}", key);
}

TEST(Evaluation, AModelThatFollowsReachesTheGates) {
  const auto list = headlines(evaluation(1, 0));
  for (const char* key : {"best_scale", "vs_mirror", "acc3", "top1", "gain_rotation",
                          "gain_translation", "wrong_best_scale", "wrong_top1"}) {
    EXPECT_TRUE(find(list, key).has_gate() && find(list, key).reached()) << key;
  }
  EXPECT_FALSE(find(list, "rotation_error").has_gate());
}

TEST(Evaluation, AModelThatStandsStillReachesNone) {
  const auto list = headlines(evaluation(0, 0));
  for (const char* key :
       {"best_scale", "vs_mirror", "acc3", "top1", "gain_rotation", "gain_translation"}) {
    EXPECT_FALSE(find(list, key).reached()) << key;
  }
}

TEST(Evaluation, FollowingAnyCameraAtAllFailsTheWrongCameraGates) {
  const auto list = headlines(evaluation(1, 1));
  EXPECT_FALSE(find(list, "wrong_best_scale").reached());
  EXPECT_FALSE(find(list, "wrong_top1").reached());
}

TEST(Evaluation, TheGainOfMovesIsNotJudgedWhereFewPosesWereRecovered) {
  EXPECT_FALSE(find(headlines(evaluation(1, 0, .5)), "gain_translation").has_gate());
}

TEST(Evaluation, AnUnmeasuredCameraGapIsNeitherShownNorReached) {
  Evaluation e = evaluation(1, 0);
  EXPECT_EQ(find(headlines(e), "camera_gap").text, "–");
  EXPECT_FALSE(find(headlines(e), "camera_gap").reached());
  e.training.push_back({.name = "bidirectional", .gap = {"", {100, 200}, {.5, 1.5}}});
  EXPECT_EQ(find(headlines(e), "camera_gap").value, 1.5);  // training's last, until measured here
  e.camera_gap = 2.25;
  EXPECT_EQ(find(headlines(e), "camera_gap").text, "2.25 dB");
}

TEST(Evaluation, TheWordsAgreeWithTheNumbers) {
  EXPECT_THAT(in_words(evaluation(.7, 0)).front(),
              HasSubstr("Yes: the camera input moves the picture"));
  EXPECT_THAT(in_words(evaluation(0, 0)).front(), HasSubstr("Not measurably"));
  EXPECT_THAT(in_words(evaluation(.7, .7)).front(),
              HasSubstr("Not measurably"));  // with any camera
  EXPECT_THAT(in_words(evaluation(.7, 0)).back(), HasSubstr("It misses: Best scale 0.70"));
}

TEST(Evaluation, TheTextHasALinePerRow) {
  Evaluation e = evaluation(.7, 0);
  e.camera_gap = 3;
  const std::string text = to_text(e);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
  EXPECT_THAT(text, AllOf(HasSubstr("bestScale"), HasSubstr("cameras of other clips"),
                          HasSubstr("camera gap 3.00 dB")));
}

TEST(Evaluation, JsonHoldsEveryRowAndClipAndNoInvalidNumber) {
  const auto json = nlohmann::json::parse(to_json(evaluation(.7, 0)).dump());
  EXPECT_NEAR(json["rows"]["model"]["best_scale"]["mean"].get<double>(), .7, 1e-9);
  EXPECT_EQ(json["clips"].size(), 3u);
  EXPECT_NEAR(json["clips"][1]["rows"]["model"]["best_scale"].get<double>(), .7, 1e-9);
  EXPECT_TRUE(json["headlines"]["camera_gap"]["value"].is_null());
  EXPECT_EQ(json["headlines"]["best_scale"]["gate"]["reached"], false);
  EXPECT_EQ(json["step"], 930);
}

TEST(Evaluation, ThePageShowsTheNumbersAndTheCurves) {
  Evaluation e = evaluation(.7, 0);
  e.training.push_back({.name = "bidirectional",
                        .steps = 200,
                        .seconds = 60,
                        .loss = {"bidirectional", {1, 2}, {3, 2}},
                        .gap = {"bidirectional", {100, 200}, {.5, 1.5}}});
  e.real.push_back(
      {"re10k-1", 31.2, {"re10k-1", "", {}, 0, {{"source", at::zeros({5, 8, 8, 3}, at::kByte)}}}});
  const std::string html = to_html(e);
  EXPECT_THAT(html, AllOf(HasSubstr("0.70"), HasSubstr("Training loss"),
                          HasSubstr("Camera gap during training"), HasSubstr("Mean PSNR 31.2 dB"),
                          HasSubstr("1.0 minutes")));
  EXPECT_THAT(html, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("-0.00"))));
}

TEST(Evaluation, AMissingRowIsNamed) {
  Evaluation e = evaluation(1, 0);
  e.rows.pop_back();
  EXPECT_THAT(error_of([&] { headlines(e); }), HasSubstr("'wrong'"));
}

TEST(TrainingLog, HoldsTheCurvesOfARun) {
  const TemporaryFolder folder;
  const auto path = folder / "bidirectional" / "metrics.jsonl";
  atomic_write(path, R"({"step":1,"loss":2.0,"seconds":0.5}
{"step":2,"loss":1.5,"seconds":0.25,"camera_gap":0.4,"gap_right":22.4,"gap_wrong":22.0,"gap_copy":21.8}
{"step":3,"loss":1.0,"seconds":0.25}
)");
  const TrainingLog log = read_training_log(path);
  EXPECT_EQ(log.name, "bidirectional");
  EXPECT_EQ(log.steps, 3);
  EXPECT_DOUBLE_EQ(log.seconds, 1);
  EXPECT_THAT(log.loss.y, ElementsAre(2, 1.5, 1));
  EXPECT_THAT(log.gap.x, ElementsAre(2));
  EXPECT_THAT(log.right.y, ElementsAre(22.4));
  EXPECT_DOUBLE_EQ(log.copy, 21.8);
}

TEST(TrainingLog, OfAStepThatOccursTwiceTheLaterCountsAndATornLastLineIsLeftOut) {
  const TemporaryFolder folder;
  atomic_write(folder / "metrics.jsonl",
               "{\"step\":1,\"loss\":2}\n{\"step\":1,\"loss\":3}\n{\"step\":2,\"lo");
  const TrainingLog log = read_training_log(folder / "metrics.jsonl");
  EXPECT_THAT(log.loss.y, ElementsAre(3));
  EXPECT_TRUE(log.gap.y.empty() && std::isnan(log.copy));
}

TEST(TrainingLog, OtherFilesAreRefusedByLine) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { read_training_log(folder / "absent.jsonl"); }),
              HasSubstr("absent.jsonl"));
  atomic_write(folder / "a.jsonl", "{\"step\":1}\nhello\n{\"step\":2}\n");
  EXPECT_THAT(error_of([&] { read_training_log(folder / "a.jsonl"); }), HasSubstr("a.jsonl:2"));
  atomic_write(folder / "b.jsonl", "{\"loss\":1}\n");
  EXPECT_THAT(error_of([&] { read_training_log(folder / "b.jsonl"); }), HasSubstr("b.jsonl:1"));
  atomic_write(folder / "c.jsonl", "");
  EXPECT_THAT(error_of([&] { read_training_log(folder / "c.jsonl"); }), HasSubstr("no lines"));
}

}  // namespace
}  // namespace minwm::eval
