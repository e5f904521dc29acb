#include "minwm/camera/frame_actions.h"

#include <array>
#include <optional>

#include <ATen/ATen.h>

#include "minwm/camera/pose_string.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

constexpr int64_t kFramesPerLatent = 4;
constexpr double kFrameStep = kStep / kFramesPerLatent;
constexpr double kFrameTurn = kRotationStep / kFramesPerLatent;
constexpr int64_t kShortBlock = 16;

struct Action {
  char letter;
  double weight;
  int64_t block;  ///< frames
  const char* name;
};

/// In the generator's order, which decides what a uniform number means.
constexpr std::array<Action, 8> kActions = {{{'W', 1.2, 16, "w"},
                                             {'S', 1.2, 16, "s"},
                                             {'A', 1.2, 32, "a"},
                                             {'D', 1.2, 32, "d"},
                                             {'J', 1.0, 32, "left"},
                                             {'L', 1.0, 32, "right"},
                                             {'I', 0.8, 16, "up"},
                                             {'K', 0.8, 16, "down"}}};

std::optional<Rigid> frame_motion(char letter) {
  Rigid moved;
  switch (letter) {
    case 'W':
      moved.translation[2] = kFrameStep;
      return moved;
    case 'S':
      moved.translation[2] = -kFrameStep;
      return moved;
    case 'D':
      moved.translation[0] = kFrameStep;
      return moved;
    case 'A':
      moved.translation[0] = -kFrameStep;
      return moved;
    case 'L':
      return yaw_rotation(kFrameTurn);
    case 'J':
      return yaw_rotation(-kFrameTurn);
    case 'K':
      return pitch_rotation(kFrameTurn);
    case 'I':
      return pitch_rotation(-kFrameTurn);
    default:
      return std::nullopt;
  }
}

/// May `next` follow `previous`? Not itself, and not straight back.
bool may_follow(char previous, char next) {
  return next != previous && !(previous == 'W' && next == 'S') && !(previous == 'S' && next == 'W');
}

const Action& draw(std::optional<char> previous, double uniform) {
  std::array<double, 8> cumulative{};
  double total = 0;
  for (size_t i = 0; i < kActions.size(); ++i) {
    const bool allowed = !previous || may_follow(*previous, kActions[i].letter);
    total += allowed ? kActions[i].weight : 0;
    cumulative[i] = total;
  }
  size_t index = 0;
  while (index + 1 < kActions.size() && cumulative[index] / total <= uniform) {
    ++index;
  }
  return kActions[index];
}

}  // namespace

at::Tensor integrate_frame_actions(const std::string& actions) {
  std::vector<Rigid> poses(1);
  poses.reserve(actions.size() + 1);
  for (size_t i = 0; i < actions.size(); ++i) {
    const auto motion = frame_motion(actions[i]);
    require(motion.has_value(),
            "frame actions: unknown letter '{}' at position {}, expected one of "
            "W S A D J L I K",
            actions[i], i + 1);
    poses.push_back(poses.back() * *motion);
  }
  return to_matrices(poses);
}

at::Tensor latent_poses(const at::Tensor& frame_poses) {
  return frame_poses.slice(0, 0, c10::nullopt, kFramesPerLatent).contiguous();
}

std::vector<ActionBlock> random_action_blocks(int64_t pixel_frames,
                                              const std::function<double()>& uniform) {
  require(pixel_frames > 1, "random path: {} video frames, expected at least 2", pixel_frames);
  std::vector<ActionBlock> blocks;
  int64_t remaining = pixel_frames - 1;
  const Action* action = &draw(std::nullopt, uniform());
  while (remaining > 0) {
    if (action->block > remaining) {
      if (remaining >= kShortBlock || blocks.empty()) {
        blocks.push_back({action->letter, remaining});
      } else {
        blocks.back().frames += remaining;
      }
      break;
    }
    blocks.push_back({action->letter, action->block});
    remaining -= action->block;
    if (remaining >= kShortBlock) {
      action = &draw(action->letter, uniform());
    } else {
      blocks.back().frames += remaining;
      break;
    }
  }
  return blocks;
}

std::string to_action_string(const std::vector<ActionBlock>& blocks) {
  std::string out;
  for (const ActionBlock& block : blocks) {
    out.append(static_cast<size_t>(block.frames), block.action);
  }
  return out;
}

std::string to_dash_string(const std::vector<ActionBlock>& blocks) {
  std::string out;
  for (const ActionBlock& block : blocks) {
    for (const Action& action : kActions) {
      if (action.letter == block.action) {
        out += fmt::format("{}{}-{}", out.empty() ? "" : ", ", action.name,
                           block.frames / kFramesPerLatent);
      }
    }
  }
  return out;
}

}  // namespace minwm::camera
