// Properties of whole HY forwards that no golden case shows (spec hy-mmdit 20).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/camera/prope.h"
#include "minwm/core/error.h"
#include "minwm/models/state.h"
#include "minwm/nn/attention.h"
#include "tests/models/small_hy.h"

namespace minwm::models {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): small_hy.h
using ::testing::HasSubstr;

constexpr double kTolerance = 2e-5;

enum class Form { kBidirectional, kCausal, kForced };
constexpr std::array kForms = {Form::kBidirectional, Form::kCausal, Form::kForced};

/// 5 frames in chunks of 2: the last one is short.
ForwardInput forward_input(const HyConfig& config, Form form, int64_t batch = 3) {
  constexpr int64_t kFrames = 5, kChunk = 2;
  ForwardInput input;
  input.latents = small_latents("noisy", batch, kFrames);
  input.timestep = chunk_timesteps(batch, kFrames, kChunk);
  input.conditions = small_conditions(config, batch, kFrames);
  if (form != Form::kBidirectional) {
    input.chunk_frames = kChunk;
  }
  if (form == Form::kForced) {
    input.clean_latents = small_latents("clean", batch, kFrames);
    input.clean_timestep = at::full_like(input.timestep, 20);
  }
  return input;
}

ForwardInput sample(const ForwardInput& batch, int64_t index) {
  const auto clip = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, index, 1) : x; };
  ForwardInput input = batch;
  input.latents = clip(batch.latents);
  input.timestep = clip(batch.timestep);
  input.clean_latents = clip(batch.clean_latents);
  input.clean_timestep = clip(batch.clean_timestep);
  input.text_timestep = clip(batch.text_timestep);
  input.conditions = clip_conditions(batch.conditions, index);
  return input;
}

/// All parameter gradients in one row; those that are missing are zero. Clears them.
at::Tensor take_gradients(HyBackbone& model) {
  std::vector<at::Tensor> rows;
  for (auto& p : model.parameters()) {
    rows.push_back((p.grad().defined() ? p.grad() : at::zeros_like(p)).flatten());
    p.mutable_grad().reset();
  }
  return at::cat(rows);
}

/// A loss in which every entry counts otherwise.
at::Tensor loss(const at::Tensor& flow) {
  return (flow * random_normal(flow.sizes(), {17, "loss"})).sum();
}

at::Tensor flow_of(HyBackbone& model, const ForwardInput& input) {
  at::NoGradGuard no_grad;
  return model.forward(input);
}

TEST(HyForward, EverySampleOfABatchIsWhatItIsAlone) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  for (const Form form : kForms) {
    auto input = forward_input(config, form);
    input.text_timestep = at::tensor({0.f, 500.f, 500.f});
    const at::Tensor together = model->forward(input);
    const at::Tensor weights = random_normal(together.sizes(), {17, "loss"});
    (together * weights).sum().backward();
    const at::Tensor gradients = take_gradients(*model);
    for (int64_t i = 0; i < 3; ++i) {
      const at::Tensor alone = model->forward(sample(input, i));
      EXPECT_LT(relative_distance(alone, together.narrow(0, i, 1)), kTolerance);
      (alone * weights.narrow(0, i, 1)).sum().backward();
    }
    EXPECT_LT(relative_distance(take_gradients(*model), gradients), kTolerance);
  }
}

TEST(HyForward, RecomputedBlocksGiveTheSameFlowAndGradients) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  for (const Form form : kForms) {
    const auto input = forward_input(config, form);
    const at::Tensor kept = model->forward(input);
    loss(kept).backward();
    const at::Tensor gradients = take_gradients(*model);
    ASSERT_GT(gradients.abs().max().item<double>(), 0);
    model->set_activation_checkpointing(true);
    const at::Tensor recomputed = model->forward(input);
    loss(recomputed).backward();
    EXPECT_LT(relative_distance(recomputed, kept), kTolerance);
    EXPECT_LT(relative_distance(take_gradients(*model), gradients), kTolerance);
    model->set_activation_checkpointing(false);
  }
}

/// The weights of `model` in one of another configuration; camera projections are left out.
std::shared_ptr<HyBackbone> without_cameras(const HyBackbone& model) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& item : model.named_parameters()) {
    if (item.key().find("prope") == std::string::npos) {
      tensors[item.key()] = item.value().detach();
    }
  }
  auto out = std::make_shared<HyBackbone>(small_hy(), 0);
  load_state(*out, tensors, "camera model");
  return out;
}

