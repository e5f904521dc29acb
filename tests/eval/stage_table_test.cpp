#include "minwm/eval/stage_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/files.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TemporaryFolder;
using Json = nlohmann::ordered_json;

class StageTableTest : public ::testing::Test {
 protected:
  StageRow row(const std::string& name, double scale, double psnr, double seconds) {
    Json json = {{"format", "minwm-evaluation"},
                 {"model", "wan-tiny"},
                 {"stage", name},
                 {"sampler", "4 renoise steps, streamed"},
                 {"step", 930}};
    json["rows"]["model"]["best_scale"]["mean"] = scale;
    json["rows"]["model"]["psnr"]["mean"] = psnr;
    json["rows"]["model"]["gain_translation"]["mean"] = nullptr;
    json["latency"]["first_frame_seconds"] = seconds;
    atomic_write(folder_ / name / "metrics.json", json.dump());
    return read_stage_row(name, folder_ / name);
  }
  StageTable table() {
    return {{row("bidirectional", .4, 24, 2), row("teacher", .8, 26, .5), row("dmd", .6, 25, .1)},
            "teacher",
            "bidirectional",
            {}};
  }
  TemporaryFolder folder_;
};

TEST_F(StageTableTest, StudentsAreSetAgainstTheirTeacherAndLatencyAgainstTheBaseline) {
  const auto json = nlohmann::json::parse(to_json(table()).dump());
  const auto& dmd = json["rows"][2];
  EXPECT_NEAR(dmd["best_scale"].get<double>(), .6, 1e-9);
  EXPECT_NEAR(dmd["keeps_best_scale"].get<double>(), .75, 1e-9);
  EXPECT_NEAR(dmd["keeps_psnr"].get<double>(), 25. / 26, 1e-9);
  EXPECT_NEAR(dmd["speed_up"].get<double>(), 20, 1e-9);
  EXPECT_TRUE(dmd["gain_translation"].is_null());
  EXPECT_TRUE(dmd["acc3"].is_null());
}

TEST_F(StageTableTest, TheMarkdownHasARowPerEvaluationAndNoColumnWithoutNumbers) {
  const std::string text = to_markdown(table());
  EXPECT_THAT(text, AllOf(HasSubstr("| dmd | 4 renoise steps, streamed | 930 | 0.60 |"),
                          HasSubstr("keeps: best scale"), HasSubstr("relative to teacher")));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("acc3")), Not(HasSubstr("nan"))));
  const auto plain = table();
  EXPECT_THAT(to_markdown({plain.rows, "", "", {}}), Not(HasSubstr("keeps")));
}

TEST_F(StageTableTest, ThePageHoldsTheTableAndTheLossCurves) {
  StageTable t = table();
  t.training.push_back({.name = "dmd", .loss = {"dmd", {1, 2}, {.3, .2}}});
  EXPECT_THAT(to_html(t), AllOf(HasSubstr("Training loss"), HasSubstr("First frame"),
                                HasSubstr("bidirectional"), Not(HasSubstr("nan"))));
}

TEST_F(StageTableTest, RefusesFilesAndNamesThatDoNotFit) {
  EXPECT_THAT(error_of([&] { read_stage_row("x", folder_ / "absent"); }), HasSubstr("absent"));
  atomic_write(folder_ / "a.json", "{\"format\": \"other\"}");
  EXPECT_THAT(error_of([&] { read_stage_row("x", folder_ / "a.json"); }),
              HasSubstr("a.json: is no metrics.json"));
  atomic_write(folder_ / "b.json", "hello");
  EXPECT_THAT(error_of([&] { read_stage_row("x", folder_ / "b.json"); }), HasSubstr("b.json"));
  StageTable t = table();
  t.teacher = "nobody";
  EXPECT_THAT(error_of([&] { check(t); }), HasSubstr("--teacher nobody: names no evaluation"));
  t = table();
  t.rows.push_back(t.rows.front());
  EXPECT_THAT(error_of([&] { check(t); }), HasSubstr("two evaluations are called 'bidirectional'"));
  EXPECT_THAT(error_of([] { check({}); }), HasSubstr("no evaluations"));
}

}  // namespace
}  // namespace minwm::eval
