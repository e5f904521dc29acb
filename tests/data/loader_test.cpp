#include "minwm/data/loader.h"

#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/hdf5.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/store_samples.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using data::testing::same;
using data::testing::sample;
using data::testing::small_layout;
using minwm::testing::error_of;
using minwm::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Stores = std::vector<std::shared_ptr<const LatentStore>>;

/// Samples first … first + count - 1.
void write_store(const fs::path& path, int64_t first, int64_t count,
                 const StoreLayout& layout = small_layout()) {
  LatentStoreWriter writer(path, layout, count, comm::self_communicator());
  for (int64_t i = 0; i < count; ++i) {
    writer.write(i, sample(first + i, layout));
  }
  ASSERT_TRUE(writer.close());
}

class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_store(folder_ / "a.h5", 0, 8);
    write_store(folder_ / "b.h5", 8, 3);
    stores_ = open_stores({(folder_ / "a.h5").string(), (folder_ / "b.h5").string()});
  }

  /// Position in the global batch → sample id, for each of `steps` steps, over all ranks.
  std::vector<std::map<int64_t, std::string>> global_batches(int64_t global, int64_t micro,
                                                             int64_t ranks, int64_t first_step,
                                                             int64_t steps, uint64_t seed = 1) {
    std::vector<std::map<int64_t, std::string>> out(static_cast<size_t>(steps));
    for (int64_t rank = 0; rank < ranks; ++rank) {
      Loader loader(stores_, seed, global, micro, rank, ranks, first_step, 2);
      for (auto& batch : out) {
        for (int64_t m = 0; m < global / ranks / micro; ++m) {
          const Batch part = loader.next();
          for (size_t i = 0; i < part.sample_ids.size(); ++i) {
            EXPECT_TRUE(batch.emplace(part.global_samples[i], part.sample_ids[i]).second);
          }
        }
      }
    }
    return out;
  }

  TemporaryFolder folder_;
  Stores stores_;
};

TEST_F(LoaderTest, TheGlobalBatchDoesNotDependOnRanksOrAccumulation) {
  const auto expected = global_batches(8, 8, 1, 0, 5);
  EXPECT_EQ(expected[0].size(), 8);
  for (const auto& [micro, ranks] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {4, 1}, {4, 2}, {1, 2}, {2, 4}, {1, 4}}) {
    EXPECT_EQ(global_batches(8, micro, ranks, 0, 5), expected) << micro << " " << ranks;
  }
}

TEST_F(LoaderTest, StartingAtAStepEqualsRunningToIt) {
  const auto whole = global_batches(4, 2, 2, 0, 12);
  for (const int64_t step : {1, 5, 9}) {
    EXPECT_EQ(global_batches(4, 2, 2, step, 3),
              std::vector(whole.begin() + step, whole.begin() + step + 3));
  }
}

TEST_F(LoaderTest, EveryClipComesOncePerEpochInANewOrder) {
  // 11 clips in batches of 4: epochs end inside of batches.
  std::vector<std::string> row;
  for (const auto& batch : global_batches(4, 4, 1, 0, 11)) {
    for (const auto& [position, id] : batch) {
      row.push_back(id);
    }
  }
  std::set<std::vector<std::string>> orders;
  for (size_t epoch = 0; epoch < 4; ++epoch) {
    const std::vector<std::string> order(row.begin() + static_cast<int64_t>(epoch) * 11,
                                         row.begin() + static_cast<int64_t>(epoch + 1) * 11);
    EXPECT_EQ(std::set<std::string>(order.begin(), order.end()).size(), 11);
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 4);
  EXPECT_NE(global_batches(4, 4, 1, 0, 2, 1), global_batches(4, 4, 1, 0, 2, 2)) << "seeds";
}

