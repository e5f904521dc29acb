// A checkpoint on the disk, opened for generation.

#include <gmock/gmock.h>

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
    for (const auto& parameter : models::make_backbone(info.model, 1)->named_parameters()) {
      tensors["model/param/" + parameter.key()] = parameter.value().detach();
    }
    return train::save_checkpoint(folder_ / "checkpoints", info, tensors, {folder_ / info.codec}, 1,
                                  *comm::self_communicator())
        .string();
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
