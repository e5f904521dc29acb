#include "minwm/data/manifest.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/files.h"
#include "minwm/data/video.h"
#include "tests/core/temporary_folder.h"

namespace minwm::data {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

/// A clip of 9 frames, 3 cameras that walk forward.
ManifestEntry entry(const std::string& id) {
  ManifestEntry out;
  out.sample_id = id;
  out.video = "videos/" + id + ".mp4";
  out.caption = "a \"red\" wall, grüne Wiese";
  out.trajectory = "w*2";
  out.source = "world:7";
  out.width = 16;
  out.height = 12;
  out.fps = 16;
  out.frames = 9;
  out.world_to_camera = at::eye(4, at::kDouble).repeat({3, 1, 1});
  for (int64_t t = 0; t < 3; ++t) {
    out.world_to_camera[t][2][3] = -0.08 * static_cast<double>(t) / 3;
  }
  out.intrinsics = at::eye(3, at::kDouble);
  out.intrinsics[0][2] = out.intrinsics[1][2] = 0.5;
  return out;
}

TEST(Manifest, ClipsComeBackSortedAndExact) {
  const TemporaryFolder folder;
  ManifestEntry held = entry("a");
  held.frame_indices = {0, 0, 1, 1, 2, 2, 3, 3, 4};
  held.scale = 0.1;
  write_manifest(folder.path(), {entry("b"), held});
  const auto clips = read_manifest(folder.path());
  ASSERT_EQ(clips.size(), 2);
  EXPECT_EQ(clips[0].sample_id, "a");
  EXPECT_THAT(clips[0].frame_indices, ElementsAre(0, 0, 1, 1, 2, 2, 3, 3, 4));
  EXPECT_EQ(clips[0].scale, 0.1);
  EXPECT_EQ(clips[1].caption, held.caption);
  EXPECT_EQ(clips[1].video, "videos/b.mp4");
  EXPECT_EQ(clips[1].latent_frames(), 3);
  EXPECT_TRUE(clips[1].frame_indices.empty());
  EXPECT_TRUE(at::equal(clips[0].world_to_camera, held.world_to_camera));
  EXPECT_TRUE(at::equal(clips[0].intrinsics, held.intrinsics));
}

TEST(Manifest, WhatIsNotValidIsNeitherWrittenNorRead) {
  const std::vector<std::pair<std::string, std::function<void(ManifestEntry&)>>> cases = {
      {"file name without slashes", [](auto& e) { e.sample_id = "a/b"; }},
      {"8 frames, expected 1 + 4 m", [](auto& e) { e.frames = 8; }},
      {"3 cameras for 13 frames, expected 4", [](auto& e) { e.frames = 13; }},
      {"never decrease", [](auto& e) { e.frame_indices = {0, 1, 2, 3, 2, 5, 6, 7, 8}; }},
      {"2 frame_indices for 9 frames",
       [](auto& e) {
         e.frame_indices = {0, 1};
       }},
      {"0 frames per second", [](auto& e) { e.fps = 0; }},
      {"scale -1", [](auto& e) { e.scale = -1; }},
      {"latent frame 2 moves 1.5", [](auto& e) { e.world_to_camera[2][0][3] = 1.5; }},
      {"first camera differs from the identity", [](auto& e) { e.world_to_camera[0][0][3] = .1; }},
      {"world_to_camera", [](auto& e) { e.world_to_camera[1][0][0] = 1.01; }},
      {"world_to_camera",
       [](auto& e) { e.world_to_camera[1][0][3] = std::numeric_limits<double>::quiet_NaN(); }},
      {"fx 6", [](auto& e) { e.intrinsics[0][0] = 6; }},
      {"not finite",
       [](auto& e) { e.intrinsics[0][2] = std::numeric_limits<double>::infinity(); }}};
  for (const auto& [reason, spoil] : cases) {
    const TemporaryFolder folder;
    ManifestEntry bad = entry("clip");
    spoil(bad);
    EXPECT_THAT(error_of([&] {
                  write_manifest(folder.path(), {entry("a"), bad});
                }),
                AllOf(HasSubstr("clip"), HasSubstr(reason)));
    EXPECT_EQ(folder.entries(), 0);
  }
}

TEST(Manifest, TurningTooFastIsRefused) {
  ManifestEntry bad = entry("spin");
  const double c = std::cos(0.4), s = std::sin(0.4);  // 23 degrees
  bad.world_to_camera[1] =
      at::tensor({c, 0., s, 0., 0., 1., 0., 0., -s, 0., c, 0., 0., 0., 0., 1.}, at::kDouble)
          .view({4, 4});
  EXPECT_THAT(error_of([&] { require_valid(bad); }), HasSubstr("turns 22.9 degrees"));
}

TEST(Manifest, DamagedFilesAreOneLineNamingTheField) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { (void)read_manifest(folder / "none"); }), HasSubstr("clips.json"));
  write_manifest(folder.path(), {entry("a")});
  const std::string good = read_file(manifest_path(folder.path()));
  const auto damaged = [&](const std::string& old, const std::string& now) {
    std::string text = good;
    const size_t at = text.find(old);
    EXPECT_NE(at, std::string::npos) << old;
    text.replace(at, old.size(), now);
    atomic_write(manifest_path(folder.path()), text);
    return error_of([&] { (void)read_manifest(folder.path()); });
  };
  EXPECT_THAT(damaged("minwm-clips", "other"), HasSubstr("not a clip manifest"));
  EXPECT_THAT(damaged("\"version\": 1", "\"version\": 7"),
              HasSubstr("manifest version 7, this program reads 1"));
  EXPECT_THAT(damaged("\"fps\":16.0", "\"fps\":\"fast\""),
              AllOf(HasSubstr("clip 0: field 'fps' has the wrong type")));
  EXPECT_THAT(damaged("\"fps\"", "\"fsp\""), HasSubstr("field 'fps' is missing"));
  EXPECT_THAT(damaged("\"fps\"", "\"extra\":1,\"fps\""), HasSubstr("unknown field 'extra'"));
  EXPECT_THAT(damaged("\"scale\":1.0", "\"scale\":0.0"), HasSubstr("scale 0"));
  EXPECT_THAT(damaged("]}", ""), HasSubstr("not JSON"));
  const std::string clip =
      good.substr(good.find("{\"id\""), good.rfind("\n]}") - good.find("{\"id\""));
  EXPECT_THAT(damaged("\n]}", ",\n" + clip + "\n]}"), HasSubstr("the id 'a' occurs twice"));
}

