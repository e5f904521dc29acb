#include "minwm/train/checkpoint.h"

#include <csignal>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "minwm/core/random.h"
#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

CheckpointInfo info_at(int64_t step) {
  CheckpointInfo info;
  info.step = step;
  info.seed = 7;
  info.model = "wan-tiny";
  info.stage = "teacher-forcing";
  info.config = "seed = 7\n\n[train]\nsteps = 3\n";
  info.codec = "codec.safetensors";
  info.sampler = "renoise";
  info.step_list = {1000, 750, 500, 250};
  info.shift = 3;
  info.chunk_frames = 4;
  info.latent_height = 8;
  info.latent_width = 9;
  info.latent_frames = 12;
  info.fx = 0.5050505;
  info.fy = 0.75;
  return info;
}

TensorMap some_tensors(uint64_t seed = 1) {
  return {{"model/param/weight", random_normal({5, 7}, {seed, "weight"})},
          {"model/param/bias", random_normal({7}, {seed, "bias"})},
          {"model/ema/weight", random_normal({5, 7}, {seed, "average"})},
          {"model/ema/bias", random_normal({7}, {seed, "average bias"})},
          {"optimizer/weight/momentum", random_normal({5, 7}, {seed, "momentum"})},
          {"counters/optimizer_step", at::tensor(int64_t{3}, at::kLong)}};
}

class CheckpointTest : public ::testing::Test {
 protected:
  fs::path save(int64_t step, int64_t keep = 2, const std::vector<fs::path>& extra = {}) {
    return save_checkpoint(folder_ / "checkpoints", info_at(step), some_tensors(), extra, keep,
                           *self_);
  }
  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / "checkpoints")) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  TemporaryFolder folder_;
  std::shared_ptr<comm::Communicator> self_ = comm::self_communicator();
};

struct Pair : torch::nn::Module {
  Pair() {
    weight = register_parameter("weight", at::zeros({5, 7}));
    bias = register_parameter("bias", at::zeros({7}));
  }
  at::Tensor weight, bias;
};

TEST_F(CheckpointTest, ComesBackBitForBit) {
  const fs::path path = save(123);
  EXPECT_EQ(path, folder_ / "checkpoints" / "step-000123");
  const Checkpoint checkpoint(path);
  const auto expected = some_tensors();
  EXPECT_EQ(checkpoint.names().size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(at::equal(checkpoint.read(name), tensor)) << name;
    EXPECT_EQ(checkpoint.read(name).scalar_type(), tensor.scalar_type()) << name;
  }
  const auto& info = checkpoint.info();
  EXPECT_EQ(info.step, 123);
  EXPECT_EQ(info.seed, 7U);
  EXPECT_EQ(info.model, "wan-tiny");
  EXPECT_EQ(info.stage, "teacher-forcing");
  EXPECT_EQ(info.config, info_at(0).config);
  EXPECT_EQ(info.codec, "codec.safetensors");
  EXPECT_EQ(info.sampler, "renoise");
  EXPECT_THAT(info.step_list, ElementsAre(1000, 750, 500, 250));
  EXPECT_EQ(info.shift, 3);
  EXPECT_EQ(info.chunk_frames, 4);
  EXPECT_EQ(info.latent_height, 8);
  EXPECT_EQ(info.latent_width, 9);
  EXPECT_EQ(info.latent_frames, 12);
  EXPECT_EQ(info.fx, 0.5050505);
  EXPECT_EQ(info.fy, 0.75);
  EXPECT_EQ(read_file(path / "config.ini"), info.config);
}

TEST_F(CheckpointTest, CopiesFilesIn) {
  std::ofstream(folder_ / "codec.safetensors") << "codec";
  EXPECT_EQ(read_file(save(1, 2, {folder_ / "codec.safetensors"}) / "codec.safetensors"), "codec");
}

