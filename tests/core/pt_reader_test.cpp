#include "minwm/core/pt_reader.h"

#include <array>
#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/files.h"
#include "pt_builder.h"
#include "temporary_folder.h"

namespace minwm {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;
using namespace testing::pt;  // NOLINT(google-build-using-namespace): the words of programs

class PtReader : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& bytes) {
    const auto path = folder_ / "object.pt";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  PtValue read_zip(const Zip& zip) { return read_pt(write(zip.bytes())); }
  /// A file with this program and the storage '0' of these bytes.
  PtValue read_program(const std::string& program, const std::string& data = "") {
    return read_zip(
        Zip().add("object/data.pkl", "\x80\x02" + program + ".").add("object/data/0", data));
  }
  std::string error_of_program(const std::string& program, const std::string& data = "") {
    return error_of([&] { read_program(program, data); });
  }
  TemporaryFolder folder_;
};

TEST_F(PtReader, ReadsNumbersStringsAndContainers) {
  const std::string program =
      "}(" + text("none") + "N" + text("yes") + "\x88" + text("byte") + "K\xff" + text("int") +
      "J" + little(uint32_t(-5), 4) + text("long") + "\x8a\x05" + little(uint64_t{1} << 33, 5) +
      text("minus") + "\x8a\x02" + little(uint16_t(-300), 2) + text("float") + "G" +
      std::string("\x40\x09\x21\xfb\x54\x44\x2d\x18", 8) + text("list") + "](" + "K\x01" +
      text("ü") + "e" + text("pair") + "K\x02K\x03\x86" + "K\x07" + text("seven") + "u";
  const PtValue value = read_program(program);
  const PtDict& dict = value.dict("object");
  EXPECT_TRUE(dict.at("none", "object").is_none());
  EXPECT_TRUE(dict.at("yes", "object").boolean("yes"));
  EXPECT_EQ(dict.at("byte", "object").integer("byte"), 255);
  EXPECT_EQ(dict.at("int", "object").integer("int"), -5);
  EXPECT_EQ(dict.at("long", "object").integer("long"), int64_t{1} << 33);
  EXPECT_EQ(dict.at("minus", "object").integer("minus"), -300);
  EXPECT_DOUBLE_EQ(dict.at("float", "object").number("float"), 3.141592653589793);
  EXPECT_EQ(dict.at("list", "object").list("list")[1].string("list[1]"), "ü");
  EXPECT_EQ(dict.at("pair", "object").list("pair").size(), 2U);
  EXPECT_EQ(dict.find(int64_t{7})->string("7"), "seven");
  EXPECT_EQ(std::get<std::string>(dict.items[2].first), "byte") << "in the file's order";
}

TEST_F(PtReader, WhatIsStoredOnceStaysOneThing) {
  // d = {}; l = [d, d]; d['k'] = 1 after it was stored
  const PtValue value = read_program("](}q\x01h\x01" + text("k") + "K\x01sh\x01" + "e");
  EXPECT_EQ(value.list("l")[0].dict("l[0]").at("k", "l[0]").integer("k"), 1);
  EXPECT_EQ(&value.list("l")[0].dict(""), &value.list("l")[1].dict(""));
}

TEST_F(PtReader, ReadsEveryDtype) {
  const std::vector<std::pair<const char*, at::ScalarType>> kinds = {
      {"DoubleStorage", at::kDouble},     {"FloatStorage", at::kFloat}, {"HalfStorage", at::kHalf},
      {"BFloat16Storage", at::kBFloat16}, {"LongStorage", at::kLong},   {"IntStorage", at::kInt},
      {"ShortStorage", at::kShort},       {"CharStorage", at::kChar},   {"ByteStorage", at::kByte},
      {"BoolStorage", at::kBool}};
  for (const auto& [name, dtype] : kinds) {
    const at::Tensor expected = at::tensor({1, 0, 1}, at::kLong).to(dtype);
    const std::string data(static_cast<const char*>(expected.const_data_ptr()), expected.nbytes());
    const PtValue value = read_program(tensor(storage(name, "0", 3), 0, {3}, {1}), data);
    EXPECT_EQ(value.tensor("t").scalar_type(), dtype) << name;
    EXPECT_TRUE(at::equal(value.tensor("t"), expected)) << name;
  }
}