TEST(HyForward, ZeroCameraProjectionsMakeTheCameraLineTheTi2vLine) {
  const auto config = with_camera();
  const auto model = lively_hy(config);
  const auto plain = without_cameras(*model);
  for (const Form form : kForms) {
    const auto input = forward_input(config, form);
    auto no_cameras = input;
    no_cameras.conditions.cameras = {};
    const at::Tensor expected = flow_of(*plain, no_cameras);
    EXPECT_GT(relative_distance(flow_of(*model, input), expected), 1e-2);
    // A camera model that is given no camera runs without the second attention.
    EXPECT_LT(relative_distance(flow_of(*model, no_cameras), expected), kTolerance);
  }
  for (auto& item : model->named_parameters()) {
    if (item.key().find("prope") != std::string::npos) {
      at::NoGradGuard no_grad;
      item.value().zero_();
    }
  }
  for (const Form form : kForms) {
    const auto input = forward_input(config, form);
    auto no_cameras = input;
    no_cameras.conditions.cameras = {};
    EXPECT_LT(relative_distance(flow_of(*model, input), flow_of(*plain, no_cameras)), kTolerance);
  }
}

TEST(HyForward, CausalFormsReadThePastOnly) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  for (const Form form : {Form::kCausal, Form::kForced}) {
    const auto input = forward_input(config, form, 1);
    auto changed = input;
    at::Tensor& read = form == Form::kCausal ? changed.latents : changed.clean_latents;
    read = read.clone();
    read.narrow(1, 2, 2).add_(1);  // chunk 1
    const at::Tensor difference = (flow_of(*model, changed) - flow_of(*model, input)).abs();
    const auto largest = [&](int64_t first, int64_t count) {
      return difference.narrow(1, first, count).max().item<double>();
    };
    EXPECT_EQ(largest(0, 2), 0);
    if (form == Form::kForced) {
      EXPECT_EQ(largest(2, 2), 0);  // its own clean copy is not seen
    } else {
      EXPECT_GT(largest(2, 2), 1e-3);
    }
    EXPECT_GT(largest(4, 1), 1e-4);
  }
}

TEST(HyForward, CleanFramesAreNotToldTheirActions) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  const auto input = forward_input(config, Form::kForced, 1);
  auto changed = input;
  changed.conditions.actions = input.conditions.actions.clone();
  changed.conditions.actions[0][0] = 40;
  const at::Tensor difference = (flow_of(*model, changed) - flow_of(*model, input)).abs();
  EXPECT_GT(difference.narrow(1, 0, 2).max().item<double>(), 1e-3);
  EXPECT_EQ(difference.slice(1, 2).max().item<double>(), 0);
}

TEST(HyForward, TheTextsTimestepIsZeroUnlessGiven) {
  const auto config = small_hy();
  const auto model = lively_hy(config);
  const auto input = forward_input(config, Form::kBidirectional, 2);
  auto given = input;
  given.text_timestep = at::zeros({2});
  EXPECT_EQ(relative_distance(flow_of(*model, given), flow_of(*model, input)), 0);
  given.text_timestep = at::full({2}, 800.f);
  EXPECT_GT(relative_distance(flow_of(*model, given), flow_of(*model, input)), 1e-3);
}

TEST(HyForward, TheTextThatNobodyReadsGetsNoGradient) {
  const auto config = small_hy();
  const auto model = lively_hy(config);
  loss(model->forward(forward_input(config, Form::kBidirectional))).backward();
  int seen = 0;
  for (const auto& item : model->named_parameters()) {
    const auto& name = item.key();
    const bool unread = name.starts_with("double_blocks.1.txt_mlp") ||
                        name.starts_with("double_blocks.1.txt_attn_proj") ||
                        name.starts_with("double_blocks.1.txt_attn_q");
    const at::Tensor& grad = item.value().grad();
    const bool zero = !grad.defined() || grad.abs().max().item<double>() == 0;
    EXPECT_EQ(zero, unread) << name;
    seen += unread ? 1 : 0;
  }
  EXPECT_EQ(seen, 9);
}

TEST(HyForward, ProductsInBfloat16StayNearThoseInFloat32) {
  const auto config = with_camera(true);
  const auto model = lively_hy(config);
  for (const Form form : kForms) {
    const auto input = forward_input(config, form);
    const at::Tensor exact = flow_of(*model, input);
    model->set_compute_dtype(at::kBFloat16);
    const at::Tensor rounded = flow_of(*model, input);
    model->set_compute_dtype(at::kFloat);
    EXPECT_EQ(rounded.scalar_type(), at::kFloat);
    EXPECT_GT(relative_distance(rounded, exact), 1e-5);
    EXPECT_LT(((rounded - exact).norm() / exact.norm()).item<double>(), 0.05);
  }
}