TEST_F(CheckpointTest, KeepsTheNewestAndRemovesWhatAKilledSaveLeft) {
  fs::create_directories(folder_ / "checkpoints" / "step-000900.tmp");
  for (const int64_t step : {999999, 1000000, 1000001}) {
    save(step);
  }
  EXPECT_THAT(entries(), ElementsAre("step-1000000", "step-1000001"));
}

TEST_F(CheckpointTest, TheOneJustWrittenStaysAndNewerOnesOfARunGivenUpGo) {
  save(100, 1);
  fs::resize_file(save(400, 5) / "state.h5", 1000);  // damaged: the run starts again from nothing
  save(50, 1);
  EXPECT_THAT(entries(), ElementsAre("step-000050"));
  save(60, 2);
  save(70, 2);
  EXPECT_THAT(entries(), ElementsAre("step-000060", "step-000070"));
  EXPECT_EQ(Checkpoint(folder_.path()).info().step, 70);
}

TEST_F(CheckpointTest, OpensTheNewestOfARun) {
  save(1);
  save(2);
  for (const auto& path :
       {folder_.path(), folder_ / "checkpoints", folder_ / "checkpoints" / "step-000002"}) {
    EXPECT_EQ(Checkpoint(path).info().step, 2) << path;
  }
}

TEST_F(CheckpointTest, SkipsTornOnesAndSaysWhy) {
  save(1, 5);
  const fs::path torn = save(2, 5);
  fs::resize_file(torn / "state.h5", fs::file_size(torn / "state.h5") / 2);
  fs::create_directories(folder_ / "checkpoints" / "step-000003");
  ::testing::internal::CaptureStdout();
  const auto latest = latest_checkpoint(folder_.path());
  EXPECT_THAT(::testing::internal::GetCapturedStdout(),
              AllOf(HasSubstr("step-000003/state.h5: does not exist"),
                    HasSubstr("step-000002/state.h5: not a readable HDF5")));
  ASSERT_TRUE(latest.has_value());
  EXPECT_EQ(latest->filename(), "step-000001");
}

TEST_F(CheckpointTest, ARunWithoutCheckpointHasNoLatest) {
  EXPECT_EQ(latest_checkpoint(folder_ / "nowhere"), std::nullopt);
  EXPECT_THAT(error_of([&] { Checkpoint{folder_.path()}; }),
              HasSubstr("holds no complete checkpoint"));
  EXPECT_THAT(error_of([&] { Checkpoint{folder_ / "nowhere"}; }), HasSubstr("does not exist"));
}

TEST_F(CheckpointTest, FindsAFlippedByteAndNamesTheDataset) {
  const fs::path file = save(1) / "state.h5";
  std::string bytes = read_file(file);
  const at::Tensor weight = some_tensors().at("model/param/weight");
  const std::string_view needle(static_cast<const char*>(weight.const_data_ptr()), weight.nbytes());
  const size_t at = bytes.find(needle);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 17] ^= 1;
  std::ofstream(file, std::ios::binary) << bytes;
  const Checkpoint checkpoint(folder_.path());
  EXPECT_THAT(
      error_of([&] { checkpoint.read("model/param/weight"); }),
      AllOf(HasSubstr(file.string()), HasSubstr("dataset 'model/param/weight' is damaged")));
  EXPECT_NO_THROW(checkpoint.read("model/param/bias"));
}

TEST_F(CheckpointTest, AFlippedByteAnywhereIsFoundOrChangesNothing) {
  const fs::path file = save(1) / "state.h5";
  const std::string whole = read_file(file);
  int64_t found = 0, harmless = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    std::string bytes = whole;
    bytes[mix64(i) % bytes.size()] ^= static_cast<char>(1 << (i % 8));
    std::ofstream(file, std::ios::binary) << bytes;
    ::testing::internal::CaptureStdout();
    const auto latest = latest_valid_checkpoint(folder_.path(), *self_);
    ::testing::internal::GetCapturedStdout();
    if (!latest.has_value()) {
      ++found;
      continue;
    }
    ++harmless;  // between the objects of the file
    const Checkpoint checkpoint(*latest, Checkpoint::Verify::kSkip);
    EXPECT_EQ(checkpoint.info().config, info_at(1).config);
    EXPECT_EQ(checkpoint.info().fx, info_at(1).fx);
    for (const auto& [name, tensor] : some_tensors()) {
      ASSERT_TRUE(at::equal(checkpoint.read(name), tensor)) << name << ", flip " << i;
    }
  }
  EXPECT_GT(found, 200) << harmless << " of 400 were harmless";
}

