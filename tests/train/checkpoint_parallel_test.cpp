// Checkpoints of several ranks: parts, threads that write, files that came to harm.

#include <csignal>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/random.h"
#include "minwm/train/checkpoint.h"
#include "tests/comm/mpi_test.h"
#include "tests/core/small_disk.h"
#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::world;

/// A folder that all ranks see, removed when all are done with it.
class SharedFolder {
 public:
  explicit SharedFolder(std::shared_ptr<comm::Communicator> ranks) : ranks_(std::move(ranks)) {
    if (ranks_->rank() == 0) {
      mine_.emplace();
    }
    path_ = ranks_->broadcast_string(mine_ ? mine_->path().string() : "", 0, "folder");
  }
  ~SharedFolder() { ranks_->barrier("folder done"); }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  std::shared_ptr<comm::Communicator> ranks_;
  std::optional<testing::TemporaryFolder> mine_;
  fs::path path_;
};

const std::vector<std::vector<int64_t>> kShapes = {
    {37, 41}, {5, 3, 7, 11}, {1}, {}, {2, 1, 3}, {257, 64}, {13}, {2, 3, 1, 5, 2}, {0, 4}};

std::string name_of(size_t shape) {
  return fmt::format("model/param/{}", shape);
}

/// The tensors that are saved in parts.
TensorMap split_tensors(uint64_t seed) {
  TensorMap tensors;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    tensors[name_of(i)] = random_normal(kShapes[i], {seed, name_of(i)});
  }
  return tensors;
}

/// The tensors that all ranks hold; one is large enough to be written by all of them.
TensorMap whole_tensors(uint64_t seed) {
  return {{"critic/param/large", random_normal({300, 301}, {seed, "large"})},
          {"critic/param/small", random_normal({3, 5}, {seed, "small"})},
          {"counters/step", at::tensor(static_cast<int64_t>(seed), at::kLong)},
          {"counters/list", at::arange(70, at::kLong)},
          {"model/half", random_normal({7}, {seed, "half"}).to(at::kBFloat16)}};
}

/// This rank's parts: uneven, some empty, small tensors on one rank alone.
PartMap parts_of(const TensorMap& tensors, const comm::Communicator& ranks) {
  PartMap parts;
  int64_t index = 0;
  for (const auto& [name, tensor] : tensors) {
    const int64_t n = tensor.numel(), size = ranks.size(), r = ranks.rank();
    const auto cut = [&](int64_t rank) { return n * rank * rank / (size * size); };
    const bool alone = index++ % 3 == 0;
    const int64_t begin = alone ? 0 : cut(r);
    const int64_t end = alone ? (r == index % size ? n : 0) : cut(r + 1);
    parts[name] = {tensor.flatten().slice(0, begin, end), tensor.sizes().vec(), begin};
    if (begin == end) {
      parts[name] = {at::Tensor(), tensor.sizes().vec(), 0};
    }
  }
  return parts;
}

CheckpointInfo info_at(int64_t step) {
  CheckpointInfo info;
  info.step = step;
  info.model = "wan-tiny";
  info.stage = "teacher-forcing";
  info.config = "seed = 7\n";
  info.mesh = "replicate 1 x shard 2 x context 2";
  info.data_position = 17 * step;
  return info;
}

class ParallelCheckpointTest : public ::testing::Test {
 protected:
  CheckpointWriter writer(int64_t keep = 5, bool asynchronous = true) {
    return {folder_ / "checkpoints", keep, ranks_, asynchronous};
  }
  void save(CheckpointWriter& writer, int64_t step) {
    const auto seed = static_cast<uint64_t>(step);
    writer.save(info_at(step), whole_tensors(seed), parts_of(split_tensors(seed), *ranks_), {});
  }
  fs::path step_folder(int64_t step) const {
    return folder_ / "checkpoints" / fmt::format("step-{:06}", step);
  }
  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / "checkpoints")) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  /// The first `count` ranks as a group; the others form one of their own.
  std::shared_ptr<comm::Communicator> group_of(int count) const {
    return ranks_->split(ranks_->rank() < count ? 0 : 1);
  }
  bool is_first() const { return ranks_->rank() == 0; }
  /// Changes a file on rank 0 while the others wait.
  void spoil(const fs::path& file, const std::function<void(std::string&)>& change) {
    if (is_first()) {
      std::string bytes = read_file(file);
      change(bytes);
      std::ofstream(file, std::ios::binary) << bytes;
    }
    ranks_->barrier("spoilt");
  }

  std::shared_ptr<comm::Communicator> ranks_ = world().communicator();
  SharedFolder folder_{ranks_};
};

