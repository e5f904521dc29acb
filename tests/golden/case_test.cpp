// The frame itself: what must count as a failure does.

#include "case.h"

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

TEST(Kinds, ARegisteredKindIsFoundAndAnUnknownOneIsNot) {
  const Replay replay = [](const Case&, Report&) {};
  EXPECT_TRUE(register_kind("test.registered", replay));
  EXPECT_FALSE(register_kind("test.registered", replay)) << "one replay per kind";
  EXPECT_EQ(find_kind("test.registered"), replay);
  EXPECT_EQ(find_kind("test.unknown"), nullptr);
}

}  // namespace
}  // namespace minwm::golden
