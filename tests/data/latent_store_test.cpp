#include "minwm/data/latent_store.h"

#include <csignal>
#include <fstream>
#include <limits>
#include <optional>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "tests/core/small_disk.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/store_samples.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using data::testing::same;
using data::testing::sample;
using data::testing::small_layout;
using data::testing::write_store;
using data::testing::writer_of;
using minwm::testing::error_of;
using minwm::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(LatentStore, SamplesComeBackInTheOrderOfTheirIds) {
  const TemporaryFolder folder;
  const auto path = folder / "below" / "a.h5";
  {
    LatentStoreWriter writer = writer_of(path, 4);
    for (const int64_t slot : {2, 0, 3, 1}) {
      EXPECT_FALSE(writer.complete(slot));
      writer.write(slot, sample(10 - slot));
      EXPECT_TRUE(writer.complete(slot));
      EXPECT_FALSE(fs::exists(path));
    }
    EXPECT_TRUE(writer.close());
  }
  const LatentStore store(path);
  EXPECT_EQ(store.size(), 4);
  EXPECT_EQ(store.capacity(), 4);
  EXPECT_TRUE(store.failures().empty());
  EXPECT_EQ(describe(store.layout()), describe(small_layout()));
  EXPECT_EQ(store.layout().provenance, small_layout().provenance);
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(same(store.read(i), sample(7 + i)));
    EXPECT_EQ(store.caption(i), sample(7 + i).caption);
    EXPECT_EQ(store.sample_id(i), sample(7 + i).sample_id);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(path.parent_path()), fs::directory_iterator()), 1);
}

TEST(LatentStore, TextMayBeHalfOrAbsent) {
  const TemporaryFolder folder;
  StoreLayout layout = small_layout();
  layout.text_type = at::kHalf;
  write_store(folder / "half.h5", 2, layout);
  EXPECT_TRUE(same(LatentStore(folder / "half.h5").read(1), sample(1, layout)));
  EXPECT_EQ(LatentStore(folder / "half.h5").read(1).text.scalar_type(), at::kFloat);
  layout.text_tokens = layout.text_dim = 0;
  write_store(folder / "none.h5", 2, layout);
  const Clip clip = LatentStore(folder / "none.h5").read(1);
  EXPECT_EQ(clip.text.numel(), 0);
  EXPECT_TRUE(at::equal(clip.latents, sample(1, layout).latents));
}

TEST(LatentStore, FailedSlotsKeepTheirReasonAndAreSkipped) {
  const TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    LatentStoreWriter writer = writer_of(path, 3);
    writer.write(0, sample(0));
    writer.mark_failed(1, "clip-00001", "videos/1.mp4: truncated");
    writer.mark_failed(2, "clip-00002", std::string(100000, '\x01'));
    EXPECT_TRUE(writer.close());
  }
  const LatentStore store(path);
  EXPECT_EQ(store.size(), 1);
  EXPECT_EQ(store.capacity(), 3);
  ASSERT_EQ(store.failures().size(), 2);
  EXPECT_EQ(store.failures()[0].sample_id, "clip-00001");
  EXPECT_EQ(store.failures()[0].reason, "videos/1.mp4: truncated");
  EXPECT_EQ(store.failures()[1].reason, std::string(500, '\x01'));
}

TEST(LatentStore, AnUnfinishedStoreContinuesWhereItStopped) {
  const TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    LatentStoreWriter writer = writer_of(path, 5);
    writer.write(1, sample(1));
    writer.write(3, sample(3));
    writer.mark_failed(4, "clip-00004", "no memory");
    EXPECT_FALSE(writer.close());
  }
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EQ(LatentStore(folder / "a.h5.partial").size(), 2);
  {
    LatentStoreWriter writer = writer_of(path, 5);
    EXPECT_TRUE(writer.complete(1, "clip-00001"));
    EXPECT_THAT(error_of([&] { (void)writer.complete(3, "clip-00009"); }),
                HasSubstr("a.h5.partial: slot 3 holds sample 'clip-00003', this run has "
                          "'clip-00009' there"));
    EXPECT_FALSE(writer.complete(4)) << "what failed is tried again";
    for (const int64_t slot : {0, 2, 4}) {
      writer.write(slot, sample(slot));
    }
    EXPECT_TRUE(writer.close());
    EXPECT_TRUE(writer.close());
  }
  EXPECT_EQ(folder.entries(), 1);
  const LatentStore store(path);
  ASSERT_EQ(store.size(), 5);
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(same(store.read(i), sample(i)));
  }
}