/// Attention of the image with itself, camera path included.
HyBlockImpl::Heads attend_image(const HyBlockImpl::Rows& rows, const Geometry& where) {
  return {nn::attend(transform_queries(rows.image.q, where), transform_keys(rows.image.k, where),
                     transform_values(rows.image.v, where))
              .contiguous(),
          {}};
}

Geometry geometry_of(const camera::Cameras& cameras, int64_t height, int64_t width) {
  return make_geometry(positions_from(0, cameras.world_to_camera.size(1)), height, width,
                       {{2, 3, 3}, 256}, cameras, {}, at::kCPU);
}

TEST(HyBlock, ModulatesAndTransformsPerFrameAsPerToken) {
  constexpr int64_t kFrames = 3, kTokens = 4;
  const auto config = with_camera();
  const HyBlock block(std::dynamic_pointer_cast<HyBlockImpl>(lively_hy(config)->units().front()));
  const auto cameras = small_conditions(config, 1, kFrames).cameras;
  const at::Tensor image = random_normal({1, kFrames, kTokens, config.hidden_size}, {3, "image"});
  HyBlockImpl::Call call;
  call.geometry = geometry_of(cameras, 2, 2);
  call.image.rows = random_normal({2, config.hidden_size}, {3, "vectors"});
  call.image.index = at::tensor({0, 1, 0}, at::kLong).unsqueeze(0);
  const auto run = [&](const at::Tensor& x, const HyBlockImpl::Call& how) {
    at::NoGradGuard no_grad;
    return block
        ->forward(
            {x, {}}, how,
            [&](const HyBlockImpl::Rows& rows) { return attend_image(rows, how.geometry); },
            at::kFloat)
        .image;
  };
  const at::Tensor per_frame = run(image, call);
  // Every token a frame of its own, with the vector and the camera of its frame.
  HyBlockImpl::Call tokens = call;
  const auto each = [&](const at::Tensor& x) { return x.repeat_interleave(kTokens, 1); };
  tokens.image.index = each(call.image.index);
  tokens.geometry.p = each(call.geometry.p);
  tokens.geometry.p_inverse = each(call.geometry.p_inverse);
  const at::Tensor per_token = run(image.flatten(1, 2).unsqueeze(2), tokens);
  EXPECT_LT(relative_distance(per_token.view(image.sizes()), per_frame), 1e-6);
  // The frames' vectors do differ.
  tokens.image.index = at::zeros_like(tokens.image.index);
  EXPECT_GT(relative_distance(run(image.flatten(1, 2).unsqueeze(2), tokens).view(image.sizes()),
                              per_frame),
            1e-2);
}

TEST(HyCameraAttention, IgnoresAChangeOfTheWorldFrame) {
  const auto config = with_camera();
  const auto cameras = small_conditions(config, 2, 4).cameras;
  const auto draw = [](const char* what) { return random_normal({2, 4 * 6, 2, 16}, {5, what}); };
  const auto seen = [&](const camera::Cameras& from) {
    const Geometry where = geometry_of(from, 2, 3);
    const Projections x{draw("q"), draw("k"), draw("v")};
    return path_rows(nn::attend(transform_queries(x.q, where), transform_keys(x.k, where),
                                transform_values(x.v, where))
                         .contiguous(),
                     where);
  };
  const auto world = camera::integrate(camera::parse_pose_string("l*15,i*9,w*4,d*3"));
  auto moved = cameras;
  moved.world_to_camera =
      at::matmul(cameras.world_to_camera, world.select(0, world.size(0) - 1).to(at::kFloat));
  ASSERT_GT(relative_distance(moved.world_to_camera, cameras.world_to_camera), 0.1);
  EXPECT_LT(relative_distance(seen(moved)[1], seen(cameras)[1]), 1e-4);
  // Not so if only some of the cameras move.
  moved.world_to_camera.narrow(1, 0, 2).copy_(cameras.world_to_camera.narrow(1, 0, 2));
  EXPECT_GT(relative_distance(seen(moved)[1], seen(cameras)[1]), 1e-2);
}

