#include "minwm/core/hdf5.h"

#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <spdlog/fmt/ranges.h>

#include "minwm/core/files.h"
#include "small_disk.h"
#include "temporary_folder.h"

namespace minwm::hdf5 {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

using Mode = File::Mode;

TEST(Hdf5, TensorsOfEveryTypeComeBackAsTheyWere) {
  const TemporaryFolder folder;
  const std::vector<at::Tensor> tensors = {
      at::randn({3, 4}),
      at::randn({2, 3, 5}, at::kDouble),
      at::arange(7, at::kLong).view({7, 1}),
      at::arange(5, at::kInt),
      at::arange(200, at::kByte),
      at::randn({4, 2}).to(at::kHalf),
      at::randn({6}).to(at::kBFloat16),
      at::scalar_tensor(3.5),
      at::empty({0, 3}),
      at::randn({4, 6}).t(),
  };
  {
    File file(folder / "below" / "a.h5", Mode::kCreate);
    for (size_t i = 0; i < tensors.size(); ++i) {
      file.write(fmt::format("group/deep/{}", i), tensors[i]);
    }
    file.close();
  }
  const File file(folder / "below" / "a.h5", Mode::kReadOnly);
  EXPECT_EQ(file.datasets().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor read = file.read(fmt::format("group/deep/{}", i));
    EXPECT_EQ(read.scalar_type(), tensors[i].scalar_type());
    EXPECT_TRUE(at::equal(read, tensors[i])) << i;
  }
}

TEST(Hdf5, RowsAreWrittenAndReadInPlace) {
  const TemporaryFolder folder;
  const at::Tensor rows = at::randn({6, 2, 3});
  for (const int64_t chunk : {0, 1, 4}) {
    File file(folder / "a.h5", Mode::kCreate);
    file.create_dataset("x", at::kFloat, {6, 2, 3}, chunk);
    EXPECT_THAT(file.shape("x"), ElementsAre(6, 2, 3));
    for (const int64_t first : {4, 0, 2}) {
      file.write_rows("x", first, rows.slice(0, first, first + 2));
    }
    EXPECT_TRUE(at::equal(file.read("x"), rows));
    EXPECT_TRUE(at::equal(file.read_rows("x", 3, 2), rows.slice(0, 3, 5)));
  }
}

TEST(Hdf5, AnyRangeOfElementsIsWrittenAndReadInPlace) {
  const TemporaryFolder folder;
  const std::vector<std::vector<int64_t>> shapes = {
      {37, 41}, {5, 3, 7, 2}, {1}, {}, {2, 1, 3}, {13}, {0, 4}, {2, 3, 1, 2, 3}};
  File file(folder / "a.h5", Mode::kCreate);
  for (const auto& shape : shapes) {
    const std::string name = fmt::format("x{}", fmt::join(shape, "x"));
    const at::Tensor whole = at::randn(shape), flat = whole.flatten();
    const int64_t size = flat.numel();
    file.create_dataset(name, at::kFloat, shape, size % 2 == 1 && !shape.empty() ? 1 : 0);
    // Uneven pieces, the last first.
    const std::vector<int64_t> cuts = {0, size / 7, size / 7, size / 3, size};
    for (size_t i = cuts.size() - 1; i > 0; --i) {
      file.write_range(name, cuts[i - 1], flat.slice(0, cuts[i - 1], cuts[i]));
    }
    EXPECT_TRUE(at::equal(file.read(name), whole)) << name;
    for (int64_t begin = 0; begin <= size; begin += 1 + size / 17) {
      for (int64_t end = begin; end <= size; end += 1 + size / 23) {
        ASSERT_TRUE(at::equal(file.read_range(name, begin, end - begin), flat.slice(0, begin, end)))
            << name << " " << begin << " " << end;
      }
    }
  }
}

TEST(Hdf5, ARangeLeavesItsNeighboursAlone) {
  const TemporaryFolder folder;
  File file(folder / "a.h5", Mode::kCreate);
  at::Tensor expected = at::zeros({3, 4, 5}, at::kInt);
  file.write("x", expected);
  file.write_range("x", 18, at::arange(1, 25, at::kInt));
  expected.view({-1}).slice(0, 18, 42).copy_(at::arange(1, 25, at::kInt));
  EXPECT_TRUE(at::equal(file.read("x"), expected));
}

TEST(Hdf5, RangesThatDoNotFitAreOneClearError) {
  const TemporaryFolder folder;
  File file(folder / "a.h5", Mode::kCreate);
  file.write("x", at::zeros({4, 3}));
  EXPECT_THAT(error_of([&] { (void)file.read_range("x", 10, 3); }),
              HasSubstr("a.h5: dataset 'x': 3 elements from 10 on are outside of its 12"));
  EXPECT_THAT(error_of([&] { (void)file.read_range("x", -1, 3); }), HasSubstr("outside"));
  EXPECT_THAT(error_of([&] { file.write_range("x", 12, at::zeros({1})); }), HasSubstr("outside"));
  EXPECT_THAT(error_of([&] { file.write_range("x", 0, at::zeros({1}, at::kLong)); }),
              HasSubstr("dataset 'x' is of Float, expected Long"));
}

TEST(Hdf5, WritingRowsLaterChangesNothingButTheRows) {
  // What makes a killed writer harmless: the file's structure and size are final once created.
  const TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    File file(path, Mode::kCreate);
    file.create_dataset("x", at::kInt, {64, 1024}, 1);
    file.create_dataset("state", at::kByte, {64});
    file.write("x", at::zeros({64, 1024}, at::kInt));
    file.write("state", at::zeros({64}, at::kByte));
    file.close();
  }
  const std::string before = read_file(path);
  {
    File file(path, Mode::kReadWrite);
    file.write_rows("x", 5, at::full({1, 1024}, 0x01010101, at::kInt));
    // Already in the file, before any flush.
    const std::string after = read_file(path);
    ASSERT_EQ(after.size(), before.size());
    int64_t changed = 0;
    // The 48 bytes of the superblock note that a writer is at work; version 2 does not insist on
    // it.
    for (size_t i = 48; i < after.size(); ++i) {
      changed += after[i] != before[i] ? 1 : 0;
    }
    EXPECT_EQ(changed, 4096);
    // A copy taken now is what a kill would leave.
    atomic_write(folder / "killed.h5", after);
    file.close();
  }
  EXPECT_EQ(read_file(path).size(), before.size());
  const File killed(folder / "killed.h5", Mode::kReadWrite);
  EXPECT_TRUE(at::equal(killed.read("x").sum(1).eq(0), at::arange(64).ne(5)));
}

