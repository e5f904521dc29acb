// Writing one latent store from many ranks, and what is left when one of them is killed.

#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "tests/comm/mpi_test.h"
#include "tests/core/small_disk.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/store_samples.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using data::testing::same;
using data::testing::sample;
using data::testing::small_layout;
using minwm::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// One folder for all ranks; rank 0 owns it.
class SharedFolder {
 public:
  SharedFolder() {
    const auto world = minwm::testing::world().communicator();
    if (world->rank() == 0) {
      owned_.emplace();
    }
    path_ = world->broadcast_string(owned_ ? owned_->path().string() : "", 0, "folder");
  }
  ~SharedFolder() { minwm::testing::world().communicator()->barrier("folder"); }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::optional<TemporaryFolder> owned_;
  fs::path path_;
};

/// Writes the slots of this rank that are not there yet, round robin.
void write_missing(LatentStoreWriter& writer, int64_t capacity) {
  const auto world = minwm::testing::world().communicator();
  for (int64_t i = world->rank(); i < capacity; i += world->size()) {
    if (!writer.complete(i, sample(i).sample_id)) {
      writer.write(i, sample(i));
    }
  }
}

void expect_samples(const fs::path& path, int64_t count) {
  const LatentStore store(path);
  ASSERT_EQ(store.size(), count);
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_TRUE(same(store.read(i), sample(i))) << i;
  }
}

TEST(ParallelStore, RanksWriteOneStoreTogether) {
  const auto world = minwm::testing::world().communicator();
  const SharedFolder folder;
  const auto path = folder / "a.h5";
  LatentStoreWriter writer(path, small_layout(), 23, world);
  write_missing(writer, 23);
  EXPECT_FALSE(fs::exists(path));
  world->barrier("before close");
  EXPECT_TRUE(writer.close());
  EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
  expect_samples(path, 23);
}

TEST(ParallelStore, RanksMayWriteAnyNumberOfSlotsInAnyOrder) {
  // Independent writes: nobody waits for a rank that writes less.
  const auto world = minwm::testing::world().communicator();
  const SharedFolder folder;
  const auto path = folder / "a.h5";
  {
    LatentStoreWriter writer(path, small_layout(), 12, world);
    if (world->rank() == world->size() - 1) {
      for (int64_t slot = 11; slot >= 2; --slot) {
        writer.write(slot, sample(slot));
      }
      writer.mark_failed(1, "clip-00001", "out of memory");
    }
    EXPECT_FALSE(writer.close());
  }
  {
    LatentStoreWriter writer(path, small_layout(), 12, world);
    for (int64_t slot = 0; slot < 12; ++slot) {
      EXPECT_EQ(writer.complete(slot), slot >= 2) << "every rank sees what others have written";
    }
    write_missing(writer, 12);
    EXPECT_TRUE(writer.close());
  }
  expect_samples(path, 12);
}

TEST(ParallelStore, AnErrorOfTheFirstRankIsEverybodys) {
  const auto world = minwm::testing::world().communicator();
  const SharedFolder folder;
  const auto path = folder / "a.h5";
  {
    LatentStoreWriter writer(path, small_layout(), 4, world);
    EXPECT_FALSE(writer.close());
  }
  StoreLayout other = small_layout();
  other.channels = 7;
  EXPECT_THAT(minwm::testing::error_of([&] { LatentStoreWriter(path, other, 4, world); }),
              AllOf(HasSubstr("a.h5.partial: holds 4 slots"), HasSubstr("latents 3x7x2x5")));
  if (world->rank() == 0) {
    atomic_write(folder / "b.h5", "not HDF5");
  }
  world->barrier("written");
  EXPECT_THAT(
      minwm::testing::error_of([&] { LatentStoreWriter(folder / "b.h5", other, 4, world); }),
      HasSubstr("b.h5: not a readable HDF5 file"));
}

TEST(ParallelStore, AFullDiskIsOneClearErrorAndWhatWasDoneStaysRight) {
  const auto world = minwm::testing::world().communicator();
  const SharedFolder folder;
  std::optional<minwm::testing::SmallDisk> owned;
  if (world->rank() == 0) {
    owned.emplace(folder / "small", "1m");
  }
  const auto disk = folder / "small";
  const bool mounted = owned && owned->mounted();
  if (world->all_reduce_max(mounted ? 1 : 0, "mounted") == 0) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  StoreLayout layout = small_layout();
  layout.channels = 1000;  // 60 kB a clip
  constexpr int64_t kCapacity = 80;
  int64_t written = 0;
  {
    LatentStoreWriter writer(disk / "a.h5", layout, kCapacity, world);
    const std::string message = minwm::testing::error_of([&] {
      for (int64_t i = world->rank(); i < kCapacity; i += world->size(), ++written) {
        writer.write(i, sample(i, layout));
      }
    });
    EXPECT_THAT(message, AllOf(HasSubstr("a.h5.partial: cannot write '"),
                               HasSubstr("No space left on device")));
    EXPECT_FALSE(writer.close());
  }
  const double all_written = world->all_reduce_sum(static_cast<double>(written), "written");
  {
    const LatentStore store(disk / "a.h5.partial");
    EXPECT_EQ(static_cast<double>(store.size()), all_written);
    EXPECT_GT(store.size(), 5);
    for (int64_t i = 0; i < store.size(); ++i) {
      EXPECT_TRUE(same(store.read(i), sample(std::stoll(store.sample_id(i).substr(5)), layout)));
    }
  }
  world->barrier("read");
}

/// Not a test of its own: the body of the jobs that latent_store_test kills. STORE is the file,
/// KILL_AFTER the number of slots after which the last rank kills itself (unset = never).
TEST(ParallelStore, DISABLED_WriteAndDie) {
  constexpr int64_t kCapacity = 40;
  const auto world = minwm::testing::world().communicator();
  const char* const kill_after = std::getenv("KILL_AFTER");
  LatentStoreWriter writer(std::getenv("STORE"), small_layout(), kCapacity, world);
  int64_t written = 0;
  for (int64_t i = world->rank(); i < kCapacity; i += world->size()) {
    if (!writer.complete(i, sample(i).sample_id)) {
      writer.write(i, sample(i));
      ++written;
    }
    const bool last = world->rank() == world->size() - 1;
    if (last && kill_after != nullptr && written >= std::atoi(kill_after)) {
      std::raise(SIGKILL);
    }
  }
  EXPECT_TRUE(writer.close());
}

}  // namespace
}  // namespace minwm::data