TEST(HyFirstLatent, StandsInFrameZeroOfTheConditioningChannels) {
  const auto model = lively_hy(small_hy());
  const at::Tensor first = small_latents("first", 2, 1);
  const auto given = model->with_first_latent({}, first, 3);
  ASSERT_EQ(given.image_latents.sizes(), at::IntArrayRef({2, 3, kChannels + 1, kHeight, kWidth}));
  EXPECT_TRUE(at::equal(given.image_latents.narrow(1, 0, 1).narrow(2, 0, kChannels), first));
  EXPECT_TRUE(at::equal(given.image_latents.select(2, kChannels).sum({0, 2, 3}),
                        at::tensor({2.f * kHeight * kWidth, 0.f, 0.f})));
  EXPECT_EQ(given.image_latents.slice(1, 1).abs().sum().item<double>(), 0);
  EXPECT_FALSE(given.text_to_video);
  const auto none = model->with_first_latent(given, {}, 3);
  EXPECT_FALSE(none.image_latents.defined());
  EXPECT_TRUE(none.text_to_video);
}

TEST(HyWeights, AreLoadedStrictlyByName) {
  const auto model = lively_hy(with_camera());
  std::map<std::string, at::Tensor> tensors;
  for (const auto& item : model->named_parameters()) {
    tensors[item.key()] = item.value();
  }
  const auto message = [&] {
    try {
      load_state(*model, tensors, "file.safetensors");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("loaded");
  };
  EXPECT_EQ(message(), "loaded");
  tensors.erase("double_blocks.1.img_attn_prope_proj.bias");
  EXPECT_THAT(message(), HasSubstr("double_blocks.1.img_attn_prope_proj.bias"));
  tensors["double_blocks.1.img_attn_prope_proj.bias"] = at::zeros({32});
  tensors["action_in.mlp.0.bias"] = at::zeros({32});
  EXPECT_THAT(message(), HasSubstr("action_in.mlp.0.bias"));
  tensors.erase("action_in.mlp.0.bias");
  tensors["final_layer.linear.bias"] = at::zeros({1});
  EXPECT_THAT(message(), HasSubstr("final_layer.linear.bias"));
}

/// What a model says of an input that `spoil` has changed.
template <class Spoil>
std::string refusal(const HyConfig& config, Form form, const Spoil& spoil) {
  auto input = forward_input(config, form, 2);
  spoil(input);
  try {
    flow_of(*lively_hy(config), input);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(HyForward, RefusesWrongInputsInOneLine) {
  const auto config = with_camera(true);
  const auto spoiled = [&](auto spoil, Form form = Form::kForced) {
    const std::string message = refusal(config, form, spoil);
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  };
  EXPECT_EQ(spoiled([](ForwardInput&) {}), "accepted");
  EXPECT_THAT(spoiled([](ForwardInput& i) { i.conditions.actions = at::Tensor(); }),
              HasSubstr("actions"));
  EXPECT_THAT(
      spoiled([](ForwardInput& i) { i.conditions.actions = i.conditions.actions.slice(1, 1); }),
      HasSubstr("actions"));
  EXPECT_THAT(spoiled([](ForwardInput& i) { i.latents = i.latents.slice(2, 1); }),
              HasSubstr("latent channels"));
  EXPECT_THAT(spoiled([](ForwardInput& i) { i.latents = i.latents.slice(4, 1); }),
              HasSubstr("patches of 2x2"));
  EXPECT_THAT(spoiled([](ForwardInput& i) { i.timestep = i.timestep.slice(1, 1); }),
              HasSubstr("timestep must be [2, 5]"));
  EXPECT_THAT(spoiled([](ForwardInput& i) { i.clean_latents = i.clean_latents.slice(1, 1); }),
              HasSubstr("clean and noisy latents differ"));
  EXPECT_THAT(spoiled([](ForwardInput& i) { i.chunk_frames = 0; }), HasSubstr("chunk_frames"));
  EXPECT_THAT(spoiled([](ForwardInput& i) {
                i.conditions.image_latents = i.conditions.image_latents.slice(2, 1);
              }),
              HasSubstr("image latents must be [2, 5, 4, 4, 6]"));
  EXPECT_THAT(
      spoiled([](ForwardInput& i) { i.conditions.cameras = i.conditions.cameras.frames(0, 3); }),
      HasSubstr("3 cameras for 5 latent frames"));
  EXPECT_THAT(refusal(small_hy(), Form::kCausal,
                      [&](ForwardInput& i) {
                        i.conditions.cameras = small_conditions(config, 2, 5).cameras;
                      }),
              HasSubstr("without camera projections"));
}

}  // namespace
}  // namespace minwm::models
