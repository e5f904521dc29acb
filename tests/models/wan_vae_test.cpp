// The Wan2.1 VAE with random weights: streams, refusals, types. Its numbers are golden cases.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/nn/parameters.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/small_wan_vae.h"

namespace minwm::models {
namespace {

using ::minwm::testing::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;
using namespace minwm::models::testing;

at::Tensor random_latents(int64_t frames, uint64_t seed = 1) {
  return random_normal({1, frames, 16, 2, 3}, {.seed = seed, .purpose = "latents"});
}

at::Tensor random_pixels(int64_t frames) {
  return random_normal({1, frames, 3, 16, 24}, {.seed = 3, .purpose = "pixels"}).tanh();
}

TEST(WanVae, HasTheNamesAndShapesOfThePublishedFile) {
  const Shapes published = published_shapes("wan21_vae");
  if (published.empty()) {
    GTEST_SKIP() << "no list of the published tensors here";
  }
  const nn::HollowParameters hollow;
  const Shapes ours = shapes_of(*WanVaeEncoder(WanVaeConfig()), *WanVaeDecoder(WanVaeConfig()));
  EXPECT_EQ(ours.size(), 194U);
  EXPECT_EQ(ours, published);
}

TEST(WanVae, AStreamInAnyPartsIsTheSameBitsAsOneShot) {
  WanVae codec = small_wan_codec();
  const at::Tensor latents = random_latents(7), whole = codec.decode(latents);
  ASSERT_EQ(whole.sizes(), at::IntArrayRef({1, 25, 3, 16, 24}));
  for (const std::vector<int64_t>& parts :
       {std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1}, {1, 3, 3}, {3, 4}, {2, 5}, {7}}) {
    EXPECT_TRUE(at::equal(streamed(codec, latents, parts), whole))
        << ::testing::PrintToString(parts);
  }
}

TEST(WanVae, SeveralLatentsInOnePassAreOneByOneUpToRounding) {
  WanVae codec = small_wan_codec(), wide = small_wan_codec({.latents_per_pass = 3});
  const at::Tensor latents = random_latents(7), whole = codec.decode(latents);
  for (const std::vector<int64_t>& parts : {std::vector<int64_t>{1, 3, 3}, {3, 4}, {7}}) {
    const double difference = largest_difference(streamed(wide, latents, parts), whole);
    RecordProperty("difference",
                   fmt::format("{:.2e} of {:.2e}", difference, whole.abs().max().item<double>()));
    EXPECT_LT(difference, 1e-5 * whole.abs().max().item<double>());
  }
  const at::Tensor pixels = random_pixels(17);
  EXPECT_LT(largest_difference(wide.encode(pixels), codec.encode(pixels)), 1e-5);
}

TEST(WanVae, TheStateOfAStreamDoesNotGrow) {
  WanVae codec = small_wan_codec();
  const auto state = codec.make_decode_state();
  auto& history = dynamic_cast<WanVaeDecodeState&>(*state).history;
  codec.decode_stream(random_latents(2), *state);
  const int64_t bytes = history.bytes();
  EXPECT_EQ(history.slots.size(), 32U);  // of the published depth (spec vae 3.4)
  // Two frames before every convolution over time: per latent pixel, of 16 channels, of widths 16,
  // 8 and 4 as spec vae 3.4 lists them, at 1, 2², 4² and 8² pixels.
  const int64_t at_latent = 16 + 10 * 16 + 16, at_half = 8 + 5 * 16 + 16, at_quarter = 6 * 8,
                full = 7 * 4;
  EXPECT_EQ(bytes, 4 * 2 * (2 * 3) * (at_latent + 4 * at_half + 16 * at_quarter + 64 * full));
  for (const int64_t count : {1, 3, 2}) {
    codec.decode_stream(random_latents(count), *state);
    EXPECT_EQ(history.bytes(), bytes);
  }
}

TEST(WanVae, ABranchOfAStreamLeavesTheOtherAlone) {
  WanVae codec = small_wan_codec();
  const at::Tensor start = random_latents(3, 1), left = random_latents(2, 2),
                   right = random_latents(2, 3);
  WanVaeDecodeState trunk;
  codec.decode_stream(start, trunk);
  WanVaeDecodeState branch = trunk;
  const at::Tensor on_left = codec.decode_stream(left, branch);
  const at::Tensor on_right = codec.decode_stream(right, trunk);
  EXPECT_TRUE(at::equal(on_left, codec.decode(at::cat({start, left}, 1)).narrow(1, 9, 8)));
  EXPECT_TRUE(at::equal(on_right, codec.decode(at::cat({start, right}, 1)).narrow(1, 9, 8)));
  EXPECT_FALSE(at::allclose(on_left, on_right));
}

TEST(WanVae, TwoStreamsTakeTurnsUndisturbed) {
  WanVae codec = small_wan_codec();
  const at::Tensor one = random_latents(3, 1), two = random_latents(3, 2);
  const auto first = codec.make_decode_state(), second = codec.make_decode_state();
  std::vector<at::Tensor> of_first, of_second;
  for (int64_t k = 0; k < 3; ++k) {
    of_first.push_back(codec.decode_stream(one.narrow(1, k, 1), *first));
    of_second.push_back(codec.decode_stream(two.narrow(1, k, 1), *second));
  }
  EXPECT_TRUE(at::equal(at::cat(of_first, 1), codec.decode(one)));
  EXPECT_TRUE(at::equal(at::cat(of_second, 1), codec.decode(two)));
}

TEST(WanVae, ARefusedPartLeavesTheStreamWhereItWas) {
  WanVae codec = small_wan_codec();
  const at::Tensor latents = random_latents(4);
  const auto state = codec.make_decode_state();
  const at::Tensor start = codec.decode_stream(latents.narrow(1, 0, 2), *state);
  EXPECT_THAT(error_of([&] {
                codec.decode_stream(at::zeros({1, 1, 16, 3, 3}), *state);
              }),
              HasSubstr("expected the same batch, height and width"));
  EXPECT_THAT(error_of([&] {
                codec.decode_stream(at::zeros({1, 1, 8, 2, 3}), *state);
              }),
              HasSubstr("latents [1, 1, 8, 2, 3] cannot be decoded"));
  const at::Tensor rest = codec.decode_stream(latents.narrow(1, 2, 2), *state);
  EXPECT_TRUE(at::equal(at::cat({start, rest}, 1), codec.decode(latents)));
}

TEST(WanVae, LatentsAndFramesDoNotDependOnLaterOnes) {
  WanVae codec = small_wan_codec();
  const at::Tensor pixels = random_pixels(13), latents = codec.encode(pixels);
  ASSERT_EQ(latents.sizes(), at::IntArrayRef({1, 4, 16, 2, 3}));
  for (const int64_t frame : {1, 5, 12}) {
    at::Tensor changed = pixels.clone();
    changed.narrow(1, frame, 13 - frame).neg_();
    const int64_t first = (frame + 3) / 4;  // the latent that covers the frame
    const at::Tensor other = codec.encode(changed);
    EXPECT_TRUE(at::equal(other.narrow(1, 0, first), latents.narrow(1, 0, first)));
    EXPECT_FALSE(at::allclose(other.select(1, first), latents.select(1, first)));
  }
  at::Tensor changed = latents.clone();
  changed.narrow(1, 2, 2).neg_();
  EXPECT_TRUE(
      at::equal(codec.decode(changed).narrow(1, 0, 5), codec.decode(latents).narrow(1, 0, 5)));
}

TEST(WanVae, TheTailOfARaggedClipIsDroppedOrRefused) {
  WanVae codec = small_wan_codec(), strict = small_wan_codec({.strict = true});
  const at::Tensor pixels = random_pixels(12);
  EXPECT_TRUE(at::equal(codec.encode(pixels), codec.encode(pixels.narrow(1, 0, 9))));
  EXPECT_EQ(error_of([&] { strict.encode(pixels); }),
            "a clip of 12 frames cannot be encoded: expected 1 + 4 m");
  EXPECT_EQ(strict.encode(pixels.narrow(1, 0, 9)).size(1), 3);
}

TEST(WanVae, RefusesWrongSizesAndOptions) {
  WanVae codec = small_wan_codec();
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1, 5, 3, 16, 20},
                                            {1, 5, 3, 12, 16},
                                            {1, 5, 4, 16, 16},
                                            {5, 3, 16, 16},
                                            {1, 0, 3, 16, 16}}) {
    EXPECT_THAT(error_of([&] { codec.encode(at::zeros(shape)); }),
                AllOf(HasSubstr("cannot be encoded"), HasSubstr("multiples of 8")));
  }
  EXPECT_THAT(error_of([&] {
                codec.decode(at::zeros({1, 16, 2, 3}));
              }),
              HasSubstr("expected [B, T, 16, h, w]"));
  EXPECT_THAT(error_of([&] { small_wan_codec({.compute = at::kDouble}); }),
              HasSubstr("compute type Double, expected Float, BFloat16 or Half"));
  EXPECT_THAT(error_of([&] { small_wan_codec({.latents_per_pass = 0}); }),
              HasSubstr("latents_per_pass 0"));
  WanVaeConfig config;
  config.temporal_downsample = {true, true};
  EXPECT_THAT(error_of([&] { WanVaeEncoder encoder(config); }),
              HasSubstr("2 values of temporal_downsample for 4 levels"));
}