TEST(LatentStore, AFinishedStoreTakesNoMore) {
  const TemporaryFolder folder;
  write_store(folder / "a.h5", 2);
  const std::string before = read_file(folder / "a.h5");
  LatentStoreWriter writer = writer_of(folder / "a.h5", 2);
  EXPECT_TRUE(writer.complete(0) && writer.complete(1, "clip-00001"));
  EXPECT_THAT(error_of([&] { writer.write(0, sample(0)); }), HasSubstr("a.h5: is finished"));
  EXPECT_TRUE(writer.close());
  EXPECT_EQ(read_file(folder / "a.h5"), before);
}

TEST(LatentStore, AnotherLayoutOrAnotherWriterIsRefused) {
  const TemporaryFolder folder;
  StoreLayout other = small_layout();
  other.codec = "other-codec";
  write_store(folder / "done.h5", 2);
  EXPECT_THAT(error_of([&] { (void)writer_of(folder / "done.h5", 2, other); }),
              AllOf(HasSubstr("done.h5: holds 2 slots of latents 3x4x2x5"),
                    HasSubstr("codec test-codec-1; this run makes 2 of"),
                    HasSubstr("codec other-codec: remove it or choose another name")));
  LatentStoreWriter writer = writer_of(folder / "a.h5", 2);
  EXPECT_THAT(error_of([&] { (void)writer_of(folder / "a.h5", 2); }),
              HasSubstr("a.h5.partial: another job is writing it"));
  EXPECT_FALSE(writer.close());
  EXPECT_THAT(error_of([&] { (void)writer_of(folder / "a.h5", 3); }),
              AllOf(HasSubstr("a.h5.partial: holds 2 slots"), HasSubstr("makes 3")));
  EXPECT_FALSE(writer_of(folder / "a.h5", 2).close());
}

TEST(LatentStore, ClipsThatAreNotValidAreRefused) {
  const TemporaryFolder folder;
  LatentStoreWriter writer = writer_of(folder / "a.h5", 1);
  const std::vector<std::pair<std::string, std::function<void(Clip&)>>> cases = {
      {"latents is [3, 4, 2, 6], the store holds [3, 4, 2, 5]",
       [](Clip& c) {
         c.latents = at::zeros({3, 4, 2, 6});
       }},
      {"latents is []", [](Clip& c) { c.latents = at::Tensor(); }},
      {"latents is not finite",
       [](Clip& c) { c.latents[0][0][0][0] = std::numeric_limits<float>::quiet_NaN(); }},
      {"too large for float16", [](Clip& c) { c.latents[0][0][0][0] = 1e5; }},
      {"text is [2, 4]",
       [](Clip& c) {
         c.text = at::zeros({2, 4});
       }},
      {"text is not finite",
       [](Clip& c) { c.text[0][0] = std::numeric_limits<float>::infinity(); }},
      {"latent frame 2 moves 1.5", [](Clip& c) { c.world_to_camera[2][0][3] = 1.5; }},
      {"world_to_camera", [](Clip& c) { c.world_to_camera[1][1][1] = 1.001; }},
      {"first camera", [](Clip& c) { c.world_to_camera[0][0][3] = 0.01; }},
      {"fx 0.05", [](Clip& c) { c.intrinsics[0][0] = 0.05; }},
      {"at most 4096 fit", [](Clip& c) { c.caption = std::string(5000, 'x'); }},
      {"not UTF-8", [](Clip& c) { c.caption = "\xFF\xFE"; }},
      {"at most 128 fit", [](Clip& c) { c.sample_id = std::string(129, 'x'); }},
      {"has no id", [](Clip& c) { c.sample_id.clear(); }}};
  for (const auto& [reason, spoil] : cases) {
    Clip clip = sample(0);
    spoil(clip);
    EXPECT_THAT(error_of([&] { writer.write(0, clip); }),
                AllOf(HasSubstr("a.h5: "), HasSubstr(reason)));
    EXPECT_FALSE(writer.complete(0));
  }
  EXPECT_FALSE(writer.close());
}

