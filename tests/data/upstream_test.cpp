// Readers of the published data sets: LMDB, .pt files, the index, the sampler.

#include <algorithm>
#include <fstream>
#include <numeric>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lmdb.h>

#include <ATen/ATen.h>

#include "minwm/data/upstream_hy.h"
#include "minwm/data/upstream_lmdb.h"
#include "minwm/data/upstream_sampler.h"
#include "minwm/data/upstream_wan.h"
#include "tests/core/pt_builder.h"
#include "tests/core/temporary_folder.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
namespace pt = testing::pt;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;
using Rows = std::map<std::string, std::string>;

void write_lmdb(const fs::path& folder, const Rows& rows) {
  fs::create_directories(folder);
  MDB_env* environment = nullptr;
  MDB_txn* transaction = nullptr;
  MDB_dbi database = 0;
  ASSERT_EQ(mdb_env_create(&environment), 0);
  ASSERT_EQ(mdb_env_open(environment, folder.c_str(), MDB_NOLOCK, 0644), 0);
  ASSERT_EQ(mdb_txn_begin(environment, nullptr, 0, &transaction), 0);
  ASSERT_EQ(mdb_dbi_open(transaction, nullptr, 0, &database), 0);
  for (const auto& [key, value] : rows) {
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    MDB_val v{value.size(), const_cast<char*>(value.data())};
    ASSERT_EQ(mdb_put(transaction, database, &k, &v, 0), 0);
  }
  ASSERT_EQ(mdb_txn_commit(transaction), 0);
  mdb_env_close(environment);
}

std::string bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

constexpr int64_t kFrames = 2;

/// A camera that moves 1 unit a frame, starting away from the origin.
at::Tensor poses7() {
  return at::tensor({0.F, 0.F, 5.F, 0.F, 0.F, 0.F, 1.F, 0.F, 0.F, 4.F, 0.F, 0.F, 0.F, 2.F})
      .reshape({kFrames, 7});
}

/// `count` clips of [2, 1, 1, 2] latents with values first, first + 1, ….
Rows clips(int64_t count, float first = 0) {
  Rows rows;
  for (int64_t i = 0; i < count; ++i) {
    const std::string at = "_" + std::to_string(i) + "_data";
    rows["latents" + at] =
        bytes_of(at::full({kFrames, 1, 1, 2}, first + static_cast<float>(i)).to(at::kHalf));
    rows["prompts" + at] = "caption ü " + std::to_string(i);
    rows["poses" + at] = bytes_of(poses7());
    rows["intrinsics" + at] = bytes_of(at::tensor({0.5F, 0.9F, 0.5F, 0.5F}));
  }
  const std::string n = std::to_string(count);
  rows["latents_shape"] = n + " 2 1 1 2";
  rows["prompts_shape"] = n;
  rows["poses_shape"] = n + " 2 7";
  rows["intrinsics_shape"] = n + " 4";
  return rows;
}

TEST(WanLmdb, ReadsClipsWithCamerasAlignedToTheFirstFrame) {
  const TemporaryFolder folder;
  write_lmdb(folder / "data", clips(3));
  const WanLmdb set(folder / "data");
  ASSERT_EQ(set.size(), 3);
  const WanSample sample = set.read(2);
  EXPECT_EQ(sample.prompt, "caption ü 2");
  EXPECT_TRUE(at::equal(sample.clean(), at::full({kFrames, 1, 1, 2}, 2.F)));
  EXPECT_TRUE(at::equal(sample.world_to_camera[0], at::eye(4)));
  EXPECT_FLOAT_EQ(sample.world_to_camera[1][2][3].item<float>(), -1);
  EXPECT_FLOAT_EQ(sample.intrinsics[1][1][1].item<float>(), 0.9F);
  EXPECT_FALSE(fs::exists(folder / "data/lock.mdb"));
}

TEST(WanLmdb, JoinsShardsInTheOrderOfTheirNames) {
  const TemporaryFolder folder;
  write_lmdb(folder / "b", clips(1, 20));
  write_lmdb(folder / "a", clips(2, 10));
  fs::create_directories(folder / "not_a_shard");
  const WanLmdb set(folder.path());
  ASSERT_EQ(set.size(), 3);
  EXPECT_EQ(set.read(1).clean()[0][0][0][0].item<float>(), 11);
  EXPECT_EQ(set.read(2).clean()[0][0][0][0].item<float>(), 20);
  EXPECT_THAT(error_of([&] { set.read(3); }), HasSubstr("there is no sample 3"));
  EXPECT_THAT(error_of([&] { set.read(-1); }), HasSubstr("there is no sample -1"));
}