TEST_F(LoaderTest, BatchesHoldWhatTheStoreHolds) {
  Loader loader(stores_, 3, 4, 2, 1, 2, 0);
  const Batch batch = loader.next();
  EXPECT_EQ(batch.latents.sizes(), at::IntArrayRef({2, 3, 4, 2, 5}));
  EXPECT_EQ(batch.conditions.text.sizes(), at::IntArrayRef({2, 2, 3}));
  EXPECT_EQ(batch.conditions.cameras.world_to_camera.sizes(), at::IntArrayRef({2, 3, 4, 4}));
  EXPECT_EQ(batch.conditions.cameras.intrinsics.sizes(), at::IntArrayRef({2, 3, 3, 3}));
  EXPECT_THAT(batch.global_samples, ElementsAre(2, 3));
  for (int64_t i = 0; i < 2; ++i) {
    const Clip clip = sample(std::stoll(batch.sample_ids[static_cast<size_t>(i)].substr(5)));
    EXPECT_TRUE(at::equal(batch.latents[i], clip.latents));
    EXPECT_TRUE(at::equal(batch.conditions.text[i], clip.text));
    EXPECT_TRUE(at::equal(batch.conditions.cameras.world_to_camera[i], clip.world_to_camera));
    for (int64_t t = 0; t < 3; ++t) {
      EXPECT_TRUE(at::equal(batch.conditions.cameras.intrinsics[i][t], clip.intrinsics));
    }
  }
  EXPECT_GE(loader.last_wait(), 0);
  EXPECT_LT(loader.last_wait(), 10);
}

TEST_F(LoaderTest, StoresThatDifferAreRefusedNamingBoth) {
  const std::vector<std::function<void(StoreLayout&)>> changes = {
      [](auto& l) { l.frames = 4; }, [](auto& l) { l.channels = 5; },
      [](auto& l) { l.text_dim = 4; }, [](auto& l) { l.width = 6; },
      [](auto& l) { l.codec = "another"; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    StoreLayout other = small_layout();
    changes[i](other);
    const auto path = folder_ / fmt::format("other{}.h5", i);
    write_store(path, 0, 2, other);
    auto stores = stores_;
    stores.push_back(std::make_shared<LatentStore>(path));
    EXPECT_THAT(error_of([&] { Loader(stores, 1, 2, 1, 0, 1, 0); }),
                AllOf(HasSubstr("a.h5 holds latents 3x4x2x5"), HasSubstr(path.string() + " holds"),
                      HasSubstr(describe(other))));
  }
}

TEST_F(LoaderTest, SplitsThatDoNotDivideAndEmptyStoresAreErrors) {
  EXPECT_THAT(
      error_of([&] { Loader(stores_, 1, 6, 2, 0, 2, 0); }),
      HasSubstr("global batch 6 cannot be split over 2 data-parallel ranks in micro-batches "
                "of 2"));
  EXPECT_THAT(error_of([&] { Loader(stores_, 1, 0, 1, 0, 1, 0); }), HasSubstr("global batch 0"));
  EXPECT_THAT(error_of([&] { Loader({}, 1, 1, 1, 0, 1, 0); }), HasSubstr("no latent store"));
  {
    LatentStoreWriter writer(folder_ / "empty.h5", small_layout(), 1, comm::self_communicator());
    writer.mark_failed(0, "x", "y");
    EXPECT_TRUE(writer.close());
  }
  EXPECT_THAT(error_of([&] { (void)open_stores({(folder_ / "empty.h5").string()}); }),
              HasSubstr("empty.h5: no complete sample"));
}

TEST_F(LoaderTest, ADamagedSampleSurfacesAtNextAndStays) {
  stores_.clear();
  {
    hdf5::File file(folder_ / "b.h5", hdf5::File::Mode::kReadWrite);
    file.write_rows("latents", 1, at::ones({1, 3, 4, 2, 5}, at::kHalf));
    file.close();
  }
  Loader loader(open_stores({(folder_ / "a.h5").string(), (folder_ / "b.h5").string()}), 1, 1, 1, 0,
                1, 0);
  const auto drain = [&] {
    for (int i = 0; i < 11; ++i) {
      (void)loader.next();
    }
  };
  for (int attempt = 0; attempt < 2; ++attempt) {
    EXPECT_THAT(error_of(drain),
                AllOf(HasSubstr("b.h5: sample 'clip-00009'"), HasSubstr("checksum is wrong")));
  }
}

TEST_F(LoaderTest, ALoaderEndsWithoutBeingReadToItsEnd) {
  for (int i = 0; i < 20; ++i) {
    Loader loader(stores_, 1, 8, 1, 0, 1, 0, 1 + i % 3);
    for (int batch = 0; batch < i % 4; ++batch) {
      (void)loader.next();
    }
  }
}

}  // namespace
}  // namespace minwm::data