TEST(Hdf5, AttributesOfAnyLengthComeBackAndAreReplaced) {
  const TemporaryFolder folder;
  const std::string text = fmt::format("{:x>100000}", "grüße");
  {
    File file(folder / "a.h5", Mode::kCreate);
    file.write("x", at::zeros({2}));
    file.write_attribute("/", "config", "short");
    file.write_attribute("/", "config", text);
    file.write_attribute("/", "empty", "");
    file.write_attribute("/", "step", int64_t{1} << 60);
    file.write_attribute("x", "sum64", int64_t{-5});
    file.close();
  }
  const File file(folder / "a.h5", Mode::kReadOnly);
  EXPECT_EQ(file.read_string("/", "config"), text);
  EXPECT_EQ(file.read_string("/", "empty"), "");
  EXPECT_EQ(file.read_integer("/", "step"), int64_t{1} << 60);
  EXPECT_EQ(file.read_integer("x", "sum64"), -5);
  EXPECT_FALSE(file.has_attribute("/", "none"));
  EXPECT_THAT(error_of([&] { (void)file.read_string("/", "none"); }),
              HasSubstr("a.h5: '/' lacks the attribute 'none'"));
  EXPECT_THAT(error_of([&] { (void)file.read_string("/", "step"); }), HasSubstr("is no text"));
  EXPECT_THAT(error_of([&] { (void)file.read_integer("/", "config"); }), HasSubstr("config"));
}

TEST(Hdf5, WhatIsAbsentOrOfAnotherShapeIsOneClearError) {
  const TemporaryFolder folder;
  File file(folder / "a.h5", Mode::kCreate);
  file.write("group/x", at::zeros({4, 3}));
  EXPECT_TRUE(file.contains("group/x"));
  EXPECT_FALSE(file.contains("group/y"));
  EXPECT_FALSE(file.contains("none/y"));
  EXPECT_THAT(error_of([&] { (void)file.read("group/y"); }),
              AllOf(HasSubstr("a.h5"), HasSubstr("group/y")));
  EXPECT_THAT(error_of([&] {
                file.write("group/x", at::zeros({5, 3}));
              }),
              HasSubstr("a.h5: dataset 'group/x' is 4 x 3, expected 5 x 3"));
  EXPECT_THAT(error_of([&] {
                file.write_rows("group/x", 0, at::zeros({1, 2}));
              }),
              HasSubstr("dataset 'group/x' is 4 x 3, expected rows of 1 x 2"));
  EXPECT_THAT(error_of([&] { (void)file.read_rows("group/x", 3, 2); }),
              HasSubstr("rows 3 to 5 are outside of its 4"));
  EXPECT_THAT(error_of([&] { (void)file.read_rows("group/x", -1, 2); }), HasSubstr("outside"));
}

