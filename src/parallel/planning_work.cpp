#include "planning_work.h"

#include <algorithm>

#include "minwm/core/error.h"

namespace minwm::parallel {
namespace {

int64_t chunks_of(const StepShape& step) {
  return step.frames / step.chunk_frames;
}

Pass bidirectional(const StepShape& step, double count, bool backward) {
  const auto frames = static_cast<double>(step.frames);
  return {count, 1, backward, frames, frames, frames * frames, 1, true};
}

/// Clean chunk i sees clean chunks up to itself, noisy chunk i the clean ones before it and itself;
/// the last clean chunk, which nobody sees, is left out.
Pass teacher_forcing(const StepShape& step, double count, bool backward) {
  const auto frames = static_cast<double>(step.graph_frames());
  const auto clip = static_cast<double>(step.frames);
  return {count, 1, backward, frames, frames, clip * clip, 1, false};
}

/// One streaming call on every chunk of a clip.
Pass rollout(const StepShape& step, double count, bool backward) {
  const auto calls = static_cast<double>(chunks_of(step));
  Pass pass{count, chunks_of(step), backward, 0, 0, 0, backward ? 1 : calls, false};
  for (int64_t i = 0; i < pass.calls; ++i) {
    const int64_t seen = std::min((i + 1) * step.chunk_frames, step.window_frames);
    pass.query_frames += static_cast<double>(step.chunk_frames);
    pass.key_frames += static_cast<double>(seen);
    pass.pairs += static_cast<double>(step.chunk_frames * seen);
  }
  return pass;
}

Average average_of(const StepShape& step) {
  return step.averaged ? Average::kKept : Average::kNone;
}

/// Generator and critic are updated in turn; per iteration, one rollout without gradients and one
/// critic update, and every so often a rollout with gradients that two scores judge.
std::vector<NetworkUse> dmd_networks(const StepShape& step) {
  // Exit steps are uniform; every chunk is committed by one more call.
  const double calls = (static_cast<double>(step.rollout_steps) + 1) / 2 + 1;
  const double share = 1 / static_cast<double>(step.generator_every);
  NetworkUse generator{"generator", true, average_of(step), share, {}};
  // Between recorded calls the root is there; only those of the first chunk come before them.
  Pass between = rollout(step, share * (calls - 1), false);
  between.root_gathers = (calls - 2) / (calls - 1);
  generator.passes = {rollout(step, calls, false), between, rollout(step, share, true)};
  NetworkUse critic{"critic", true, Average::kNone, 1, {}};
  critic.passes = {bidirectional(step, 1, true), bidirectional(step, share, false)};
  // With and without the condition.
  NetworkUse real{"real score", false, Average::kNone, 0, {bidirectional(step, 2 * share, false)}};
  return {generator, critic, real};
}

}  // namespace

std::vector<NetworkUse> networks_of(const StepShape& step) {
  if (step.stage == "bidirectional") {
    return {{"model", true, average_of(step), 1, {bidirectional(step, 1, true)}}};
  }
  if (step.stage == "teacher-forcing" || step.stage == "ode") {
    return {{"model", true, average_of(step), 1, {teacher_forcing(step, 1, true)}}};
  }
  if (step.stage == "consistency") {
    // The average is evaluated once per micro-batch, the teacher with and without the condition.
    return {{"model",
             true,
             Average::kRuns,
             1,
             {teacher_forcing(step, 1, true), teacher_forcing(step, 1, false)}},
            {"teacher", false, Average::kNone, 0, {teacher_forcing(step, 2, false)}}};
  }
  if (step.stage == "dmd") {
    return dmd_networks(step);
  }
  fail("stage '{}': expected bidirectional, teacher-forcing, ode, consistency or dmd", step.stage);
}

int64_t StepShape::graph_frames() const {
  const bool forced = stage == "teacher-forcing" || stage == "ode" || stage == "consistency";
  return forced ? 2 * frames - chunk_frames : frames;
}

void StepShape::check() const {
  require(frames > 0 && frame_tokens > 0, "{} latent frames of {} tokens: expected at least 1",
          frames, frame_tokens);
  require(global_batch > 0 && micro_batch > 0,
          "train.global_batch {}, train.micro_batch {}: expected 1 or more", global_batch,
          micro_batch);
  require(stage == "bidirectional" || (chunk_frames > 0 && frames % chunk_frames == 0),
          "{} latent frames are no whole chunks of {}", frames, chunk_frames);
  require(
      rollout_steps > 0 && generator_every > 0 && window_frames >= chunk_frames,
      "rollouts of {} steps, an update every {}, a window of {} frames: expected 1 or more, and "
      "a window that holds a chunk of {}",
      rollout_steps, generator_every, window_frames, chunk_frames);
  require(prefetch >= 0, "parallel.prefetch {}: expected 0 or more", prefetch);
  (void)networks_of(*this);
}

int64_t accumulation_of(const StepShape& step, const MeshShape& mesh) {
  const int64_t together = mesh.data() * step.micro_batch;
  require(step.global_batch % together == 0,
          "train.global_batch {} is no whole number of micro-batches of {} on {} data ranks ({})",
          step.global_batch, step.micro_batch, mesh.data(), to_string(mesh));
  return step.global_batch / together;
}

int64_t rank_tokens(const StepShape& step, const MeshShape& mesh, int64_t frames) {
  return frames * ((step.frame_tokens + mesh.context - 1) / mesh.context);
}

std::string to_string(const MeshShape& mesh) {
  std::string text =
      fmt::format("replicate {} x shard {} x context {}", mesh.replicate, mesh.shard, mesh.context);
  if (mesh.ring() > 1) {
    text += fmt::format(" (ulysses {} x ring {})", mesh.ulysses, mesh.ring());
  }
  return text;
}

}  // namespace minwm::parallel
