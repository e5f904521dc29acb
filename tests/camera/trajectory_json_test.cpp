#include "minwm/camera/trajectory_json.h"

#include <filesystem>
#include <functional>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/camera/frame_actions.h"
#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

std::string message(const std::string& text) {
  try {
    parse_trajectory_json(text, "path.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

Json entry(double z) {
  return {{"extrinsic", {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, z}, {0, 0, 0, 1}}},
          {"K", {{960, 0, 960}, {0, 540, 540}, {0, 0, 1}}}};
}

at::Tensor depths(const Trajectory& path) {
  return path.camera_to_world.select(1, 2).select(1, 3);
}

TEST(TrajectoryJson, KeepsTheOrderOfTheFile) {
  Json file;
  for (const int key : {0, 9, 10, 11, 100, 2}) {
    file[std::to_string(key)] = entry(key);
  }
  const Trajectory path = parse_trajectory_json(file.dump(), "path.json");
  EXPECT_TRUE(at::equal(depths(path), at::tensor({0., 9., 10., 11., 100., 2.}, at::kDouble)));
  EXPECT_EQ(path.intrinsics[3][0][0].item<double>(), 0.5);
  EXPECT_EQ(path.intrinsics[3][1][1].item<double>(), 0.5);
}

TEST(TrajectoryJson, SkipsMetadataButKeepsTheActions) {
  Json file;
  file["_metadata"] = {{"action_str", "WWWW"}, {"seed", 3}};
  file["0"] = entry(1);
  const Trajectory path = parse_trajectory_json(file.dump(), "path.json");
  EXPECT_EQ(path.camera_to_world.size(0), 1);
  EXPECT_EQ(path.action_string, "WWWW");
}

TEST(TrajectoryJson, CamerasAreAlignedToTheFirstFrame) {
  Json file;
  file["0"] = entry(5);
  file["1"] = entry(6);
  const Cameras cameras = parse_trajectory_json(file.dump(), "path.json").cameras();
  EXPECT_TRUE(at::equal(cameras.world_to_camera[0][0], at::eye(4)));
  EXPECT_EQ(cameras.world_to_camera[0][1][2][3].item<float>(), -1);
}

TEST(TrajectoryJson, ReadsWhatItWrites) {
  Trajectory path;
  path.camera_to_world = integrate(parse_pose_string("w+l*7,i*5,dn*3"));
  path.intrinsics =
      intrinsics_matrices(kDefaultFx, kDefaultFy, 0.5, 0.5, path.camera_to_world.size(0));
  path.action_string = "WLIK";
  const Trajectory again =
      parse_trajectory_json(to_trajectory_json(path, 1280, 704), "written.json");
  EXPECT_TRUE(at::equal(again.camera_to_world, path.camera_to_world)) << "to the last digit";
  EXPECT_TRUE(at::allclose(again.intrinsics, path.intrinsics, 0, 1e-12));
  EXPECT_EQ(again.action_string, "WLIK");
}

TEST(TrajectoryJson, ErrorsNameFileEntryAndField) {
  EXPECT_THAT(message("{"), HasSubstr("path.json: not valid JSON"));
  EXPECT_THAT(message("[]"), HasSubstr("path.json: expected an object"));
  EXPECT_THAT(message("{}"), HasSubstr("path.json: no pose"));
  EXPECT_THAT(message(R"({"_metadata": {}})"), HasSubstr("no pose"));
  Json file;
  file["0"] = entry(0);
  const auto with = [&](const std::function<void(Json&)>& change) {
    Json changed = file;
    changed["7"] = entry(1);
    change(changed["7"]);
    return message(changed.dump());
  };
  EXPECT_THAT(with([](Json& e) { e = 3; }), HasSubstr("entry '7' has no 'extrinsic'"));
  EXPECT_THAT(with([](Json& e) { e.erase("K"); }), HasSubstr("entry '7' has no 'K'"));
  EXPECT_THAT(with([](Json& e) { e["extrinsic"].erase(3); }),
              HasSubstr("entry '7': 'extrinsic' is not a 4 x 4 matrix"));
  EXPECT_THAT(with([](Json& e) { e["extrinsic"][1][2] = "x"; }), HasSubstr("4 x 4 matrix"));
  EXPECT_THAT(with([](Json& e) { e["extrinsic"][1][2] = nullptr; }), HasSubstr("4 x 4 matrix"));
  EXPECT_THAT(with([](Json& e) { e["extrinsic"][1][1] = 2; }),
              HasSubstr("entry '7': 'extrinsic': pose 0 is not a rotation"));
  EXPECT_THAT(with([](Json& e) { e["K"][0][0] = -1; }),
              HasSubstr("entry '7': intrinsics: focal lengths and centres must be positive"));
}

TEST(TrainingJson, TakesEveryFourthEntry) {
  Json poses, actions;
  for (int frame = 0; frame < 9; ++frame) {
    Json e = entry(frame);
    poses[std::to_string(frame)] = {{"w2c", e["extrinsic"]}, {"intrinsic", e["K"]}};
    actions[std::to_string(frame)] = {{"move_action", frame == 4 ? "WD" : "WSA"},
                                      {"view_action", frame == 4 ? "LR" : "LD"}};
  }
  const auto clip = parse_training_json(poses.dump(), actions.dump(), 3, "clip.json");
  EXPECT_EQ(clip.world_to_camera[2][2][3].item<double>(), 8);
  // Forward and right (5), yaw right (1); then left (4: W and S cancel), pitch down (4).
  EXPECT_TRUE(at::equal(clip.labels, at::tensor({0, 5 * 9 + 1, 4 * 9 + 4}, at::kLong)));
  EXPECT_FALSE(parse_training_json(poses.dump(), "", 3, "clip.json").labels.defined());
  try {
    parse_training_json(poses.dump(), "", 4, "clip.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("clip.json: 9 entries, 4 latent frames need 13"));
  }
}

TEST(TrajectoryJson, TheSharedFilesEqualTheirStrings) {
  const std::filesystem::path folder = MINWM_SHARED_DATA "/data/trajectories";
  if (!std::filesystem::exists(folder)) {
    GTEST_SKIP() << "shared data is not here";
  }
  const std::map<std::string, std::string> strings = {
      {"w31", "w-31"},
      {"right8a11", "right-8, a-11"},
      {"w3right1d4up4left7", "w-3, right-1, d-4, up-4, left-7"}};
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const Trajectory path = read_trajectory_json(entry.path());
    at::Tensor expected;
    if (const auto known = strings.find(entry.path().stem()); known != strings.end()) {
      expected = integrate(parse_pose_string(known->second));
    } else if (!path.action_string.empty()) {
      expected = latent_poses(integrate_frame_actions(path.action_string));
      // Upstream's generator leaves out frame 0 in one of its variants.
      expected = expected.slice(0, expected.size(0) - path.camera_to_world.size(0));
    } else {
      std::vector<Motion> motions(7, Motion{.forward = kStep});
      motions.insert(motions.end(), 12, Motion{.third_person_yaw = kRotationStep});
      expected = integrate(motions);
    }
    EXPECT_TRUE(at::allclose(path.camera_to_world, expected, 0, 1e-9)) << entry.path();
    ++compared;
  }
  EXPECT_GE(compared, 4);
}

}  // namespace
}  // namespace minwm::camera