TEST(Hdf5, MissingForeignAndTruncatedFilesAreNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { File(folder / "none.h5", Mode::kReadOnly); }),
              HasSubstr("none.h5: does not exist"));
  atomic_write(folder / "text.h5", "this is no HDF5 file");
  EXPECT_THAT(error_of([&] { File(folder / "text.h5", Mode::kReadOnly); }),
              AllOf(HasSubstr("text.h5: not a readable HDF5 file"), HasSubstr("signature")));
  {
    File file(folder / "whole.h5", Mode::kCreate);
    file.write("x", at::zeros({10000}));
    file.close();
  }
  const std::string whole = read_file(folder / "whole.h5");
  atomic_write(folder / "half.h5", whole.substr(0, whole.size() / 2));
  EXPECT_THAT(error_of([&] { File(folder / "half.h5", Mode::kReadOnly); }),
              AllOf(HasSubstr("half.h5: not a readable"), HasSubstr("truncated file")));
  EXPECT_THAT(error_of([&] { File(folder / "text.h5" / "x.h5", Mode::kCreate); }),
              HasSubstr("x.h5: cannot be created: Not a directory"));
}

TEST(Hdf5, AFullDiskIsOneClearErrorAndHoldsNoFile) {
  const TemporaryFolder folder;
  const minwm::testing::SmallDisk disk(folder / "small", "1m");
  if (!disk.mounted()) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  EXPECT_THAT(error_of([&] {
                File file(disk / "a.h5", Mode::kCreate);
                file.write("x", at::ones({1 << 20}));
                file.close();
              }),
              AllOf(HasSubstr("a.h5"), HasSubstr("No space left on device")));
  fs::remove(disk / "a.h5");
  // No byte left: even the structure cannot be written.
  std::ofstream(disk / "filler") << std::string(2 << 20, 'x');
  EXPECT_THAT(error_of([&] {
                File file(disk / "b.h5", Mode::kCreate);
                file.write_attribute("/", "key", std::string(100000, 'x'));
                file.close();
              }),
              AllOf(HasSubstr("b.h5"), HasSubstr("No space left on device")));
}

TEST(Hdf5, AReaderIsServedBetweenThePiecesOfALongWrite) {
  const TemporaryFolder folder;
  const fs::path small = folder / "small.h5";
  {
    File file(small, Mode::kCreate);
    file.write("x", at::ones({4}));
    file.close();
  }
  const File reader(small, Mode::kReadOnly);
  File large(folder / "large.h5", Mode::kCreate);
  constexpr int64_t kPieces = 6;
  const at::Tensor values = at::zeros({kPieces << 24});  // 64 MiB each
  large.create_dataset("x", at::kFloat, values.sizes().vec());
  std::atomic<bool> done = false;
  std::jthread writing([&] {
    large.write("x", values);
    done = true;
  });
  while (fs::file_size(large.path()) < (1 << 20)) {
    std::this_thread::yield();  // until the first piece is under way
  }
  int64_t turns = 0;
  for (; !done; ++turns) {
    EXPECT_TRUE(reader.contains("x"));
  }
  // A lock without an order is taken again by the writer before the reader wakes.
  EXPECT_GE(turns, 3);
}

TEST(Hdf5, ThreadsMayReadDifferentFilesAtOnce) {
  const TemporaryFolder folder;
  for (int i = 0; i < 2; ++i) {
    File file(folder / fmt::format("{}.h5", i), Mode::kCreate);
    file.write("x", at::full({100, 100}, i));
    file.close();
  }
  std::atomic<int64_t> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&, i] {
        const File file(folder / fmt::format("{}.h5", i), Mode::kReadOnly);
        for (int64_t row = 0; row < 100; ++row) {
          wrong += at::equal(file.read_rows("x", row, 1), at::full({1, 100}, i)) ? 0 : 1;
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace minwm::hdf5