void expect_step(const fs::path& folder, int64_t step, const comm::Communicator& readers) {
  const Checkpoint checkpoint(folder, Checkpoint::Verify::kSkip);
  auto expected = split_tensors(static_cast<uint64_t>(step));
  expected.merge(whole_tensors(static_cast<uint64_t>(step)));
  EXPECT_EQ(checkpoint.names().size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_EQ(checkpoint.shape(name), tensor.sizes().vec()) << name;
    const int64_t n = tensor.numel();
    const int64_t begin = n * readers.rank() / readers.size();
    const int64_t end = n * (readers.rank() + 1) / readers.size();
    const at::Tensor read = checkpoint.read_range(name, begin, end - begin);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read, tensor.flatten().slice(0, begin, end))) << name;
  }
}

TEST_F(ParallelCheckpointTest, UnevenPartsComeBackBitForBitOnAnyNumberOfRanks) {
  for (const bool asynchronous : {false, true}) {
    const int64_t step = asynchronous ? 2 : 1;
    auto checkpoints = writer(5, asynchronous);
    save(checkpoints, step);
    checkpoints.wait();
    for (int readers = 1; readers <= ranks_->size(); ++readers) {
      const auto group = group_of(readers);
      expect_step(step_folder(step), step, *group);
      EXPECT_EQ(latest_valid_checkpoint(folder_.path(), *group), step_folder(step));
    }
    // Whole tensors are compared with their checksums.
    const Checkpoint checkpoint(folder_.path());
    for (const auto& [name, tensor] : split_tensors(static_cast<uint64_t>(step))) {
      EXPECT_TRUE(at::equal(checkpoint.read(name), tensor)) << name;
    }
    EXPECT_EQ(checkpoint.info().mesh, info_at(step).mesh);
    EXPECT_EQ(checkpoint.info().data_position, 17 * step);
    ranks_->barrier("read");
  }
}

TEST_F(ParallelCheckpointTest, TheFileIsTheSameForAnyNumberOfRanks) {
  auto checkpoints = writer();
  save(checkpoints, 1);
  checkpoints.wait();
  if (is_first()) {
    auto tensors = split_tensors(1);
    tensors.merge(whole_tensors(1));
    const auto self = comm::self_communicator();
    const fs::path alone = save_checkpoint(folder_ / "alone", info_at(1), tensors, {}, 1, *self);
    const Checkpoint mine(alone), theirs(step_folder(1));
    EXPECT_EQ(mine.names(), theirs.names());
    EXPECT_EQ(mine.checksums(), theirs.checksums());
  }
}

TEST_F(ParallelCheckpointTest, AFlippedByteIsNamedAndTheOlderOneTaken) {
  auto checkpoints = writer();
  save(checkpoints, 1);
  save(checkpoints, 2);
  checkpoints.wait();
  const at::Tensor large = whole_tensors(2).at("critic/param/large");
  spoil(step_folder(2) / "state.h5", [&](std::string& bytes) {
    const std::string_view needle(static_cast<const char*>(large.const_data_ptr()), large.nbytes());
    const size_t at = bytes.find(needle);
    ASSERT_NE(at, std::string::npos);
    bytes[at + large.nbytes() - 3] ^= 4;  // in the last rank's share
  });
  for (int readers = 1; readers <= ranks_->size(); ++readers) {
    const auto group = group_of(readers);
    ::testing::internal::CaptureStdout();
    EXPECT_EQ(latest_valid_checkpoint(folder_.path(), *group), step_folder(1));
    const std::string log = ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), group->rank() == 0 ? 1 : 0) << log;
    if (group->rank() == 0) {
      EXPECT_THAT(log, AllOf(HasSubstr("step-000002/state.h5: dataset 'critic/param/large' is "
                                       "damaged (its checksum is wrong)"),
                             ::testing::Not(HasSubstr("more"))));
    }
  }
}

