// The frame itself: what must count as a failure does.

#include "case.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kinds.h"
#include "tests/core/temporary_folder.h"

namespace minwm::golden {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;
using Metadata = std::map<std::string, std::string>;

const Metadata kMetadata = {
    {"kind", "test.kind"}, {"config", "{\"n\": 3}"}, {"rtol", "0.1"}, {"atol", "1e-3"}};

std::string write_case(const TemporaryFolder& folder, const Metadata& metadata) {
  const std::string path = folder / "case.safetensors";
  write_safetensors(path, {{"in/x", at::ones({2})}, {"grad/a.weight", at::ones({1})}}, metadata);
  return path;
}

class ReportTest : public ::testing::Test {
 protected:
  /// True if comparing these two passes.
  bool agree(const at::Tensor& ours, const at::Tensor& reference) {
    Report report(case_);
    report.compare("y", ours, reference);
    EXPECT_EQ(report.failures().empty(), report.ok());
    return report.ok();
  }
  TemporaryFolder folder_;
  Case case_{write_case(folder_, kMetadata)};
};

TEST_F(ReportTest, ToleranceIsAbsolutePlusRelativePerElement) {
  const at::Tensor reference = at::tensor({100.0, 0.0});
  EXPECT_TRUE(agree(at::tensor({110.0, 0.0009}), reference));
  EXPECT_FALSE(agree(at::tensor({110.1, 0.0}), reference));
  EXPECT_FALSE(agree(at::tensor({100.0, 0.0011}), reference));
}

TEST_F(ReportTest, ShapesAndKindsOfNumbersMustAgree) {
  EXPECT_FALSE(agree(at::ones({2, 1}), at::ones({2})));
  EXPECT_FALSE(agree(at::ones({}), at::ones({1})));
  EXPECT_FALSE(agree(at::ones({2}), at::ones({2}, at::kLong)));
  EXPECT_FALSE(agree(at::ones({2}, at::kBool), at::ones({2}, at::kLong)));
  EXPECT_FALSE(agree(at::Tensor(), at::ones({2})));
  EXPECT_TRUE(agree(at::ones({2}, at::kBFloat16), at::ones({2})));
  EXPECT_TRUE(agree(at::ones({2}, at::kInt), at::ones({2}, at::kLong)));
  EXPECT_TRUE(agree(at::ones({0, 3}), at::ones({0, 3})));
}

TEST_F(ReportTest, NanAndInfinityMustStandAtTheSamePlaces) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const at::Tensor reference = at::tensor({1.0, nan, inf});
  EXPECT_TRUE(agree(at::tensor({1.0, nan, inf}), reference));
  EXPECT_FALSE(agree(at::tensor({nan, nan, inf}), reference));
  EXPECT_FALSE(agree(at::tensor({1.0, 1.0, inf}), reference));
  EXPECT_FALSE(agree(at::tensor({1.0, nan, -inf}), reference));
  EXPECT_FALSE(agree(at::tensor({1.0, nan, 1e300}), reference));
}

TEST_F(ReportTest, EqualAllowsNoDifference) {
  Report report(case_);
  report.equal("y", at::tensor({1.0, 2.0}), at::tensor({1.0, 2.0 + 1e-12}));
  EXPECT_FALSE(report.ok());
}

TEST_F(ReportTest, ComparingNothingIsNoPass) {
  const Report report(case_);
  EXPECT_FALSE(report.ok());
}

TEST_F(ReportTest, TheLargestErrorsAreKept) {
  Report report(case_);
  report.compare("a", at::tensor({4.1}), at::tensor({4.0}));
  report.compare("b", at::tensor({1.05}), at::tensor({1.0}));
  EXPECT_NEAR(report.max_abs(), 0.1, 1e-6);
  EXPECT_NEAR(report.max_rel(), 0.05, 1e-6);
  EXPECT_EQ(report.compared(), 2);
}

TEST(Case, ReadsConfigToleranceAndTensors) {
  const TemporaryFolder folder;
  const Case c(write_case(folder, kMetadata));
  EXPECT_EQ(c.kind, "test.kind");
  EXPECT_EQ(c.config["n"], 3);
  EXPECT_EQ(c.rtol, 0.1);
  EXPECT_EQ(c.in("x").numel(), 2);
  EXPECT_THAT(c.under("grad/"), ::testing::ElementsAre("a.weight"));
  EXPECT_THAT(error_of([&] { (void)c.out("y"); }), HasSubstr("no tensor 'out/y'"));
}

