// A checkpoint on the disk, opened for generation.

#include <gmock/gmock.h>

#include "minwm/camera/pose_string.h"
#include "minwm/comm/communicator.h"
#include "minwm/core/random.h"
#include "minwm/models/codec/analytic.h"
#include "minwm/stream/loaded_model.h"
#include "tests/core/temporary_folder.h"

namespace minwm::stream {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;

/// A frame-wise student of untrained weights, with a codec of noise.
class OpenModel : public ::testing::Test {
 protected:
  static train::CheckpointInfo student() {
    train::CheckpointInfo info;
    info.step = 7;
    info.model = "wan-tiny";
    info.stage = "dmd";
    info.codec = "codec.safetensors";
    info.sampler = "renoise";
    info.step_list = {1000, 500};
    info.first_chunk_step_list = {1000, 750, 500, 250};
    info.guidance = 2;
    info.context_noise = 50;
    info.shift = 5;
    info.chunk_frames = 1;
    info.latent_height = info.latent_width = 2;
    info.latent_frames = 6;
    info.fx = info.fy = 0.5;
    return info;
  }

  std::string save(const train::CheckpointInfo& info) {
    std::vector<at::Tensor> clips;
    for (uint64_t i = 0; i < 40; ++i) {
      clips.push_back((255 * random_uniform({5, 16, 16, 3}, {i, "clip"})).to(at::kByte));
    }
    models::AnalyticCodec::fit(clips, {}).save(folder_ / info.codec);
    train::TensorMap tensors;
    // What starts at zero would hide every other difference.
    for (const auto& parameter : models::make_backbone(info.model, 1)->named_parameters()) {
      const at::Tensor values = parameter.value().detach();
      tensors["model/param/" + parameter.key()] =
          values + 0.1 * random_normal(values.sizes(), {7, parameter.key()});
    }
    return train::save_checkpoint(folder_ / "checkpoints", info, tensors, {folder_ / info.codec}, 1,
                                  *comm::self_communicator())
        .string();
  }

  /// Two frame-wise chunks.
  static at::Tensor streamed(const LoadedModel& loaded) {
    WorldStream stream(loaded.model, nullptr, loaded.stream);
    stream.begin(at::ones({1, 6, 32}), {}, 2, 2);
    const at::Tensor poses = camera::integrate(camera::parse_pose_string("w+l*1"));
    const at::Tensor first = stream.next(poses.narrow(0, 0, 1)).latents;
    return at::cat({first, stream.next(poses.narrow(0, 1, 1)).latents}, 1);
  }