TEST_F(PtReader, ViewsKeepOffsetAndStrides) {
  const std::string data = bytes_of<float>({0, 1, 2, 3, 4, 5, 6});
  const std::string where = storage("FloatStorage", "0", 7);
  const at::Tensor transposed = read_program(tensor(where, 1, {3, 2}, {1, 3}), data).tensor("t");
  EXPECT_TRUE(at::equal(transposed, at::tensor({1.F, 4.F, 2.F, 5.F, 3.F, 6.F}).reshape({3, 2})));
  const at::Tensor repeated = read_program(tensor(where, 2, {4, 2}, {0, 1}), data).tensor("t");
  EXPECT_TRUE(at::equal(repeated[3], at::tensor({2.F, 3.F})));
  EXPECT_EQ(read_program(tensor(where, 7, {0, 9}, {9, 1}), data).tensor("t").numel(), 0);
  const at::Tensor scalar = read_program(tensor(where, 6, {}, {}), data).tensor("t");
  EXPECT_EQ(scalar.dim(), 0);
  EXPECT_EQ(scalar.item<float>(), 6);
}

TEST_F(PtReader, TensorsThatSharedAStorageStillDo) {
  const std::string one = tensor(storage("LongStorage", "0", 2), 0, {2}, {1});
  const PtValue value = read_program("(" + one + one + "t", bytes_of<int64_t>({5, 6}));
  const at::Tensor a = value.list("l")[0].tensor("a"), b = value.list("l")[1].tensor("b");
  EXPECT_EQ(a.const_data_ptr(), b.const_data_ptr());
  EXPECT_TRUE(at::equal(a, at::tensor({5, 6}, at::kLong)));
}

TEST_F(PtReader, ReadsStateDictsWithVersionsAndParameters) {
  const std::string weight = global("torch._utils", "_rebuild_parameter") + "(" +
                             tensor(storage("FloatStorage", "0", 1), 0, {1}, {1}) + "\x88" +
                             global("collections", "OrderedDict") + ")RtR";
  const PtValue value = read_program(global("collections", "OrderedDict") + ")R(" + text("w") +
                                         weight + "u}" + text("_metadata") + "}sb",
                                     bytes_of<float>({2.5F}));
  EXPECT_EQ(value.dict("d").items.size(), 1U);
  EXPECT_EQ(value.dict("d").at("w", "d").tensor("w").item<float>(), 2.5F);
}

TEST_F(PtReader, ReadsZip64) {
  Zip zip;
  zip.zip64 = true;
  zip.add("a/data.pkl", "\x80\x02K\x05.");
  EXPECT_EQ(read_zip(zip).integer("a"), 5);
}

TEST_F(PtReader, RefusesAnythingThatCouldRun) {
  EXPECT_THAT(error_of_program(global("os", "system") + "(" + text("touch pwned") + "tR"),
              AllOf(HasSubstr("object.pt: pickle byte 2"), HasSubstr("'os.system'")));
  EXPECT_THAT(error_of_program(global("posix", "system")), HasSubstr("'posix.system'"));
  EXPECT_THAT(error_of_program(global("builtins", "eval")), HasSubstr("'builtins.eval'"));
  EXPECT_THAT(error_of_program(global("torch", "load")), HasSubstr("'torch.load'"));
  EXPECT_THAT(error_of_program(global("torch.storage", "UntypedStorage")),
              HasSubstr("UntypedStorage"));
  // The same by other opcodes: INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1, and the text opcodes.
  for (const char opcode : {'i', 'o', '\x81', '\x93', '\x82', 'S', 'V', 'I', 'F', 'P', 'p'}) {
    EXPECT_THAT(error_of_program("(" + std::string(1, opcode) + "os\nsystem\n"),
                HasSubstr("opcode 0x"));
  }
  EXPECT_FALSE(std::filesystem::exists("pwned"));
}

TEST_F(PtReader, RefusesCallsOfWhatIsNoFunction) {
  EXPECT_THAT(error_of_program(text("f") + ")R"), HasSubstr("not a known function"));
  EXPECT_THAT(error_of_program(global("torch", "FloatStorage") + ")R"), HasSubstr("a call of"));
  EXPECT_THAT(error_of_program(global("collections", "OrderedDict") + "K\x01\x85R"),
              HasSubstr("with arguments"));
  EXPECT_THAT(error_of_program(global("collections", "OrderedDict")),
              HasSubstr("expected a value"));
  EXPECT_THAT(error_of_program("K\x01}b"), HasSubstr("expected a dict"));
}

