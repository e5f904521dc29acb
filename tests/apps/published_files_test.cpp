// `minwm convert --check` on downloads that are complete, cut short or not there.

#include "src/apps/published_files.h"

#include <fstream>

#include <ATen/ATen.h>

#include "minwm/core/files.h"
#include "minwm/core/safetensors.h"
#include "tests/apps/small_model.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_minwm;
using testing::TemporaryFolder;

using apps::check_published_files;

std::string lines(const fs::path& folder, const std::string& model, bool hashes = false) {
  return check_published_files(folder, model, hashes).text;
}

/// A file of this many bytes that takes no room on the disk.
void make_sparse(const fs::path& path, uint64_t bytes, const std::string& begin = "",
                 const std::string& end = "") {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << begin;
  fs::resize_file(path, bytes - end.size());
  std::ofstream(path, std::ios::binary | std::ios::app) << end;
}

/// A safetensors file with one tensor of so many zero bytes.
void make_weights(const fs::path& path, int64_t bytes) {
  const std::string header =
      fmt::format(R"({{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}})", bytes);
  std::string begin(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(begin.data(), &length, 8);
  make_sparse(path, 8 + length + static_cast<uint64_t>(bytes), begin + header);
}

/// A whole download of the Wan line, all zeros.
void download_wan(const fs::path& root) {
  const fs::path wan = root / "Wan2.1-T2V-1.3B";
  const std::string zip_end = "PK\x05\x06" + std::string(18, '\0');
  make_weights(wan / "diffusion_pytorch_model.safetensors", int64_t{4} * 1'418'996'800);
  atomic_write(wan / "config.json", "{}");
  make_sparse(wan / "Wan2.1_VAE.pth", 507'600'000, "", zip_end);
  make_sparse(wan / "models_t5_umt5-xxl-enc-bf16.pth", 11'361'920'418, "", zip_end);
  const fs::path tokenizer = wan / "google" / "umt5-xxl";
  make_sparse(tokenizer / "spiece.model", 4'548'313);
  atomic_write(tokenizer / "tokenizer.json", "1" + std::string(16'837'416, ' '));
  atomic_write(tokenizer / "special_tokens_map.json", "1" + std::string(6'622, ' '));
  atomic_write(tokenizer / "tokenizer_config.json", "1" + std::string(61'727, ' '));
}

TEST(PublishedFiles, AnEmptyFolderLacksEverythingAndSaysWhereItIs) {
  const TemporaryFolder folder;
  const auto wan = check_published_files(folder.path(), "wan-1.3b", false);
  EXPECT_THAT(wan.text,
              AllOf(HasSubstr("missing   Wan2.1-T2V-1.3B/models_t5_umt5-xxl-enc-bf16.pth  from "
                              "Wan-AI/Wan2.1-T2V-1.3B\n"),
                    HasSubstr("absent    Wan21/Action2V/dmd/model.pt  optional  from "
                              "MIN-Lab/minWM\n"),
                    Not(HasSubstr("Hunyuan")), Not(HasSubstr("http"))));
  EXPECT_EQ(wan.known, 14);
  EXPECT_EQ(wan.missing, 8);
  EXPECT_EQ(wan.bad, 0);
  EXPECT_THAT(lines(folder.path(), "hy-8b"),
              AllOf(HasSubstr("from Qwen/Qwen2.5-VL-7B-Instruct"),
                    HasSubstr("from black-forest-labs/FLUX.1-Redux-dev"),
                    HasSubstr("from tencent/HunyuanVideo-1.5"), Not(HasSubstr("Wan2.1")),
                    Not(HasSubstr("WorldPlay"))));
  EXPECT_THAT(lines(folder.path(), "hy-8b-worldplay"),
              AllOf(HasSubstr("from tencent/HY-WorldPlay"), HasSubstr("from Qwen/")));
}

TEST(PublishedFiles, TheCommandFailsWhenSomethingIsMissing) {
  const TemporaryFolder folder;
  const auto outcome =
      run_minwm(fmt::format("convert --check {} --model wan-1.3b", folder.path().string()));
  EXPECT_EQ(outcome.code, kExitBadInput);
  EXPECT_EQ(outcome.out, lines(folder.path(), "wan-1.3b"));
  EXPECT_THAT(outcome.err,
              HasSubstr("8 of 14 files of wan-1.3b are missing, 0 truncated or damaged"));
}

TEST(PublishedFiles, AWholeDownloadIsCompleteAndAnyFileCutShortIsNot) {
  const TemporaryFolder folder;
  download_wan(folder.path());
  const auto whole = check_published_files(folder.path(), "wan-1.3b", false);
  EXPECT_EQ(whole.missing + whole.bad, 0) << whole.text;
  EXPECT_THAT(whole.text,
              HasSubstr("present   Wan2.1-T2V-1.3B/models_t5_umt5-xxl-enc-bf16.pth  11361920418"));
  const fs::path wan = folder / "Wan2.1-T2V-1.3B";
  for (const char* name : {"diffusion_pytorch_model.safetensors", "Wan2.1_VAE.pth",
                           "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json"}) {
    const auto size = fs::file_size(wan / name);
    fs::resize_file(wan / name, size - 1'000'000);
    const auto cut = check_published_files(folder.path(), "wan-1.3b", false);
    EXPECT_THAT(cut.text, HasSubstr(fmt::format("truncated Wan2.1-T2V-1.3B/{}  {} bytes, expected",
                                                name, size - 1'000'000)));
    EXPECT_EQ(cut.bad, 1);
    fs::remove_all(wan);
    download_wan(folder.path());
  }
}

TEST(PublishedFiles, DamageThatLeavesTheSizeIsFound) {
  const TemporaryFolder folder;
  download_wan(folder.path());
  const fs::path wan = folder / "Wan2.1-T2V-1.3B";
  // Longer than its tensors must be, but not a zip file to its end.
  make_sparse(wan / "Wan2.1_VAE.pth", 507'600'000);
  EXPECT_THAT(lines(folder.path(), "wan-1.3b"),
              AllOf(HasSubstr("damaged   Wan2.1-T2V-1.3B/Wan2.1_VAE.pth  has no zip directory"),
                    HasSubstr("present   Wan2.1-T2V-1.3B/google/umt5-xxl/spiece.model")));
  fs::remove(wan / "models_t5_umt5-xxl-enc-bf16.pth");  // eleven gigabytes of zeros to hash
  EXPECT_THAT(lines(folder.path(), "wan-1.3b", true),
              HasSubstr("damaged   Wan2.1-T2V-1.3B/google/umt5-xxl/spiece.model  sha256 "));
}

TEST(PublishedFiles, AMissingShardIsFoundThroughItsIndex) {
  const TemporaryFolder folder;
  const fs::path llm = folder / "HunyuanVideo-1.5" / "text_encoder" / "llm";
  atomic_write(llm / "model.safetensors.index.json",
               R"({"weight_map": {"a": "model-00001-of-00005.safetensors"}})");
  EXPECT_THAT(
      lines(folder.path(), "hy-8b"),
      AllOf(HasSubstr("damaged   HunyuanVideo-1.5/text_encoder/llm/model.safetensors.index"),
            HasSubstr("the shard model-00001-of-00005.safetensors is missing")));
}

TEST(PublishedFiles, RealTokenizerFilesHaveTheHashesOfTheManifest) {
  const fs::path data = fs::path(MINWM_SHARED_DATA) / "data" / "tokenizers" / "qwen2_5";
  if (!fs::exists(data / "vocab.json")) {
    GTEST_SKIP() << "no shared data: tokenizers/qwen2_5";
  }
  const TemporaryFolder folder;
  const fs::path llm = folder / "HunyuanVideo-1.5" / "text_encoder" / "llm";
  fs::create_directories(llm);
  fs::copy(data / "vocab.json", llm);
  fs::copy(data / "merges.txt", llm);
  EXPECT_THAT(lines(folder.path(), "hy-8b", true),
              AllOf(HasSubstr("llm/vocab.json  2776833 bytes, sha256 as published"),
                    HasSubstr("llm/merges.txt  1671853 bytes, sha256 as published")));
}

TEST(PublishedFiles, RefusesWhatHasNoFiles) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { check_published_files(folder.path(), "wan-tiny", false); }),
              HasSubstr("--model wan-tiny: nothing is published"));
  EXPECT_THAT(error_of([&] { check_published_files(folder / "absent", "hy-8b", false); }),
              HasSubstr("is no folder"));
}

}  // namespace
}  // namespace minwm