TEST(WanLmdb, TheLastStateOfATrajectoryIsTheCleanOne) {
  const TemporaryFolder folder;
  Rows rows = clips(1);
  rows["latents_shape"] = "1 3 2 1 1 2";
  rows["latents_0_data"] = bytes_of(
      at::arange(3).reshape({3, 1, 1, 1, 1}).expand({3, 2, 1, 1, 2}).to(at::kHalf).contiguous());
  write_lmdb(folder.path(), rows);
  const WanSample sample = WanLmdb(folder.path()).read(0);
  EXPECT_EQ(sample.states.size(0), 3);
  EXPECT_EQ(sample.clean()[1][0][0][1].item<float>(), 2);
}

TEST(WanLmdb, RefusesDamagedDataWithOneLine) {
  const auto error = [](const Rows& changes) {
    const TemporaryFolder folder;
    Rows rows = clips(2);
    for (const auto& [key, value] : changes) {
      if (value == "absent") {
        rows.erase(key);
      } else {
        rows[key] = value;
      }
    }
    write_lmdb(folder.path(), rows);
    return error_of([&] { WanLmdb(folder.path()).read(1); });
  };
  EXPECT_THAT(error({{"latents_shape", "absent"}}), HasSubstr("no key 'latents_shape'"));
  EXPECT_THAT(error({{"latents_shape", "2 x"}}), HasSubstr("latents_shape is '2 x'"));
  EXPECT_THAT(error({{"latents_shape", "2 -1"}}), HasSubstr("latents_shape is '2 -1'"));
  EXPECT_THAT(error({{"latents_shape", "2 9223372036854775807 2"}}), HasSubstr("too large"));
  EXPECT_THAT(error({{"poses_shape", "absent"}}), HasSubstr("has no cameras"));
  EXPECT_THAT(error({{"prompts_shape", "3"}}), HasSubstr("2 latents but 3 prompts"));
  EXPECT_THAT(error({{"latents_1_data", "absent"}}), HasSubstr("no key 'latents_1_data'"));
  EXPECT_THAT(error({{"latents_1_data", "abc"}}),
              HasSubstr("'latents_1_data' has 3 bytes, expected 8"));
  EXPECT_THAT(
      error({{"poses_shape", "2 1 7"}, {"poses_1_data", bytes_of(poses7()[0].contiguous())}}),
      HasSubstr("cameras for 1 frames, latents for 2"));
  EXPECT_THAT(error({{"poses_1_data", bytes_of(poses7() / 0)}}), HasSubstr("poses"));
  EXPECT_THAT(error({{"poses_1_data", bytes_of(at::zeros({kFrames, 7}))}}),
              HasSubstr("the quaternion is zero"));
  EXPECT_THAT(error({{"latents_1_data", bytes_of(at::full({4}, INFINITY).to(at::kHalf))}}),
              HasSubstr("not finite"));
}

TEST(WanLmdb, RefusesWhatIsNoLmdb) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { WanLmdb(folder / "absent"); }), HasSubstr("absent"));
  EXPECT_THAT(error_of([&] { WanLmdb set(folder.path()); }), HasSubstr("no data.mdb"));
  std::ofstream(folder / "data.mdb") << "text";
  EXPECT_THAT(error_of([&] { WanLmdb set(folder.path()); }),
              HasSubstr("cannot open the LMDB data"));
}

TEST(WanLmdb, NoticesAFileCutShort) {
  const TemporaryFolder folder;
  write_lmdb(folder.path(), clips(40));
  const auto file = folder / "data.mdb";
  const auto size = fs::file_size(file);
  ASSERT_GT(size, 4 * 4096U);
  for (const auto left :
       {size - 1, size - 4096, uintmax_t{8192}, uintmax_t{5000}, uintmax_t{100}, uintmax_t{0}}) {
    fs::resize_file(file, left);
    EXPECT_THAT(error_of([&] { WanLmdb set(folder.path()); }), HasSubstr(folder.path().string()))
        << left;
  }
}

/// A tensor of a .pt file as it is written: program and storage.
struct PtFile {
  std::string program = "\x80\x02}(";
  std::vector<std::string> storages;

  PtFile& add(const std::string& key, const std::string& type, const at::Tensor& tensor) {
    std::vector<uint16_t> shape(tensor.sizes().begin(), tensor.sizes().end());
    std::vector<uint16_t> strides(tensor.strides().begin(), tensor.strides().end());
    program += pt::text(key) + pt::tensor(pt::storage(type, std::to_string(storages.size()),
                                                      static_cast<uint16_t>(tensor.numel())),
                                          0, shape, strides);
    storages.push_back(bytes_of(tensor));
    return *this;
  }
  fs::path write(const fs::path& path) const {
    pt::Zip zip;
    zip.add("x/data.pkl", program + "u.");
    for (size_t i = 0; i < storages.size(); ++i) {
      zip.add("x/data/" + std::to_string(i), storages[i]);
    }
    std::ofstream(path, std::ios::binary) << zip.bytes();
    return path;
  }
};

