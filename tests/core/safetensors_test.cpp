#include "minwm/core/safetensors.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/files.h"
#include "temporary_folder.h"

namespace minwm {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

std::string file_bytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

TEST(Safetensors, EveryDtypeAndShapeSurvivesARoundTrip) {
  const TemporaryFolder folder;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto dtype : {at::kByte, at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                           at::kInt, at::kShort, at::kChar, at::kBool}) {
    // The three bytes of the first leave all later ones unaligned.
    tensors.emplace_back(c10::toString(dtype), at::arange(3).to(dtype));
  }
  tensors.emplace_back("scalar", at::full({}, 2.5));
  tensors.emplace_back("empty", at::empty({0, 4}));
  tensors.emplace_back("transposed", at::arange(6).reshape({2, 3}).t());
  write_safetensors(folder / "x.safetensors", tensors, {{"kind", "test \"quoted\""}});
  const Safetensors file(folder / "x.safetensors");
  EXPECT_EQ(file.metadata().at("kind"), "test \"quoted\"");
  EXPECT_EQ(file.names().size(), tensors.size());
  for (const auto& [name, expected] : tensors) {
    EXPECT_EQ(file.dtype(name), expected.scalar_type()) << name;
    EXPECT_EQ(file.shape(name), expected.sizes().vec()) << name;
    EXPECT_TRUE(file.get(name).equal(expected)) << name;
    EXPECT_TRUE(file.view(name).equal(expected)) << name;
  }
  EXPECT_EQ(folder.entries(), 1);
}

TEST(Safetensors, ViewsOutliveTheFileObjectAndNeverChangeTheFile) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", {{"a", at::ones({4})}});
  const at::Tensor view = Safetensors(folder / "x.safetensors").view("a");
  EXPECT_EQ(view.sum().item<float>(), 4);
  view.mul_(2);
  EXPECT_EQ(Safetensors(folder / "x.safetensors").get("a").sum().item<float>(), 4);
}

TEST(Safetensors, NamesComeInTheOrderOfTheirData) {
  const TemporaryFolder folder;
  atomic_write(folder / "x", file_bytes(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
                                        R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                                        "xy"));
  const Safetensors file(folder / "x");
  EXPECT_THAT(file.names(), ElementsAre("a", "b"));
  EXPECT_EQ(file.get("b").item<uint8_t>(), 'y');
  EXPECT_THAT(error_of([&] { (void)file.get("c"); }), HasSubstr("x: no tensor 'c'"));
}

struct Damage {
  const char* header;
  size_t data;
  const char* expected;
};

class DamagedSafetensors : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedSafetensors, IsRefusedWithFileAndReason) {
  const TemporaryFolder folder;
  atomic_write(folder / "bad.safetensors",
               file_bytes(GetParam().header, std::string(GetParam().data, 'x')));
  const std::string message = error_of([&] { const Safetensors f(folder / "bad.safetensors"); });
  EXPECT_THAT(message, HasSubstr("bad.safetensors"));
  EXPECT_THAT(message, HasSubstr(GetParam().expected));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Headers, DamagedSafetensors,
    ::testing::Values(
        Damage{"", 0, "does not start with '{'"}, Damage{"[]", 0, "does not start with '{'"},
        Damage{"{\"a\":", 0, "not valid JSON"}, Damage{"{} x", 0, "not valid JSON"},
        Damage{R"({"a":3})", 0, "tensor 'a': expected an object"},
        Damage{R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "dtype is missing"},
        Damage{R"({"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}})", 1, "unknown dtype 'F8'"},
        Damage{R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "shape is not a list"},
        Damage{R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "shape holds '-1'"},
        Damage{R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "shape holds"},
        Damage{R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", 4,
               "shape is too large"},
        Damage{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "data_offsets"},
        Damage{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "begin <= end"},
        Damage{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "truncated"},
        Damage{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "need 8"},
        Damage{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 6,
               "2 bytes after the last tensor"},
        Damage{R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", 4,
               "hole of 2 bytes before tensor 'a'"},
        Damage{R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
               R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
               4, "tensor 'b' overlaps"},
        Damage{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
               R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
               1, "'a' is in the header twice"},
        Damage{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":1}})", 1,
               "unknown field 'extra'"},
        Damage{R"({"__metadata__":{"n":1}})", 0, "__metadata__ 'n' is not a string"}));

TEST(Safetensors, BadLengthsAndMissingFilesAreRefused) {
  const TemporaryFolder folder;
  atomic_write(folder / "short", "abc");
  EXPECT_THAT(error_of([&] { const Safetensors f(folder / "short"); }), HasSubstr("too short"));
  atomic_write(folder / "long", std::string(8, '\xff') + "{}");
  EXPECT_THAT(error_of([&] { const Safetensors f(folder / "long"); }), HasSubstr("header claims"));
  EXPECT_THAT(error_of([&] { const Safetensors f(folder / "none"); }),
              HasSubstr("none: No such file or directory"));
  EXPECT_THAT(error_of([&] { const Safetensors f(folder.path()); }),
              HasSubstr("not a regular file"));
}

TEST(Safetensors, EveryTruncationOfAFileIsRefused) {
  const TemporaryFolder folder;
  write_safetensors(folder / "whole", {{"a", at::ones({5})}, {"b", at::ones({2, 2})}});
  const std::string whole = read_file(folder / "whole");
  for (size_t size = 0; size < whole.size(); ++size) {
    atomic_write(folder / "cut", std::string_view(whole).substr(0, size));
    EXPECT_THROW(const Safetensors f(folder / "cut"), Error) << size << " of " << whole.size();
  }
}

TEST(Safetensors, WritingRefusesWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] {
                write_safetensors(folder / "x", {{"a", at::zeros({1}, at::kComplexFloat)}});
              }),
              HasSubstr("tensor 'a' has dtype ComplexFloat"));
  EXPECT_THAT(error_of([&] {
                write_safetensors(folder / "x", {{"a", at::ones({1})}, {"a", at::ones({1})}});
              }),
              HasSubstr("'a' is given twice"));
  EXPECT_EQ(folder.entries(), 0);
}

}  // namespace
}  // namespace minwm