TEST_F(ParallelCheckpointTest, WhateverIsAlteredOrTornIsSkipped) {
  auto checkpoints = writer();
  for (const int64_t step : {1, 2, 3, 4, 5}) {
    save(checkpoints, step);
  }
  checkpoints.wait();
  spoil(step_folder(5) / "config.ini", [](std::string& bytes) { bytes += "steps = 1\n"; });
  spoil(step_folder(4) / "state.h5", [](std::string& bytes) { bytes.resize(bytes.size() - 900); });
  spoil(step_folder(3) / "state.h5",
        [](std::string& bytes) { bytes[bytes.find("teacher-forcing")] = 'T'; });
  spoil(step_folder(2) / "state.h5", [](std::string& bytes) { bytes.clear(); });
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(latest_valid_checkpoint(folder_.path(), *ranks_), step_folder(1));
  const std::string log = ::testing::internal::GetCapturedStdout();
  if (is_first()) {
    EXPECT_THAT(log, AllOf(HasSubstr("step-000005/config.ini"), HasSubstr("step-000004/state.h5"),
                           HasSubstr("step-000003/state.h5"), HasSubstr("step-000002/state.h5")));
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 4) << log;
  }
  EXPECT_EQ(latest_valid_checkpoint(folder_ / "nowhere", *ranks_), std::nullopt);
}

TEST_F(ParallelCheckpointTest, TrainingGoesOnWhileAThreadWrites) {
  const fs::path codec = folder_ / "codec";
  if (is_first()) {
    ASSERT_EQ(::mkfifo(codec.c_str(), 0600), 0);
  }
  ranks_->barrier("pipe");
  auto checkpoints = writer();
  auto tensors = whole_tensors(1), split = split_tensors(1);
  // The first rank's thread cannot go on before this thread feeds the pipe.
  checkpoints.save(info_at(1), tensors, parts_of(split, *ranks_), {codec});
  for (auto* group : {&tensors, &split}) {
    for (auto& [name, tensor] : *group) {
      tensor.add_(1);  // an optimizer step; what is written was copied
    }
  }
  for (int step = 0; step < 20; ++step) {
    at::Tensor gradient = at::ones({1000});
    ranks_->all_reduce(gradient, "gradient");
    EXPECT_EQ(gradient[7].item<float>(), static_cast<float>(ranks_->size()));
    checkpoints.check();
  }
  EXPECT_FALSE(fs::exists(step_folder(1)));
  ranks_->barrier("looked");
  if (is_first()) {
    std::ofstream(codec) << "codec";
  }
  checkpoints.wait();
  EXPECT_EQ(read_file(step_folder(1) / "codec"), "codec");
  expect_step(step_folder(1), 1, *ranks_);
  EXPECT_EQ(latest_valid_checkpoint(folder_.path(), *ranks_), step_folder(1));
  // The buffers are used again.
  save(checkpoints, 2);
  checkpoints.wait();
  expect_step(step_folder(2), 2, *ranks_);
}

TEST_F(ParallelCheckpointTest, KeepsTheNewestAndRemovesWhatAKilledSaveLeft) {
  if (is_first()) {
    fs::create_directories(folder_ / "checkpoints" / "step-000900.tmp");
  }
  {
    auto checkpoints = writer(2);
    for (const int64_t step : {1, 2, 3, 4}) {
      save(checkpoints, step);
    }
  }  // the destructor waits for the last
  ranks_->barrier("written");
  EXPECT_THAT(entries(), ElementsAre("step-000003", "step-000004"));
}

/// While it lives, this process cannot write beyond `bytes` of any file.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(uint64_t bytes) : former_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &limit_);
    rlimit small = limit_;
    small.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &limit_);
    std::signal(SIGXFSZ, former_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*former_)(int);
  rlimit limit_{};
};