/// A clip of `frames` latent frames, without the entries named in `without`.
PtFile hy_file(int64_t frames, const std::set<std::string>& without = {}) {
  PtFile file;
  const auto add = [&](const std::string& key, const std::string& type, const at::Tensor& tensor) {
    if (!without.contains(key)) {
      file.add(key, type, tensor);
    }
  };
  add("latent", "BFloat16Storage",
      at::arange(2 * frames).reshape({1, 2, frames, 1, 1}).to(at::kBFloat16));
  add("image_cond", "BFloat16Storage", at::ones({1, 2, 1, 1, 1}, at::kBFloat16));
  add("prompt_embeds", "HalfStorage", at::ones({1, 3, 4}, at::kHalf));
  add("prompt_mask", "LongStorage", at::ones({1, 3}, at::kLong));
  add("vision_states", "BFloat16Storage", at::ones({1, 5, 2}, at::kBFloat16));
  add("byt5_text_states", "FloatStorage", at::zeros({1, 2, 2}));
  add("byt5_text_mask", "LongStorage", at::zeros({1, 2}, at::kLong));
  add("intrinsics", "FloatStorage", at::tensor({0.5F, 0.9F, 0.5F, 0.5F}));
  at::Tensor poses = at::zeros({frames, 7});
  poses.select(1, 2).copy_(at::arange(frames) * -0.08);
  poses.select(1, 6).fill_(1);
  add("poses", "FloatStorage", poses);
  return file;
}

TEST(HySample, IsCutToTheWindowAndToAMultipleOfFour) {
  const TemporaryFolder folder;
  const auto file = hy_file(10).write(folder / "clip.pt");
  const HySample cut = read_hy_sample(file, 4);
  EXPECT_EQ(cut.latent.sizes(), (std::vector<int64_t>{2, 4, 1, 1}));
  EXPECT_EQ(cut.latent.scalar_type(), at::kBFloat16);
  EXPECT_EQ(cut.latent[1][0].item<float>(), 10);
  EXPECT_TRUE(at::equal(cut.labels, at::tensor({0, 9, 9, 9}, at::kLong)));
  EXPECT_EQ(read_hy_sample(file, 10).world_to_camera.size(0), 8);
  EXPECT_THAT(error_of([&] { read_hy_sample(file, 11); }), HasSubstr("the window has 11"));
  EXPECT_THAT(error_of([&] { read_hy_sample(file, 0); }), HasSubstr("window of 0"));
}

TEST(HySample, TakesTheCamerasOfATrajectoryAsTheyAre) {
  const TemporaryFolder folder;
  PtFile file = hy_file(4, {"poses", "intrinsics"});
  at::Tensor views = at::eye(4).repeat({1, 4, 1, 1});
  views.select(1, 3).select(1, 2).select(1, 3).fill_(-0.5);
  file.add("viewmats", "FloatStorage", views)
      .add("Ks", "FloatStorage", at::eye(3).repeat({1, 4, 1, 1}))
      .add("ode_trajectory", "BFloat16Storage", at::zeros({1, 6, 2, 4, 1, 1}, at::kBFloat16));
  const HySample sample = read_hy_sample(file.write(folder / "ode.pt"), 4);
  EXPECT_TRUE(at::equal(sample.world_to_camera, views[0]));
  EXPECT_EQ(sample.ode_trajectory.sizes(), (std::vector<int64_t>{6, 2, 4, 1, 1}));
  EXPECT_EQ(sample.labels[3].item<int64_t>(), 9);
}

TEST(HySample, RefusesDamagedFilesWithOneLine) {
  const TemporaryFolder folder;
  const auto error = [&](const PtFile& file) {
    return error_of([&] { read_hy_sample(file.write(folder / "clip.pt"), 4); });
  };
  EXPECT_THAT(error(hy_file(4, {"latent"})), HasSubstr("clip.pt has no 'latent'"));
  EXPECT_THAT(error(hy_file(4, {"poses"})), HasSubstr("has no 'poses'"));
  EXPECT_THAT(error(hy_file(4, {"poses"}).add("poses", "FloatStorage", at::zeros({3, 7}))),
              HasSubstr("expected 7 numbers for each of 4 latent frames"));
  EXPECT_THAT(error(hy_file(4, {"intrinsics"})
                        .add("intrinsics", "FloatStorage", at::tensor({0.F, 1.F, .5F, .5F}))),
              HasSubstr("positive focal lengths"));
  EXPECT_THAT(
      error(hy_file(4, {"latent"}).add("latent", "FloatStorage", at::full({1, 2, 4, 1, 1}, NAN))),
      HasSubstr("not finite"));
  EXPECT_THAT(
      error(hy_file(4, {"latent"}).add("latent", "FloatStorage", at::ones({2, 2, 4, 1, 1}))),
      HasSubstr("a batch of 2"));
  EXPECT_THAT(error(hy_file(4, {"latent"}).add("latent", "FloatStorage", at::ones({2, 4, 1, 1}))),
              HasSubstr("has 4 axes, expected 5"));
}