TEST(WanVae, SixteenBitTypesStayNearFloat32) {
  WanVae exact = small_wan_codec(), brain = small_wan_codec({.compute = at::kBFloat16}),
         half = small_wan_codec({.compute = at::kHalf});
  EXPECT_EQ(brain.name(), exact.name());
  const at::Tensor latents = random_latents(3), video = exact.decode(latents);
  // At full width 1.9 % and 0.23 % (spec vae 7.9); there half takes minutes on a CPU.
  const at::Tensor in_brain = brain.decode(latents), in_half = half.decode(latents);
  EXPECT_EQ(in_brain.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(in_brain, video), 0.06);
  EXPECT_LT(relative_error(in_half, video), 0.01);
  EXPECT_GT(relative_error(in_half, video), 1e-5);  // it did compute in 16 bits
  const at::Tensor pixels = random_pixels(5), encoded = exact.encode(pixels);
  EXPECT_LT(relative_error(brain.encode(pixels), encoded), 0.06);
  EXPECT_LT(relative_error(half.encode(pixels), encoded), 0.01);
}

TEST(WanVae, GradientsAreFiniteWhereAPixelIsAllZero) {
  at::Tensor x = at::zeros({1, 4, 1, 2, 2});
  x.select(3, 0).fill_(1);
  x.requires_grad_();
  channel_norm(x, at::ones({4, 1, 1, 1})).sum().backward();
  EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
}

TEST(Hash32, MakesThePublishedCheckValues) {
  const at::Tensor weight = golden::hash32_parameter("decoder.conv1.weight", {384, 16, 3, 3, 3}, 1);
  EXPECT_EQ(weight.flatten()[0].item<float>(), 0.03931211307644844F);
  EXPECT_EQ(weight.flatten()[-1].item<float>(), -0.03394177183508873F);
  const at::Tensor bias = golden::hash32_parameter("decoder.conv1.bias", {384}, 1);
  EXPECT_EQ(bias[1].item<float>(), -0.08916157484054565F);
  const at::Tensor gamma = golden::hash32_parameter("encoder.head.0.gamma", {384, 1, 1, 1}, 1);
  EXPECT_EQ(gamma.flatten()[2].item<float>(), 1.1877373456954956F);
}

}  // namespace
}  // namespace minwm::models