TEST_F(CheckpointTest, RefusesFilesOfSomethingElse) {
  const fs::path step = folder_ / "checkpoints" / "step-000001";
  fs::create_directories(step);
  {
    hdf5::File file(step / "state.h5", hdf5::File::Mode::kCreate);
    file.write("latents", at::zeros({2}));
    file.close();
  }
  EXPECT_THAT(error_of([&] { Checkpoint{step}; }), HasSubstr("is no checkpoint of minwm train"));
}

TEST_F(CheckpointTest, RefusesAFormatFromTheFuture) {
  const fs::path step = save(1);
  {
    hdf5::File file(step / "state.h5", hdf5::File::Mode::kReadWrite);
    file.write_attribute("/", "version", int64_t{2});
    file.close();
  }
  EXPECT_THAT(error_of([&] { Checkpoint{step}; }), HasSubstr("checkpoint format 2, expected 1"));
}

TEST_F(CheckpointTest, LoadsTheAverageUnlessAskedForTheWeights) {
  save(1);
  const Checkpoint checkpoint(folder_.path());
  Pair model;
  checkpoint.load_model(model);
  EXPECT_TRUE(at::equal(model.weight, some_tensors().at("model/ema/weight")));
  checkpoint.load_model(model, false);
  EXPECT_TRUE(at::equal(model.weight, some_tensors().at("model/param/weight")));
}

TEST_F(CheckpointTest, LoadsTheWeightsWhereThereIsNoAverage) {
  auto tensors = some_tensors();
  std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("model/ema/"); });
  save_checkpoint(folder_ / "checkpoints", info_at(1), tensors, {}, 2, *self_);
  Pair model;
  Checkpoint(folder_.path()).load_model(model);
  EXPECT_TRUE(at::equal(model.bias, tensors.at("model/param/bias")));
}

TEST_F(CheckpointTest, NamesAParameterThatTheModelLacks) {
  auto tensors = some_tensors();
  tensors["model/ema/extra"] = at::zeros({1});
  save_checkpoint(folder_ / "checkpoints", info_at(1), tensors, {}, 2, *self_);
  Pair model;
  const Checkpoint checkpoint(folder_.path());
  EXPECT_THAT(error_of([&] { checkpoint.load_model(model); }), HasSubstr("'extra'"));
}

TEST_F(CheckpointTest, AFullDiskLeavesTheOlderCheckpointAndNoHalfOne) {
  save(1);
  // A file size limit stands in for the full disk: the same write fails.
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto former = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = limit;
  small.rlim_cur = 64 * 1024;
  ::setrlimit(RLIMIT_FSIZE, &small);
  auto tensors = some_tensors();
  tensors["model/param/large"] = at::zeros({200, 1000});
  const std::string message = error_of(
      [&] { save_checkpoint(folder_ / "checkpoints", info_at(2), tensors, {}, 1, *self_); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, former);
  EXPECT_THAT(message, AllOf(HasSubstr("checkpoint of step 2 was not saved"), HasSubstr("state.h5"),
                             HasSubstr("File too large")));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0);
  EXPECT_THAT(entries(), ElementsAre("step-000001"));
  EXPECT_TRUE(at::equal(Checkpoint(folder_.path()).read("model/param/weight"),
                        some_tensors().at("model/param/weight")));
}

}  // namespace
}  // namespace minwm::train
