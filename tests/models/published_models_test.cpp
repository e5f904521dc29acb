// Published transformers recognised by their names and shapes, at full size: sparse files that take
// no room.

#include "minwm/models/upstream.h"

#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/files.h"
#include "minwm/core/safetensors.h"
#include "minwm/models/upstream_config.h"
#include "minwm/models/wan/diffusers_names.h"
#include "minwm/models/weights_file.h"
#include "tests/core/temporary_folder.h"

namespace minwm::models {
namespace {

namespace fs = std::filesystem;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

/// A safetensors file of zeros with a preset's parameters in bfloat16, but for those whose names
/// hold `without`.
fs::path publish(const fs::path& path, const std::string& preset, const std::string& without = "") {
  auto header = nlohmann::ordered_json::object();
  int64_t offset = 0;
  for (const auto& item : make_hollow_backbone(preset)->named_parameters()) {
    if (without.empty() || item.key().find(without) == std::string::npos) {
      const int64_t end = offset + 2 * item.value().numel();
      header[item.key()] = {{"dtype", "BF16"},
                            {"shape", item.value().sizes().vec()},
                            {"data_offsets", {offset, end}}};
      offset = end;
    }
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string begin(8, '\0');
  std::memcpy(begin.data(), &length, 8);
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << begin << text;
  fs::resize_file(path, 8 + length + static_cast<uint64_t>(offset));
  return path;
}

TEST(Upstream, EveryPublishedSizeIsRecognised) {
  for (const char* preset : {"wan-1.3b", "wan-14b", "wan-14b-i2v", "wan-small", "hy-8b",
                             "hy-8b-ti2v", "hy-8b-worldplay", "hy-8b@3", "wan-1.3b@2"}) {
    const TemporaryFolder folder;
    const Upstream found = open_upstream(publish(folder / "x.safetensors", preset));
    EXPECT_EQ(found.preset, preset);
    EXPECT_TRUE(found.zero.empty());
    EXPECT_EQ(type_of(found.source, found.source.shapes.begin()->first), at::kBFloat16);
  }
}

TEST(Upstream, ABaseModelIsAModelWithoutCamerasOrOneWhoseCamerasAreZero) {
  const TemporaryFolder folder;
  const Upstream wan = open_upstream(publish(
      folder / "Wan2.1-T2V-1.3B" / "diffusion_pytorch_model.safetensors", "wan-1.3b", "prope_o"));
  EXPECT_EQ(wan.preset, "wan-1.3b");
  EXPECT_EQ(wan.stage, "bidirectional");
  EXPECT_EQ(wan.source.shapes.size(), 885);
  EXPECT_EQ(wan.zero.size(), 60);
  EXPECT_EQ(read_whole(wan.source, wan.zero.front()).scalar_type(), at::kBFloat16);
  const fs::path hy =
      publish(folder / "480p_i2v" / "diffusion_pytorch_model.safetensors", "hy-8b", "prope_proj");
  EXPECT_EQ(open_upstream(hy).preset, "hy-8b-ti2v");
  EXPECT_EQ(open_upstream(hy, "", "hy-8b").zero.size(), 108);
}

TEST(Upstream, PublishedCheckpointsStreamAsTheyWereTrained) {
  const auto dmd = published_switches("hy-8b", "dmd");
  EXPECT_TRUE(dmd.rope_only_history);
  EXPECT_FALSE(dmd.context_action);
  EXPECT_FALSE(published_switches("hy-8b", "teacher-forcing").rope_only_history);
  EXPECT_FALSE(published_switches("hy-8b-ti2v", "dmd").rope_only_history);
  EXPECT_FALSE(published_switches("wan-1.3b", "dmd").rope_only_history);
  EXPECT_TRUE(published_switches("hy-8b-worldplay", "teacher-forcing").context_action);
}

TEST(Upstream, TheInnermostPublishedFolderNamesTheStage) {
  EXPECT_EQ(published_stage("ckpts/HY15/Action2V/dmd/transformer"), "dmd");
  EXPECT_EQ(published_stage("ckpts/Wan21/Action2V/causal_cd/"), "consistency");
  EXPECT_EQ(published_stage("HY-WorldPlay/ar_model"), "teacher-forcing");
  EXPECT_EQ(published_stage("bidirectional/then/stage2_ar_ode"), "ode");
  EXPECT_EQ(published_stage("dmd-tests/mine"), "");
}

TEST(Upstream, AHyFolderIsReadThroughItsTransformerFolder) {
  const TemporaryFolder folder;
  const fs::path run = folder / "dmd" / "checkpoint-300";
  publish(run / "transformer" / "diffusion_pytorch_model.safetensors", "hy-tiny");
  atomic_write(run / "transformer" / "config.json",
               upstream_config(*make_hollow_backbone("hy-tiny")));
  const Upstream found = open_upstream(run);
  EXPECT_EQ(found.preset, "hy-tiny");
  EXPECT_EQ(found.stage, "dmd");
  EXPECT_EQ(found.step, 300);
  auto config = nlohmann::json::parse(read_file(run / "transformer" / "config.json"));
  config["mm_single_blocks_depth"] = 2;
  config["a_key_of_tomorrow"] = true;
  atomic_write(run / "transformer" / "config.json", config.dump());
  EXPECT_THAT(error_of([&] { open_upstream(run); }),
              HasSubstr("config.json: mm_single_blocks_depth is 2, hy-tiny has 0"));
}

TEST(Upstream, WidthsThatNoPresetHasAreSaid) {
  const TemporaryFolder folder;
  const fs::path path = folder / "x.safetensors";
  write_safetensors(path, {{"patch_embedding.weight", at::ones({24, 16, 1, 2, 2})},
                           {"blocks.0.modulation", at::ones({1, 6, 24})}});
  EXPECT_THAT(error_of([&] { open_upstream(path); }),
              HasSubstr("a wan transformer of width 24 with 1 blocks: no preset is that wide"));
}

TEST(Upstream, DiffusersNamesOfWanBecomeThePublishedOnes) {
  ParameterSource theirs;
  theirs.where = "x";
  for (const char* name :
       {"patch_embedding.weight", "condition_embedder.time_proj.weight",
        "condition_embedder.time_embedder.linear_2.bias", "blocks.7.attn1.to_out.0.weight",
        "blocks.7.attn2.add_k_proj.weight", "blocks.7.attn2.norm_added_k.weight",
        "blocks.7.attn1.norm_q.weight", "blocks.7.norm2.bias", "blocks.7.ffn.net.0.proj.weight",
        "blocks.7.scale_shift_table", "scale_shift_table", "proj_out.bias"}) {
    theirs.shapes[name] = {1};
  }
  theirs.read = [](const std::string& name, int64_t, int64_t) {
    return at::full({1}, static_cast<int64_t>(name.size()), at::kLong);
  };
  ASSERT_TRUE(has_wan_diffusers_names(theirs));
  const ParameterSource ours = from_wan_diffusers(theirs);
  std::vector<std::string> names;
  for (const auto& [name, shape] : ours.shapes) {
    names.push_back(name);
  }
  EXPECT_THAT(names,
              ::testing::UnorderedElementsAre(
                  "patch_embedding.weight", "time_projection.1.weight", "time_embedding.2.bias",
                  "blocks.7.self_attn.o.weight", "blocks.7.cross_attn.k_img.weight",
                  "blocks.7.cross_attn.norm_k_img.weight", "blocks.7.self_attn.norm_q.weight",
                  "blocks.7.norm3.bias", "blocks.7.ffn.0.weight", "blocks.7.modulation",
                  "head.modulation", "head.head.bias"));
  EXPECT_EQ(ours.read("head.head.bias", 0, 1).item<int64_t>(),
            static_cast<int64_t>(std::strlen("proj_out.bias")));
  theirs.shapes["head.modulation"] = {1};
  EXPECT_THAT(error_of([&] { from_wan_diffusers(theirs); }),
              HasSubstr("has 'head.modulation' twice"));
}

}  // namespace
}  // namespace minwm::models
