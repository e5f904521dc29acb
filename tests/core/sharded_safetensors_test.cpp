#include "minwm/core/sharded_safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/files.h"
#include "temporary_folder.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

using Named = std::vector<std::pair<std::string, at::Tensor>>;

std::vector<TensorEntry> entries_of(const Named& tensors) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) {
    entries.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  return entries;
}

fs::path write(const fs::path& folder, const Named& tensors, int64_t limit) {
  return write_sharded_safetensors(folder, entries_of(tensors),
                                   [&](size_t i) { return tensors[i].second; },
                                   {.max_shard_size = limit, .metadata = {{"format", "pt"}}});
}

/// Three tensors of 40, 40 and 12 bytes.
Named three() {
  return {{"b", at::arange(10).to(at::kFloat)},
          {"a", at::arange(20).to(at::kBFloat16).view({4, 5})},
          {"c", at::arange(3).to(at::kInt)}};
}

TEST(ShardedSafetensors, TensorsComeBackFromAnyNumberOfShards) {
  const Named tensors = three();
  for (const int64_t limit : {0, 1, 40, 55, 92, 1000}) {
    const TemporaryFolder folder;
    const ShardedSafetensors file(write(folder.path(), tensors, limit));
    EXPECT_THAT(file.names(), ElementsAre("a", "b", "c"));
    for (const auto& [name, expected] : tensors) {
      EXPECT_EQ(file.dtype(name), expected.scalar_type());
      EXPECT_EQ(file.shape(name), expected.sizes().vec());
      EXPECT_TRUE(file.view(name).equal(expected)) << name << " at limit " << limit;
    }
    EXPECT_EQ(file.metadata().at("format"), "pt");
    const size_t shards = limit == 0 || limit >= 92 ? 1 : limit >= 55 ? 2 : 3;
    EXPECT_EQ(file.shard_count(), shards) << limit;
    EXPECT_EQ(folder.entries(), shards == 1 ? 1 : static_cast<int64_t>(shards) + 1);
  }
}

TEST(ShardedSafetensors, ShardsAndIndexHaveTheNamesAndFieldsOfModelHubs) {
  const TemporaryFolder folder;
  EXPECT_EQ(write(folder.path(), three(), 55), folder / "model.safetensors.index.json");
  const auto index = nlohmann::json::parse(read_file(folder / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 92);
  EXPECT_EQ(index["weight_map"]["b"], "model-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["c"], "model-00002-of-00002.safetensors");
}

TEST(ShardedSafetensors, NamesTheShardThatIsMissingOrTruncated) {
  const TemporaryFolder folder;
  const fs::path index = write(folder.path(), three(), 55);
  const fs::path shard = folder / "model-00002-of-00002.safetensors";
  const std::string bytes = read_file(shard);
  atomic_write(shard, bytes.substr(0, bytes.size() - 4));
  EXPECT_THAT(error_of([&] { ShardedSafetensors file(index); }),
              AllOf(HasSubstr("model-00002-of-00002.safetensors"), HasSubstr("truncated")));
  fs::remove(shard);
  EXPECT_THAT(error_of([&] { ShardedSafetensors file(index); }),
              HasSubstr("the shard model-00002-of-00002.safetensors is missing"));
}

TEST(ShardedSafetensors, NamesATensorOnWhichIndexAndShardDisagree) {
  const TemporaryFolder folder;
  const fs::path index = write(folder.path(), three(), 55);
  auto json = nlohmann::json::parse(read_file(index));
  json["weight_map"]["d"] = "model-00001-of-00002.safetensors";
  atomic_write(index, json.dump());
  EXPECT_THAT(error_of([&] { ShardedSafetensors file(index); }),
              HasSubstr("lists tensor 'd' in model-00001-of-00002.safetensors, which does not"));
  json["weight_map"].erase("d");
  json["weight_map"].erase("a");
  atomic_write(index, json.dump());
  EXPECT_THAT(error_of([&] { ShardedSafetensors file(index); }),
              HasSubstr("holds tensor 'a', which the index does not list there"));
}

TEST(ShardedSafetensors, RefusesAnIndexThatIsNoneOrReachesOutOfItsFolder) {
  const TemporaryFolder folder;
  const fs::path index = folder / "x.safetensors.index.json";
  for (const auto& [text, reason] : {std::pair{"{", "not valid JSON"},
                                     {"[]", "weight_map"},
                                     {"{\"weight_map\": 3}", "weight_map"},
                                     {"{\"weight_map\": {}}", "weight_map is empty"},
                                     {"{\"weight_map\": {\"a\": \"../x\"}}", "beside the index"},
                                     {"{\"weight_map\": {\"a\": \"/etc/x\"}}", "beside the index"},
                                     {"{\"weight_map\": {\"a\": \"..\"}}", "beside the index"},
                                     {"{\"weight_map\": {\"a\": 1}}", "beside the index"}}) {
    atomic_write(index, text);
    EXPECT_THAT(error_of([&] { ShardedSafetensors file(index); }), HasSubstr(reason)) << text;
  }
}

TEST(ShardedSafetensors, AFailedWriteLeavesNothingBehind) {
  const TemporaryFolder folder;
  const Named tensors = three();
  const auto failing = [&](const std::function<at::Tensor(size_t)>& read) {
    return error_of([&] {
      write_sharded_safetensors(folder.path(), entries_of(tensors), read, {.max_shard_size = 1});
    });
  };
  EXPECT_THAT(failing([&](size_t i) -> at::Tensor {
                require(i < 2, "the source broke");
                return tensors[i].second;
              }),
              HasSubstr("the source broke"));
  EXPECT_THAT(failing([&](size_t i) { return tensors[i].second.to(at::kDouble); }),
              AllOf(HasSubstr("tensor 'b' turned out Double"), HasSubstr("expected Float")));
  EXPECT_EQ(folder.entries(), 0);
  EXPECT_THAT(error_of([&] {
                write(folder.path(), {tensors[0], tensors[0]}, 1);
              }),
              HasSubstr("tensor 'b' is given twice"));
  EXPECT_EQ(folder.entries(), 0);
}

TEST(ShardedSafetensors, TensorsAreAskedForOneByOneInTheirOrder) {
  const TemporaryFolder folder;
  const Named tensors = three();
  std::vector<size_t> asked;
  at::Tensor previous;
  write_sharded_safetensors(folder.path(), entries_of(tensors),
                            [&](size_t i) {
                              asked.push_back(i);
                              // Nobody but this test holds the one before: it could be gone.
                              EXPECT_TRUE(!previous.defined() || previous.use_count() == 1);
                              previous = tensors[i].second.clone();
                              return previous;
                            },
                            {.max_shard_size = 55});
  EXPECT_THAT(asked, ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace minwm