TEST(Case, KnowsTheResultsThatNobodyAskedFor) {
  const TemporaryFolder folder;
  const std::string path = folder / "case.safetensors";
  const at::Tensor one = at::ones({1});
  write_safetensors(path, {{"in/x", one}, {"out/y", one}, {"out/z", one}, {"grad/w", one}},
                    kMetadata);
  const Case c(path);
  EXPECT_THAT(c.unread_results(), ::testing::ElementsAre("out/y", "out/z", "grad/w"));
  (void)c.out("z");
  (void)c.grad("w");
  EXPECT_THAT(c.unread_results(), ::testing::ElementsAre("out/y"));
}

TEST(Case, MissingOrMalformedMetadataIsAnError) {
  const TemporaryFolder folder;
  for (const char* key : {"kind", "config", "rtol", "atol"}) {
    Metadata metadata = kMetadata;
    metadata.erase(key);
    EXPECT_THAT(error_of([&] { const Case c(write_case(folder, metadata)); }), HasSubstr(key));
  }
  for (const char* bad : {"", "x", "-1", "nan", "1e-3 "}) {
    Metadata metadata = kMetadata;
    metadata["atol"] = bad;
    EXPECT_THAT(error_of([&] { const Case c(write_case(folder, metadata)); }), HasSubstr("atol"));
  }
}

/// Runs minwm-verify: its exit code and what it printed.
std::pair<int, std::string> verify(const std::string& arguments) {
  const std::string command = MINWM_BINARY_DIR "/minwm-verify " + arguments + " 2>&1";
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string printed;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
    printed += static_cast<char>(c);
  }
  return {WEXITSTATUS(::pclose(pipe)), printed};
}

/// A case of the action labels: one still frame, whose label is 0.
std::string write_label_case(const TemporaryFolder& folder, const std::string& name,
                             int64_t expected, const std::string& extra = "out/t/labels_infer") {
  const std::string path = folder / name;
  const at::Tensor label = at::full({1}, expected, at::kLong);
  std::vector<std::pair<std::string, at::Tensor>> tensors = {
      {"in/t/w2c", at::eye(4, at::kDouble).unsqueeze(0)},
      {"out/t/labels_train", label},
      {"out/t/labels_infer", label}};
  if (extra != "out/t/labels_infer") {
    tensors.emplace_back(extra, label);
  }
  Metadata metadata = kMetadata;
  metadata["kind"] = "camera.actions.from_poses";
  metadata["config"] = R"({"train_move_threshold": 0.01, "infer_move_threshold": 0.0001})";
  write_safetensors(path, tensors, metadata);
  return path;
}

TEST(Verify, ExitsWithZeroOnlyIfAllCasesPass) {
  if (!std::filesystem::exists(MINWM_BINARY_DIR "/minwm-verify")) {
    GTEST_SKIP() << "minwm-verify is not built";
  }
  const TemporaryFolder folder;
  const std::string good = write_label_case(folder, "good.safetensors", 0);
  const std::string bad = write_label_case(folder, "bad.safetensors", 1);
  const std::string extra = write_label_case(folder, "extra.safetensors", 0, "out/u/labels_train");
  const std::string unknown = write_case(folder, kMetadata);
  std::ofstream(folder / "broken.safetensors") << "no safetensors";

  auto [code, text] = verify(good);
  EXPECT_EQ(code, 0) << text;
  EXPECT_THAT(text, HasSubstr("ok good camera.actions.from_poses"));
  std::tie(code, text) = verify(bad + " " + good);
  EXPECT_EQ(code, 1);
  EXPECT_THAT(text, ::testing::AllOf(HasSubstr("FAIL bad"), HasSubstr("ok good"),
                                     HasSubstr("1 of 2 cases failed")));
  std::tie(code, text) = verify(extra);
  EXPECT_EQ(code, 1) << "a result that is compared with nothing";
  EXPECT_THAT(text, HasSubstr("out/u/labels_train: nothing of ours was compared with it"));
  std::tie(code, text) = verify(unknown);
  EXPECT_EQ(code, 1);
  EXPECT_THAT(text, HasSubstr("no replay for kind 'test.kind'"));
  EXPECT_EQ(verify(folder / "broken.safetensors").first, 1);
  EXPECT_EQ(verify(folder / "absent.safetensors").first, 1);
  EXPECT_EQ(verify("").first, 2) << "no case at all is a wrong call";
}

TEST(Kinds, ARegisteredKindIsFoundAndAnUnknownOneIsNot) {
  const Replay replay = [](const Case&, Report&) {};
  EXPECT_TRUE(register_kind("test.registered", replay));
  EXPECT_FALSE(register_kind("test.registered", replay)) << "one replay per kind";
  EXPECT_EQ(find_kind("test.registered"), replay);
  EXPECT_EQ(find_kind("test.unknown"), nullptr);
}

}  // namespace
}  // namespace minwm::golden