TEST(Manifest, ClipFramesFollowTheIndices) {
  const TemporaryFolder folder;
  ManifestEntry clip = entry("a");
  const at::Tensor levels = at::arange(12, at::kInt).mul(20).view({12, 1, 1, 1});
  write_video(folder / "videos" / "a.mp4", levels.expand({12, 12, 16, 3}).to(at::kByte), 8);
  const auto level = [](const at::Tensor& frames) {
    return frames.to(at::kFloat).mean({1, 2, 3}).div(20).round().to(at::kLong);
  };
  EXPECT_TRUE(at::equal(level(read_clip_frames(folder.path(), clip)), at::arange(9)));
  clip.frame_indices = {1, 1, 2, 3, 3, 4, 6, 7, 11};
  EXPECT_TRUE(at::equal(level(read_clip_frames(folder.path(), clip)),
                        at::tensor(clip.frame_indices, at::kLong)));
  clip.frame_indices.back() = 12;
  EXPECT_THAT(error_of([&] { (void)read_clip_frames(folder.path(), clip); }),
              HasSubstr("a.mp4: 12 frames, clip 'a' needs 13"));
  clip.frame_indices.clear();
  clip.width = 32;
  EXPECT_THAT(error_of([&] { (void)read_clip_frames(folder.path(), clip); }),
              HasSubstr("16x12 pixels, clip 'a' says 32x12"));
}

}  // namespace
}  // namespace minwm::data