TEST(WanOdePt, ReadsOneFileAndRefusesDamage) {
  const TemporaryFolder folder;
  const auto file = [&](int64_t camera_frames) {
    PtFile made;
    made.program += pt::text("prompt") + "](" + pt::text("a hill") + "e";
    made.add("latents", "FloatStorage", at::ones({1, 6, 2, 1, 1, 2}) * 0.1)
        .add("viewmats", "FloatStorage", at::eye(4).repeat({1, camera_frames, 1, 1}))
        .add("Ks", "FloatStorage", at::eye(3).repeat({1, camera_frames, 1, 1}));
    return made.write(folder / "00000.pt");
  };
  const WanSample sample = read_wan_ode_pt(file(2));
  EXPECT_EQ(sample.prompt, "a hill");
  EXPECT_EQ(sample.states.size(0), 6);
  EXPECT_EQ(sample.clean()[0][0][0][0].item<float>(), at::tensor(0.1F).to(at::kHalf).item<float>());
  EXPECT_THAT(error_of([&] { read_wan_ode_pt(file(3)); }),
              HasSubstr("cameras for 3 frames, latents for 2"));
}

TEST(HyIndex, PathsStartAtTheIndexFile) {
  const TemporaryFolder folder;
  const auto index = folder / "train_index.json";
  std::ofstream(index) << R"([{"latent_path": "latents/b.pt"}, {"latent_path": "/x/a.pt"}])";
  EXPECT_THAT(read_hy_index(index), ElementsAre(folder / "latents/b.pt", fs::path("/x/a.pt")));
  const auto error = [&](const char* text) {
    std::ofstream(index) << text;
    return error_of([&] { read_hy_index(index); });
  };
  EXPECT_THAT(error("[{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("{}"), HasSubstr("expected a list"));
  EXPECT_THAT(error(R"([{"latent_path": "a"}, {"path": "a"}])"), HasSubstr("entry 1"));
}

TEST(UpstreamSampler, GroupsShareTheSamplesOfAPermutation) {
  UpstreamSampler sampler{.samples = 23, .batch = 2, .ranks = 8, .sequence_parallel = 4, .seed = 5};
  const auto first = upstream_order(sampler, 0), second = upstream_order(sampler, 7);
  EXPECT_EQ(first, upstream_order(sampler, 3));
  EXPECT_EQ(first.size(), 10U);
  std::set<int64_t> all(first.begin(), first.end());
  all.insert(second.begin(), second.end());
  EXPECT_EQ(all.size(), 20U) << "no sample twice";
  sampler.drop_last = false;
  EXPECT_EQ(upstream_order(sampler, 0).size(), 12U);
  EXPECT_EQ(upstream_order(sampler, 4).back(), upstream_permutation(23, 5)[0]);
}

TEST(UpstreamSampler, LeavesOutTheFirstSampleWhereverItStands) {
  const UpstreamSampler sampler{.samples = 7, .drop_first = true, .seed = 3};
  auto order = upstream_order(sampler, 0);
  std::sort(order.begin(), order.end());
  EXPECT_THAT(order, ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(UpstreamSampler, FillsUpOnlyOnceAround) {
  const UpstreamSampler sampler{.samples = 2, .batch = 8, .drop_last = false};
  EXPECT_EQ(upstream_order(sampler, 0).size(), 4U);
}

TEST(UpstreamSampler, RefusesImpossibleJobs) {
  const auto error = [](const UpstreamSampler& sampler, int64_t rank = 0) {
    return error_of([&] { upstream_order(sampler, rank); });
  };
  EXPECT_THAT(error({}), HasSubstr("0 samples"));
  EXPECT_THAT(error({.samples = 1, .drop_first = true}), HasSubstr("expected at least 2"));
  EXPECT_THAT(error({.samples = 4, .batch = 0}), HasSubstr("batch of 0"));
  EXPECT_THAT(error({.samples = 4, .ranks = 6, .sequence_parallel = 4}), HasSubstr("6 ranks"));
  EXPECT_THAT(error({.samples = 4}, 1), HasSubstr("rank 1 of 1"));
}

}  // namespace
}  // namespace minwm::data