TEST(LatentStore, FilesThatAreNoStoreAreRefused) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { LatentStore(folder / "none.h5"); }),
              HasSubstr("none.h5: does not exist"));
  atomic_write(folder / "text.h5", "text");
  EXPECT_THAT(error_of([&] { LatentStore(folder / "text.h5"); }),
              HasSubstr("text.h5: not a readable HDF5 file"));
  {
    hdf5::File file(folder / "other.h5", hdf5::File::Mode::kCreate);
    file.write("latents", at::zeros({2, 2}));
    file.close();
  }
  EXPECT_THAT(error_of([&] { LatentStore(folder / "other.h5"); }),
              HasSubstr("other.h5: not a latent store"));
  write_store(folder / "a.h5", 3);
  const std::string whole = read_file(folder / "a.h5");
  for (const double part : {0.1, 0.5, 0.99}) {
    atomic_write(folder / "cut.h5",
                 whole.substr(0, static_cast<size_t>(part * static_cast<double>(whole.size()))));
    EXPECT_THAT(error_of([&] { LatentStore(folder / "cut.h5"); }),
                AllOf(HasSubstr("cut.h5: not a readable HDF5 file"), HasSubstr("truncated")));
  }
}

TEST(LatentStore, AnotherVersionOrShapeIsRefused) {
  const TemporaryFolder folder;
  write_store(folder / "a.h5", 3);
  const std::string whole = read_file(folder / "a.h5");
  {
    hdf5::File file(folder / "a.h5", hdf5::File::Mode::kReadWrite);
    file.write_attribute("/", "version", 7);
    file.close();
  }
  EXPECT_EQ(error_of([&] { LatentStore(folder / "a.h5"); }),
            (folder / "a.h5").string() + ": is a latent store of version 7, this program reads 1");
  EXPECT_THAT(error_of([&] { (void)writer_of(folder / "a.h5", 3); }), HasSubstr("version 7"));
  {
    hdf5::File file(folder / "b.h5", hdf5::File::Mode::kCreate);
    file.write_attribute("/", "format", "minwm-latents");
    file.write_attribute("/", "version", 1);
    for (const char* key : {"codec", "provenance"}) {
      file.write_attribute("/", key, "x");
    }
    for (const char* key : {"pixel_height", "pixel_width"}) {
      file.write_attribute("/", key, 8);
    }
    file.write("latents", at::zeros({3, 2, 2, 2, 2}, at::kHalf));
    file.write("state", at::zeros({2}, at::kByte));
    file.write("world_to_camera", at::zeros({3, 2, 4, 4}));
    file.close();
  }
  EXPECT_THAT(error_of([&] { LatentStore(folder / "b.h5"); }),
              HasSubstr("b.h5: dataset 'intrinsics' is missing"));
}

TEST(LatentStore, EveryAlteredByteOfASampleIsNoticed) {
  const TemporaryFolder folder;
  const auto path = folder / "a.h5";
  write_store(path, 3);
  const auto alter = [&](const char* dataset, int64_t byte) {
    hdf5::File file(path, hdf5::File::Mode::kReadWrite);
    at::Tensor row = file.read_rows(dataset, 1, 1);
    static_cast<uint8_t*>(row.mutable_data_ptr())[byte] ^= 4;
    file.write_rows(dataset, 1, row);
    file.close();
  };
  for (const auto& [dataset, byte] :
       std::vector<std::pair<const char*, int64_t>>{{"latents", 0},
                                                    {"latents", 239},
                                                    {"world_to_camera", 100},
                                                    {"intrinsics", 16},
                                                    {"text", 20},
                                                    {"sample_id", 9},
                                                    {"about", 15},
                                                    {"checksum", 3}}) {
    alter(dataset, byte);
    std::vector<int> wrong;
    {
      const LatentStore store(path);
      for (int64_t i = 0; i < 3; ++i) {
        try {
          (void)store.read(i);
        } catch (const Error& error) {
          wrong.push_back(static_cast<int>(i));
          EXPECT_THAT(error.what(), AllOf(HasSubstr("a.h5: sample 'clip-0000"),
                                          HasSubstr("its checksum is wrong")));
        }
      }
    }
    EXPECT_EQ(wrong.size(), 1) << dataset;
    alter(dataset, byte);
  }
  EXPECT_TRUE(same(LatentStore(path).read(1), sample(1)));
}

TEST(LatentStore, ReopeningForgetsSlotsThatDidNotReachTheDisk) {
  const TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    LatentStoreWriter writer = writer_of(path, 3);
    writer.write(0, sample(0));
    writer.write(1, sample(1));
    EXPECT_FALSE(writer.close());
    hdf5::File file(folder / "a.h5.partial", hdf5::File::Mode::kReadWrite);
    file.write_rows("latents", 1, at::zeros({1, 3, 4, 2, 5}, at::kHalf));
    file.close();
  }
  LatentStoreWriter writer = writer_of(path, 3);
  EXPECT_TRUE(writer.complete(0));
  EXPECT_FALSE(writer.complete(1));
  EXPECT_FALSE(writer.close());
}

