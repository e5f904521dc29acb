// Latent stores with ODE trajectories, and batches of them.

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/hdf5.h"
#include "minwm/data/latent_store.h"
#include "minwm/data/loader.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/store_samples.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using data::testing::ode_layout;
using data::testing::same;
using data::testing::sample;
using data::testing::small_layout;
using data::testing::write_store;
using data::testing::writer_of;
using minwm::testing::error_of;
using minwm::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Stores = std::vector<std::shared_ptr<const LatentStore>>;

TEST(OdeStore, TrajectoriesComeBackWithTheirLevels) {
  const TemporaryFolder folder;
  write_store(folder / "a.h5", 3, ode_layout());
  const LatentStore store(folder / "a.h5");
  EXPECT_EQ(store.layout().ode_sigmas, ode_layout().ode_sigmas) << "not a digit is lost";
  EXPECT_THAT(describe(store.layout()), HasSubstr(", ODE states at sigma 1, 0.833333"));
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(same(store.read(i), sample(i, ode_layout())));
    EXPECT_EQ(store.read(i).given, i % 2);
  }
}

TEST(OdeStore, WithoutTrajectoriesTheFormatIsAsBefore) {
  const TemporaryFolder folder;
  write_store(folder / "a.h5", 1);
  const hdf5::File file(folder / "a.h5", hdf5::File::Mode::kReadOnly);
  EXPECT_EQ(file.datasets(),
            (std::vector<std::string>{"about", "checksum", "intrinsics", "latents", "sample_id",
                                      "state", "text", "world_to_camera"}));
  EXPECT_FALSE(file.has_attribute("/", "ode_sigmas"));
  EXPECT_EQ(file.read_integer("/", "version"), 1);
  const std::string about(static_cast<const char*>(file.read("about").const_data_ptr()));
  EXPECT_EQ(about.find("given"), std::string::npos);
}

TEST(OdeStore, TrajectoriesOfAnUnfinishedStoreContinueAtTheSameLevelsOnly) {
  const TemporaryFolder folder;
  {
    LatentStoreWriter writer = writer_of(folder / "a.h5", 2, ode_layout());
    writer.write(0, sample(0, ode_layout()));
    EXPECT_FALSE(writer.close());
  }
  StoreLayout other = ode_layout();
  other.ode_sigmas = {1, 0.625};
  for (const StoreLayout& layout : {other, small_layout()}) {
    EXPECT_THAT(error_of([&] { (void)writer_of(folder / "a.h5", 2, layout); }),
                AllOf(HasSubstr("a.h5.partial: holds 2 slots"),
                      HasSubstr("ODE states at sigma 1, 0.833333; this run makes 2 of")));
  }
  LatentStoreWriter writer = writer_of(folder / "a.h5", 2, ode_layout());
  EXPECT_TRUE(writer.complete(0, "clip-00000"));
  writer.write(1, sample(1, ode_layout()));
  EXPECT_TRUE(writer.close());
  EXPECT_TRUE(same(LatentStore(folder / "a.h5").read(0), sample(0, ode_layout())));
}

TEST(OdeStore, TrajectoriesThatAreNotValidAreRefused) {
  const TemporaryFolder folder;
  LatentStoreWriter writer = writer_of(folder / "a.h5", 1, ode_layout());
  const std::vector<std::pair<std::string, std::function<void(Clip&)>>> cases = {
      {"ode_states is [], the store holds [4, 3, 4, 2, 5]",
       [](Clip& c) { c.ode_states = at::Tensor(); }},
      {"ode_states is [3, 3, 4, 2, 5]", [](Clip& c) { c.ode_states = c.ode_states.slice(0, 1); }},
      {"ode_states is not finite",
       [](Clip& c) { c.ode_states.view(-1)[7] = std::numeric_limits<float>::quiet_NaN(); }},
      {"too large for float16", [](Clip& c) { c.ode_states.view(-1)[7] = 1e5; }},
      {"3 given latents of 3: at least one must be generated", [](Clip& c) { c.given = 3; }},
      {"-1 given latents", [](Clip& c) { c.given = -1; }}};
  for (const auto& [reason, spoil] : cases) {
    Clip clip = sample(0, ode_layout());
    spoil(clip);
    EXPECT_THAT(error_of([&] { writer.write(0, clip); }), HasSubstr(reason));
    EXPECT_FALSE(writer.complete(0));
  }
  EXPECT_FALSE(writer.close());
  for (const std::vector<double>& sigmas : {std::vector<double>{0.5, 1}, {1, 1}, {1.5}, {1, 0}}) {
    StoreLayout layout = ode_layout();
    layout.ode_sigmas = sigmas;
    EXPECT_THAT(error_of([&] { (void)writer_of(folder / "b.h5", 1, layout); }),
                HasSubstr("must descend from at most 1 to above 0"));
  }
  EXPECT_FALSE(fs::exists(folder / "b.h5.partial"));
}