TEST_F(PtReader, RefusesTensorsOutsideTheirStorage) {
  const std::string data = bytes_of<float>({0, 1, 2, 3});
  const std::string four = storage("FloatStorage", "0", 4);
  EXPECT_THAT(error_of_program(tensor(four, 0, {5}, {1}), data), HasSubstr("leaves its storage"));
  EXPECT_THAT(error_of_program(tensor(four, 1, {4}, {1}), data), HasSubstr("leaves its storage"));
  EXPECT_THAT(error_of_program(tensor(four, 0, {2, 2}, {3, 1}), data),
              HasSubstr("leaves its storage"));
  EXPECT_THAT(error_of_program(tensor(four, 5, {0}, {1}), data), HasSubstr("leaves its storage"));
  const std::vector<uint16_t> huge(8, 65535);
  EXPECT_THAT(error_of_program(tensor(four, 0, huge, huge), data), HasSubstr("leaves its storage"));
  EXPECT_THAT(error_of_program(tensor(four, 0, {4}, {1, 1}), data), HasSubstr("strides"));
  EXPECT_THAT(error_of_program(tensor(storage("FloatStorage", "0", 5), 0, {5}, {1}), data),
              HasSubstr("has 16 bytes, expected 5 elements"));
  EXPECT_THAT(error_of_program(tensor(storage("FloatStorage", "9", 4), 0, {4}, {1}), data),
              HasSubstr("no entry 'object/data/9'"));
  const std::string two_types =
      "(" + tensor(four, 0, {4}, {1}) + tensor(storage("IntStorage", "0", 4), 0, {4}, {1}) + "t";
  EXPECT_THAT(error_of_program(two_types, data), HasSubstr("two types or sizes"));
}

TEST_F(PtReader, RefusesMalformedPrograms) {
  EXPECT_THAT(error_of_program(""), HasSubstr("nothing is on the stack"));
  EXPECT_THAT(error_of_program("t"), HasSubstr("no mark"));
  EXPECT_THAT(error_of_program("h\x05"), HasSubstr("nothing was stored as 5"));
  EXPECT_THAT(error_of_program("X" + little(1000, 4) + "abc"), HasSubstr("truncated"));
  EXPECT_THAT(error_of_program("cos"), HasSubstr("truncated"));
  EXPECT_THAT(error_of_program("}(K\x01u"), HasSubstr("a dict key without a value"));
  EXPECT_THAT(error_of_program("}N" + text("v") + "s"), HasSubstr("a dict key is None"));
  EXPECT_THAT(error_of_program("K\x01K\x02\x61"), HasSubstr("expected a list"));
  EXPECT_THAT(error_of_program("\x8a\x09" + std::string(9, '\x01')), HasSubstr("64 bits"));
  EXPECT_THAT(error_of_program("K\x01Q"), HasSubstr("persistent id"));
  EXPECT_THAT(error_of_program("("), HasSubstr("expected a value"));
  EXPECT_THAT(error_of([&] { read_zip(Zip().add("a/data.pkl", "\x80\x04N.")); }),
              HasSubstr("protocol 4"));
}

TEST_F(PtReader, RefusesCyclesAndDeepNesting) {
  EXPECT_THAT(error_of_program("]q" + std::string(1, '\0') + "h" + std::string(1, '\0') + "a"),
              HasSubstr("holds itself"));
  EXPECT_THAT(error_of_program(std::string(70, ']') + std::string(69, 'a')), HasSubstr("64 deep"));
  EXPECT_THAT(error_of_program(std::string(200000, ']') + std::string(199999, 'a')),
              HasSubstr("64 deep"));
  EXPECT_THAT(error_of_program(")" + std::string(100000, '\x85')), HasSubstr("64 deep"));
  // 2^60 leaves if it were a tree: shared parts are looked at once.
  std::string doubled = "]";
  for (char level = 0; level < 60; ++level) {
    doubled += "q" + std::string(1, level) + "](h" + std::string(1, level) + "h" +
               std::string(1, level) + "e";
  }
  EXPECT_EQ(read_program(doubled).list("l").size(), 2U);
}