/// Writes every missing slot, slowly enough to be killed on the way.
void write_missing(const fs::path& path, int64_t capacity) {
  LatentStoreWriter writer = writer_of(path, capacity);
  for (int64_t i = 0; i < capacity; ++i) {
    if (!writer.complete(i, sample(i).sample_id)) {
      writer.write(i, sample(i));
    }
  }
  (void)writer.close();
}

TEST(LatentStore, AWriterKilledAtAnyMomentLosesNothingItFinished) {
  const TemporaryFolder folder;
  const auto path = folder / "a.h5";
  constexpr int64_t kCapacity = 200;
  int64_t before = 0, kills = 0;
  for (int attempt = 0; !fs::exists(path); ++attempt) {
    ASSERT_LT(attempt, 100);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      write_missing(path, kCapacity);
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(4000 + 2321 * attempt));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    kills += WIFSIGNALED(status) ? 1 : 0;
    if (!fs::exists(folder / "a.h5.partial")) {
      continue;
    }
    const LatentStore store(folder / "a.h5.partial");
    EXPECT_GE(store.size(), before);
    before = store.size();
    for (int64_t i = 0; i < store.size(); ++i) {
      ASSERT_TRUE(same(store.read(i), sample(i)));
    }
  }
  EXPECT_GE(kills, 2) << "the writer was too fast to be killed";
  const LatentStore store(path);
  ASSERT_EQ(store.size(), kCapacity);
  for (int64_t i = 0; i < kCapacity; ++i) {
    ASSERT_TRUE(same(store.read(i), sample(i)));
  }
}

int run_ranks(const fs::path& store, const std::string& environment) {
  return std::system(fmt::format("STORE={} {} {} -n 2 {} --gtest_also_run_disabled_tests "
                                 "--gtest_filter=*WriteAndDie > {}.log 2>&1",
                                 store.string(), environment, LAUNCHER, STORE_WRITER,
                                 store.string())
                         .c_str());
}

TEST(LatentStore, AKilledRankLosesNothingThatWasFinished) {
  const TemporaryFolder folder;
  const auto path = folder / "a.h5";
  for (const int64_t kill_after : {1, 3}) {
    EXPECT_NE(run_ranks(path, fmt::format("KILL_AFTER={}", kill_after)), 0);
    ASSERT_TRUE(fs::exists(folder / "a.h5.partial")) << read_file(folder / "a.h5.log");
    EXPECT_FALSE(fs::exists(path));
    const LatentStore store(folder / "a.h5.partial");
    EXPECT_GE(store.size(), kill_after);
    for (int64_t i = 0; i < store.size(); ++i) {
      ASSERT_TRUE(same(store.read(i), sample(std::stoll(store.sample_id(i).substr(5)))));
    }
  }
  EXPECT_EQ(run_ranks(path, ""), 0) << read_file(folder / "a.h5.log");
  const LatentStore store(path);
  ASSERT_EQ(store.size(), 40);
  for (int64_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(same(store.read(i), sample(i)));
  }
}

TEST(LatentStore, AFullDiskIsOneClearErrorAndTheRestStaysRight) {
  const TemporaryFolder folder;
  const minwm::testing::SmallDisk disk(folder / "small", "512k");
  if (!disk.mounted()) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  int64_t written = 0;
  StoreLayout layout = small_layout();
  layout.channels = 1000;
  {
    LatentStoreWriter writer = writer_of(disk / "a.h5", 40, layout);
    EXPECT_THAT(error_of([&] {
                  for (; written < 40; ++written) {
                    writer.write(written, sample(written, layout));
                  }
                }),
                AllOf(HasSubstr("a.h5.partial"), HasSubstr("No space left on device")));
    EXPECT_GT(written, 2);
    EXPECT_FALSE(writer.close());
  }
  EXPECT_FALSE(fs::exists(disk / "a.h5"));
  {
    const LatentStore store(disk / "a.h5.partial");
    EXPECT_EQ(store.size(), written);
    EXPECT_TRUE(same(store.read(written - 1), sample(written - 1, layout)));
  }
  // Not even room for the structure: no file at all.
  std::ofstream(disk / "filler") << std::string(1 << 20, 'x');
  EXPECT_THAT(error_of([&] { (void)writer_of(disk / "b.h5", 40, layout); }),
              AllOf(HasSubstr("b.h5"), HasSubstr("No space left on device")));
  EXPECT_EQ(disk.entries(), 2);
}

}  // namespace
}  // namespace minwm::data