TEST(OdeStore, DamagedTrajectoriesAreNoticed) {
  const TemporaryFolder folder;
  const auto spoiled = [&](const std::function<void(hdf5::File&)>& spoil,
                           const StoreLayout& layout = ode_layout()) {
    fs::remove(folder / "a.h5");
    write_store(folder / "a.h5", 1, layout);
    hdf5::File file(folder / "a.h5", hdf5::File::Mode::kReadWrite);
    spoil(file);
    file.close();
    return error_of([&] { (void)LatentStore(folder / "a.h5").read(0); });
  };
  EXPECT_THAT(spoiled([](hdf5::File& file) {
                at::Tensor row = file.read_rows("ode_states", 0, 1);
                static_cast<uint8_t*>(row.mutable_data_ptr())[475] ^= 1;
                file.write_rows("ode_states", 0, row);
              }),
              HasSubstr("its checksum is wrong"));
  EXPECT_THAT(spoiled([](hdf5::File& file) { file.write_attribute("/", "ode_sigmas", "1,x"); }),
              HasSubstr("a.h5: ode_sigmas '1,x' is not a list of numbers"));
  EXPECT_THAT(
      spoiled([](hdf5::File& file) { file.write_attribute("/", "ode_sigmas", "1,0.5,0.7"); }),
      HasSubstr("do not descend"));
  EXPECT_THAT(
      spoiled([](hdf5::File& file) { file.write_attribute("/", "ode_sigmas", "1,0.5,0.25"); }),
      HasSubstr("dataset 'ode_states' is 1 x 4 x 3 x 4 x 2 x 5"));
  EXPECT_THAT(spoiled([](hdf5::File& file) { file.write_attribute("/", "ode_sigmas", "1"); },
                      small_layout()),
              HasSubstr("belong together, one is missing"));
}

TEST(OdeStore, BatchesHoldTheTrajectories) {
  const TemporaryFolder folder;
  write_store(folder / "a.h5", 5, ode_layout());
  Loader loader(open_stores({(folder / "a.h5").string()}), 3, 4, 2, 1, 2, 0);
  const Batch batch = loader.next();
  EXPECT_EQ(batch.ode_states.sizes(), at::IntArrayRef({2, 4, 3, 4, 2, 5}));
  for (int64_t i = 0; i < 2; ++i) {
    const int64_t number = std::stoll(batch.sample_ids[static_cast<size_t>(i)].substr(5));
    const Clip clip = sample(number, ode_layout());
    EXPECT_TRUE(at::equal(batch.latents[i], clip.latents));
    EXPECT_TRUE(at::equal(batch.ode_states[i], clip.ode_states));
    EXPECT_EQ(batch.given[i].item<int64_t>(), clip.given);
  }
}

TEST(OdeStore, IsNotReadTogetherWithOtherLevelsOrPlainClips) {
  const TemporaryFolder folder;
  StoreLayout other = ode_layout();
  other.ode_sigmas = {1, 0.625};
  write_store(folder / "ode.h5", 2, ode_layout());
  write_store(folder / "other.h5", 2, other);
  write_store(folder / "plain.h5", 2);
  for (const char* name : {"other.h5", "plain.h5"}) {
    const Stores stores = open_stores({(folder / "ode.h5").string(), (folder / name).string()});
    EXPECT_THAT(error_of([&] { Loader(stores, 1, 2, 1, 0, 1, 0); }),
                AllOf(HasSubstr("ode.h5 holds latents 3x4x2x5"),
                      HasSubstr("ODE states at sigma 1, 0.833333, but"), HasSubstr(name)));
  }
}

}  // namespace
}  // namespace minwm::data