TEST_F(PtReader, RefusesMalformedZipFiles) {
  const Zip good = Zip().add("a/data.pkl", "\x80\x02K\x05.");
  const std::string bytes = good.bytes();
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(error_of([&] { read_pt(write(bytes.substr(0, length))); }), HasSubstr("object.pt"))
        << length;
  }
  EXPECT_THAT(error_of([&] { read_pt(write("\x80\x02\x8a\x0a")); }), HasSubstr("PyTorch 1.6"));
  EXPECT_THAT(error_of([&] { read_pt(folder_ / "absent.pt"); }), HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { read_pt(folder_.path()); }), HasSubstr("not a regular file"));
  Zip compressed;
  compressed.method = 8;
  EXPECT_THAT(error_of([&] { read_zip(compressed.add("a/data.pkl", "x")); }),
              HasSubstr("compressed"));
  Zip encrypted;
  encrypted.flags = 1;
  EXPECT_THAT(error_of([&] { read_zip(encrypted.add("a/data.pkl", "x")); }),
              HasSubstr("encrypted"));
  EXPECT_THAT(error_of([&] { read_zip(Zip().add("a/x", "1").add("a/x", "2")); }),
              HasSubstr("twice"));
  EXPECT_THAT(error_of([&] { read_zip(Zip().add("model/code.py", "1")); }),
              HasSubstr("no 'data.pkl'"));
  EXPECT_THAT(error_of([&] { read_zip(Zip().add("a/data.pkl", "N.").add("a/byteorder", "big")); }),
              HasSubstr("byte order 'big'"));
  Zip overlapping = Zip().add("a/data.pkl", std::string(100, 'x')).add("a/b", "y");
  const uint32_t longer = 150;
  std::memcpy(overlapping.central.data() + 20, &longer, 4);
  std::memcpy(overlapping.central.data() + 24, &longer, 4);
  EXPECT_THAT(error_of([&] { read_zip(overlapping); }), HasSubstr("overlap"));
}

TEST_F(PtReader, EveryDamagedByteIsAnErrorOrStillAnObject) {
  const std::string program = "\x80\x02}(" + text("t") +
                              tensor(storage("FloatStorage", "0", 2), 0, {2}, {1}) + text("n") +
                              "K\x03u.";
  const std::string bytes =
      Zip().add("a/data.pkl", program).add("a/data/0", bytes_of<float>({1, 2})).bytes();
  size_t refused = 0;
  for (size_t i = 0; i < 4 * bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i / 4] = static_cast<char>(damaged[i / 4] ^ std::array{0x01, 0x41, 0x80, 0xff}[i % 4]);
    try {
      read_pt(write(damaged));
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("object.pt"));
      ++refused;
    }
  }
  EXPECT_GT(refused, 2 * bytes.size());
}

TEST_F(PtReader, MismatchesOfTypeNameThePlace) {
  const PtValue value = read_program("}" + text("a") + "K\x05s");
  EXPECT_THAT(error_of([&] { value.tensor("clip.pt"); }),
              HasSubstr("clip.pt is a dict, expected a tensor"));
  EXPECT_THAT(error_of([&] { value.dict("").at("b", "clip.pt"); }),
              HasSubstr("clip.pt has no 'b'"));
  EXPECT_EQ(value.dict("").at("a", "").number("a"), 5);
}

TEST(PtReaderSharedData, ReadsTheFilesOfTheTinyTrainingSet) {
  const std::filesystem::path root = MINWM_SHARED_DATA "/data/train_tiny";
  if (!std::filesystem::exists(root)) {
    GTEST_SKIP() << "shared data is not here";
  }
  const PtValue clip = read_pt(root / "hy_pt/latents/000001_right8a11.pt");
  const PtDict& dict = clip.dict("clip");
  EXPECT_EQ(dict.at("latent", "clip").tensor("latent").scalar_type(), at::kBFloat16);
  EXPECT_EQ(dict.at("latent", "clip").tensor("latent").sizes(),
            (std::vector<int64_t>{1, 32, 20, 4, 6}));
  EXPECT_EQ(dict.at("prompt_embeds", "clip").tensor("text").scalar_type(), at::kHalf);
  EXPECT_EQ(dict.at("prompt_mask", "clip").tensor("mask").scalar_type(), at::kLong);
  const PtValue ode = read_pt(root / "wan_ode_pt/00000.pt");
  EXPECT_THAT(ode.dict("ode").at("prompt", "ode").string("prompt"), HasSubstr("ünïcode"));
  EXPECT_EQ(ode.dict("ode").at("latents", "ode").tensor("latents").size(1), 6);
}

}  // namespace
}  // namespace minwm