TEST_F(ParallelCheckpointTest, AWriteThatFailsOnOneRankFailsOnAllAndTheNextSaveWorks) {
  for (const bool asynchronous : {false, true}) {
    auto checkpoints = writer(5, asynchronous);
    save(checkpoints, 1);
    checkpoints.wait();
    const int last = ranks_->size() - 1;
    std::string message;
    {
      std::optional<FileSizeLimit> limit;
      if (ranks_->rank() == last) {
        limit.emplace(1 << 20);
      }
      const TensorMap large = {{"model/large", at::ones({1 << 20})}};
      message = error_of([&] {
        checkpoints.save(info_at(2), large, {}, {});
        checkpoints.wait();
      });
    }
    EXPECT_THAT(message, AllOf(HasSubstr("checkpoint of step 2 was not saved; older ones are "
                                         "untouched: "),
                               HasSubstr("state.h5: cannot")));
    EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0) << message;
    if (ranks_->size() > 1) {
      EXPECT_THAT(message, HasSubstr(fmt::format("rank {}: ", last)));
    }
    ranks_->barrier("failed");
    EXPECT_THAT(entries(), ElementsAre("step-000001"));
    ranks_->barrier("looked");
    checkpoints.wait();  // nothing is in flight any more
    save(checkpoints, 3);
    checkpoints.wait();
    expect_step(step_folder(3), 3, *ranks_);
    ranks_->barrier("read");
    if (is_first()) {
      fs::remove_all(step_folder(3));
    }
    ranks_->barrier("removed");
  }
}

TEST_F(ParallelCheckpointTest, AFullDiskIsToldBeforeAnythingIsWritten) {
  std::optional<testing::SmallDisk> disk;
  if (is_first()) {
    disk.emplace(folder_ / "small", "1m");
  }
  if (ranks_->all_reduce_max(disk && disk->mounted() ? 1 : 0, "mounted") == 0) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  const fs::path small = folder_ / "small" / "checkpoints";
  CheckpointWriter checkpoints(small, 5, ranks_, true);
  checkpoints.save(info_at(1), {{"model/small", at::ones({1000})}}, {}, {});
  checkpoints.save(info_at(2), {{"model/large", at::ones({1 << 20})}}, {}, {});
  EXPECT_THAT(error_of([&] { checkpoints.wait(); }),
              AllOf(HasSubstr("step-000002.tmp"), HasSubstr("No space left on device"),
                    HasSubstr("4195328 bytes are needed")));
  EXPECT_EQ(latest_valid_checkpoint(small, *ranks_), small / "step-000001");
  EXPECT_FALSE(fs::exists(small / "step-000002.tmp"));
  ranks_->barrier("looked");
}

TEST_F(ParallelCheckpointTest, WhatDoesNotFitTogetherIsOneErrorOnEveryRank) {
  auto checkpoints = writer();
  const auto refused = [&](const TensorMap& whole, const PartMap& parts) {
    return error_of([&] {
      checkpoints.save(info_at(1), whole, parts, {});
      checkpoints.wait();
    });
  };
  const int64_t size = ranks_->size();
  // Every rank holds 5 of 10 elements more than there are ranks for.
  EXPECT_THAT(refused({}, {{"model/x", {at::ones({5}), {10 * size}, 0}}}),
              HasSubstr(fmt::format("checkpoint tensor 'model/x': the ranks hold {} elements of "
                                    "its {}",
                                    5 * size, 10 * size)));
  EXPECT_THAT(refused({}, {{"model/x", {at::ones({5}), {2, 2}, 0}}}),
              HasSubstr("'model/x': elements 0 to 5 are outside of its 2 x 2"));
  EXPECT_THAT(refused({{"model/x", at::ones({2})}}, {{"model/x", {at::ones({2}), {2}, 0}}}),
              HasSubstr("'model/x': is given whole and in parts"));
  EXPECT_THAT(refused({}, {{"model/x", {at::ones({3}).to(at::kHalf), {9}, 1}}}),
              HasSubstr("are not cut at whole words of 4 bytes"));
  if (size > 1) {
    EXPECT_THAT(refused({{fmt::format("model/{}", ranks_->rank()), at::ones({2})}}, {}),
                HasSubstr("the ranks do not agree on the names, types, shapes"));
  }
  EXPECT_FALSE(fs::exists(step_folder(1)));
}

}  // namespace
}  // namespace minwm::train