  testing::TemporaryFolder folder_;
};

TEST_F(OpenModel, SamplesAsTheCheckpointRecords) {
  const std::string path = save(student());
  const LoadedModel loaded = open_model(path, {}, at::kCPU);
  EXPECT_EQ(loaded.mode, Mode::kStream);
  EXPECT_EQ(loaded.stream.solver, Solver::kRenoise);
  EXPECT_THAT(loaded.stream.sigmas, ElementsAre(1, ::testing::DoubleEq(2.5 / 3)));
  EXPECT_THAT(loaded.stream.first_chunk_sigmas, ::testing::SizeIs(4));
  EXPECT_EQ(loaded.stream.guidance_scale, 2);
  EXPECT_EQ(loaded.stream.context_timestep, 50);
  EXPECT_EQ(loaded.stream.chunk_frames, 1);
  EXPECT_EQ(loaded.stream.window_frames, 6);

  WorldStream stream(loaded.model, loaded.codec, loaded.stream);
  stream.begin(at::zeros({1, 6, 32}), {}, 2, 2);
  const auto chunk = stream.next(at::eye(4, at::kDouble).unsqueeze(0));
  EXPECT_THAT(chunk.pixels.sizes().vec(), ElementsAre(1, 1, 3, 16, 16));
  EXPECT_TRUE(chunk.pixels.isfinite().all().item<bool>());

  SamplerOverrides unguided;
  unguided.guidance = 1;
  EXPECT_EQ(open_model(path, unguided, at::kCPU).stream.guidance_scale, 1);
}

TEST_F(OpenModel, StreamsReadTheirPastAsRecordedOrAsAsked) {
  auto info = student();
  info.model = "hy-tiny@2";
  info.latent_height = info.latent_width = 4;
  const std::string dual = save(info);
  info.camera_cache = "rope_only";
  info.step = 8;
  const std::string rope_only = save(info);
  SamplerOverrides as_rope_only, as_dual;
  as_rope_only.camera_cache = "rope_only";
  as_dual.camera_cache = "dual";
  const auto stream = [](const std::string& path, const SamplerOverrides& overrides) {
    return streamed(open_model(path, overrides, at::kCPU));
  };
  const at::Tensor recorded = stream(rope_only, {});
  EXPECT_TRUE(at::equal(stream(rope_only, as_rope_only), recorded));
  EXPECT_TRUE(at::equal(stream(rope_only, as_dual).narrow(1, 0, 1), recorded.narrow(1, 0, 1)));
  EXPECT_FALSE(at::allclose(stream(rope_only, as_dual), recorded));
}

TEST_F(OpenModel, CommitsAreToldTheirActionsWhereTheCheckpointSaysSo) {
  auto info = student();
  info.model = "hy-tiny-worldplay@2";
  const auto of = [&](bool told) {
    info.context_action = told;
    return streamed(open_model(save(info), {}, at::kCPU));
  };
  const at::Tensor without = of(false), with = of(true);
  EXPECT_TRUE(at::equal(with.narrow(1, 0, 1), without.narrow(1, 0, 1)));
  EXPECT_FALSE(at::allclose(with, without));
}

TEST_F(OpenModel, ACameraCacheOfOtherModelsOrStagesIsRefused) {
  SamplerOverrides overrides;
  const auto refused = [&](train::CheckpointInfo info) {
    return error_of([&] { open_model(save(info), overrides, at::kCPU); });
  };
  overrides.camera_cache = "sideways";
  EXPECT_THAT(refused(student()), HasSubstr("--camera_cache sideways: expected dual or rope_only"));
  overrides.camera_cache = "rope_only";
  EXPECT_THAT(refused(student()),
              AllOf(HasSubstr("step-000007: wan-tiny"), HasSubstr("neither camera_cache")));
  auto info = student();
  info.model = "hy-tiny-ti2v@1";
  EXPECT_THAT(refused(info), HasSubstr("hy-tiny-ti2v@1 reads no cameras: drop --camera_cache"));
  info.stage = "bidirectional";
  EXPECT_THAT(refused(info), HasSubstr("does not stream and has no cache"));
}

TEST_F(OpenModel, AContextMemoryIsForStreams) {
  SamplerOverrides overrides;
  overrides.memory = "worldplay";
  auto info = student();
  const auto loaded = open_model(save(info), overrides, at::kCPU);
  ASSERT_TRUE(loaded.stream.memory.has_value());
  EXPECT_EQ(loaded.stream.memory->frames, 20);
  EXPECT_EQ(loaded.stream.memory->temporal, 12);
  EXPECT_EQ(loaded.stream.memory->timestep, 14);
  EXPECT_FALSE(open_model(save(info), {}, at::kCPU).stream.memory.has_value());
  info.stage = "bidirectional";
  EXPECT_THAT(error_of([&] { open_model(save(info), overrides, at::kCPU); }),
              HasSubstr("--memory worldplay does not fit"));
  overrides.memory = "sideways";
  EXPECT_THAT(error_of([&] { open_model(save(info), overrides, at::kCPU); }),
              HasSubstr("expected none or worldplay"));
}

TEST_F(OpenModel, RefusesWhatTheStageDoesNotTakeAndNamesTheFolder) {
  const std::string path = save(student());
  SamplerOverrides overrides;
  overrides.steps = 50;
  overrides.solver = "unipc";
  EXPECT_THAT(error_of([&] { open_model(path, overrides, at::kCPU); }),
              AllOf(HasSubstr(path + ": --steps 50 --solver unipc does not fit"),
                    HasSubstr("the 2 steps 1000,500 (the first chunk: 1000,750,500,250) with "
                              "solver renoise: drop --steps and --solver")));
  SamplerOverrides whole;
  whole.mode = "bidirectional";
  EXPECT_THAT(error_of([&] { open_model(path, whole, at::kCPU); }),
              AllOf(HasSubstr("stage 'dmd'"), HasSubstr("use --mode stream")));
}

}  // namespace
}  // namespace minwm::stream
