// The HunyuanVideo-1.5 VAE with random weights: names, streams, tiles, files, refusals. Its numbers
// are golden cases.

#include "minwm/models/codec/hy_vae.h"

#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/core/safetensors.h"
#include "minwm/nn/parameters.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/small_codecs.h"

namespace minwm::models {
namespace {

using ::minwm::testing::error_of;
using ::minwm::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using namespace minwm::models::testing;

/// The published structure, narrower.
HyVaeConfig small_config() {
  return {.latent_channels = 4, .block_out_channels = {8, 8, 16, 16, 16}};
}

Tensors small_weights() {
  return random_weights(*HyVaeEncoder(small_config()), *HyVaeDecoder(small_config()));
}

HyVae small_vae(const HyVaeOptions& options = {}) {
  return {small_config(), small_weights(), "test", options};
}

at::Tensor random_latents(int64_t frames, uint64_t seed = 1) {
  return random_normal({1, frames, 4, 2, 3}, {.seed = seed, .purpose = "latents"});
}

at::Tensor random_pixels(int64_t frames) {
  return random_normal({1, frames, 3, 32, 48}, {.seed = 3, .purpose = "pixels"}).tanh();
}

TEST(HyVae, HasTheNamesAndShapesOfThePublishedFile) {
  const Shapes published = published_shapes("hunyuanvideo15_vae");
  if (published.empty()) {
    GTEST_SKIP() << "no list of the published tensors here";
  }
  EXPECT_EQ(published.size(), 218U);
  const HyVaeConfig config = hy_vae_config(without_values(published), "test");
  EXPECT_EQ(config.block_out_channels, HyVaeConfig().block_out_channels);
  EXPECT_EQ(config.layers_per_block, 2);
  EXPECT_EQ(config.latent_channels, 32);
  EXPECT_EQ(config.ffactor_spatial, 16);
  EXPECT_EQ(config.ffactor_temporal, 4);
  const nn::HollowParameters hollow;
  EXPECT_EQ(shapes_of(*HyVaeEncoder(config), *HyVaeDecoder(config)), published);
}

TEST(HyVae, AStreamInAnyPartsIsTheSameBitsAsTheWhole) {
  HyVae codec = small_vae();
  const at::Tensor latents = random_latents(5), whole = codec.decode(latents);
  ASSERT_EQ(whole.sizes(), at::IntArrayRef({1, 17, 3, 32, 48}));
  for (const std::vector<int64_t>& parts : {std::vector<int64_t>{1, 1, 1, 1, 1}, {1, 4}, {3, 2}}) {
    EXPECT_TRUE(at::equal(streamed(codec, latents, parts), whole))
        << ::testing::PrintToString(parts);
  }
}

TEST(HyVae, SeveralLatentsInOnePassAreOneByOneUpToRounding) {
  HyVae codec = small_vae(), wide = small_vae({.latents_per_pass = 3});
  const at::Tensor latents = random_latents(5), whole = codec.decode(latents);
  const double scale = whole.abs().max().item<double>();
  double largest = 0;
  for (const std::vector<int64_t>& parts : {std::vector<int64_t>{1, 3, 1}, {5}}) {
    const double difference = largest_difference(streamed(wide, latents, parts), whole);
    largest = std::max(largest, difference);
    EXPECT_LT(difference, 1e-5 * scale);
  }
  RecordProperty("difference", fmt::format("{:.2e} of {:.2e}", largest, scale));
  const at::Tensor pixels = random_pixels(17), encoded = codec.encode(pixels);
  EXPECT_LT(largest_difference(wide.encode(pixels), encoded),
            1e-5 * encoded.abs().max().item<double>());
}

TEST(HyVae, OneShotDiffersInWhatItsAttentionSees) {
  const at::NoGradGuard no_grad;
  HyVaeDecoder decoder(small_config());
  const auto load = [&](Tensors tensors) {
    std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("encoder."); });
    load_state(*decoder, tensors, "test");
  };
  const auto both = [&] {
    FeatureHistory history;
    const at::Tensor z = random_latents(3).transpose(1, 2);
    return std::pair{decoder->decode(z, history), decoder->decode_oneshot(z)};
  };
  Tensors tensors = small_weights();
  load(tensors);
  const auto [streamed, oneshot] = both();
  const double scale = streamed.abs().max().item<double>();
  EXPECT_LT(largest_difference(streamed.narrow(2, 0, 1), oneshot.narrow(2, 0, 1)), 1e-5 * scale);
  EXPECT_GT(largest_difference(streamed, oneshot), 1e-3 * scale);
  tensors["decoder.mid.attn_1.proj_out.weight"].zero_();
  load(tensors);
  const auto [without, without_oneshot] = both();
  EXPECT_LT(largest_difference(without, without_oneshot), 1e-5 * scale);
}

TEST(HyVae, TheStateOfAStreamDoesNotGrow) {
  HyVae codec = small_vae();
  HyVaeDecodeState state;
  codec.decode_stream(random_latents(2), state);
  const int64_t bytes = state.history.bytes();
  EXPECT_EQ(state.history.slots.size(), 40U);  // of the published depth (spec vae 4.3)
  for (const int64_t count : {1, 2}) {
    codec.decode_stream(random_latents(count), state);
    EXPECT_EQ(state.history.bytes(), bytes);
  }
}

TEST(HyVae, TwoStreamsTakeTurnsAndABranchLeavesItsTrunkAlone) {
  HyVae codec = small_vae();
  const at::Tensor one = random_latents(3, 1), two = random_latents(3, 2);
  HyVaeDecodeState first, second;
  std::vector<at::Tensor> of_first, of_second;
  for (int64_t k = 0; k < 3; ++k) {
    if (k == 2) {
      HyVaeDecodeState branch = first;
      codec.decode_stream(two.narrow(1, 0, 1), branch);
    }
    of_first.push_back(codec.decode_stream(one.narrow(1, k, 1), first));
    of_second.push_back(codec.decode_stream(two.narrow(1, k, 1), second));
  }
  EXPECT_TRUE(at::equal(at::cat(of_first, 1), codec.decode(one)));
  EXPECT_TRUE(at::equal(at::cat(of_second, 1), codec.decode(two)));
}

TEST(HyVae, ARefusedPartLeavesTheStreamWhereItWas) {
  HyVae codec = small_vae();
  const at::Tensor latents = random_latents(3);
  const auto state = codec.make_decode_state();
  const at::Tensor start = codec.decode_stream(latents.narrow(1, 0, 1), *state);
  EXPECT_THAT(error_of([&] {
                codec.decode_stream(at::zeros({1, 1, 4, 3, 3}), *state);
              }),
              HasSubstr("expected the same batch, height and width"));
  EXPECT_THAT(error_of([&] {
                codec.decode_stream(at::zeros({1, 1, 8, 2, 3}), *state);
              }),
              HasSubstr("latents [1, 1, 8, 2, 3] cannot be decoded"));
  const at::Tensor rest = codec.decode_stream(latents.narrow(1, 1, 2), *state);
  EXPECT_TRUE(at::equal(at::cat({start, rest}, 1), codec.decode(latents)));
}

TEST(HyVae, LatentsDoNotDependOnLaterFramesAndARaggedTailIsDropped) {
  HyVae codec = small_vae();
  const at::Tensor pixels = random_pixels(9), latents = codec.encode(pixels);
  ASSERT_EQ(latents.sizes(), at::IntArrayRef({1, 3, 4, 2, 3}));
  at::Tensor changed = pixels.clone();
  changed.narrow(1, 5, 4).neg_();
  const at::Tensor other = codec.encode(changed);
  EXPECT_TRUE(at::equal(other.narrow(1, 0, 2), latents.narrow(1, 0, 2)));
  EXPECT_FALSE(at::allclose(other.select(1, 2), latents.select(1, 2)));
  EXPECT_TRUE(at::equal(codec.encode(pixels.narrow(1, 0, 8)), latents.narrow(1, 0, 2)));
}

TEST(HyVae, TilesCoverTheVideoAndOneTileIsTheWhole) {
  const at::NoGradGuard no_grad;
  HyVaeDecoder decoder(small_config());
  Tensors tensors = small_weights();
  std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("encoder."); });
  load_state(*decoder, tensors, "test");
  const at::Tensor z = random_normal({1, 4, 2, 5, 7}, {.seed = 5, .purpose = "latents"});
  const at::Tensor whole = decoder->decode_oneshot(z);
  EXPECT_TRUE(at::equal(decoder->decode_tiled(z, {.sample_size = 256, .overlap = 0}), whole));
  const at::Tensor tiled = decoder->decode_tiled(z, {.sample_size = 64, .overlap = 0.25});
  EXPECT_EQ(tiled.sizes(), whole.sizes());
  EXPECT_TRUE(tiled.isfinite().all().item<bool>());
  // The first tile's inside is a tile decoded alone: nothing is blended into it.
  const at::Tensor corner = decoder->decode_oneshot(z.narrow(3, 0, 4).narrow(4, 0, 4));
  EXPECT_LT(largest_difference(tiled.narrow(3, 0, 48).narrow(4, 0, 48),
                               corner.narrow(3, 0, 48).narrow(4, 0, 48)),
            1e-5);
  for (const HyVaeTiling& tiling :
       {HyVaeTiling{.sample_size = 24}, HyVaeTiling{.sample_size = 64, .overlap = 0.3},
        HyVaeTiling{.sample_size = 64, .overlap = 1}, HyVaeTiling{.sample_size = 0}}) {
    EXPECT_THAT(error_of([&] { decoder->decode_tiled(z, tiling); }),
                HasSubstr("expected a multiple of 16 pixels and an overlap in [0, 1)"));
  }
}

TEST(HyVae, SixteenBitTypesStayNearFloat32) {
  HyVae exact = small_vae(), brain = small_vae({.compute = at::kBFloat16}),
        half = small_vae({.compute = at::kHalf});
  EXPECT_EQ(brain.name(), exact.name());
  const at::Tensor latents = random_latents(2), video = exact.decode(latents);
  EXPECT_EQ(brain.decode(latents).scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(brain.decode(latents), video), 0.06);
  EXPECT_LT(relative_error(half.decode(latents), video), 0.01);
  EXPECT_GT(relative_error(half.decode(latents), video), 1e-5);  // it did compute in 16 bits
  const at::Tensor pixels = random_pixels(5), encoded = exact.encode(pixels);
  EXPECT_LT(relative_error(brain.encode(pixels), encoded), 0.06);
  EXPECT_LT(relative_error(half.encode(pixels), encoded), 0.01);
}

TEST(HyVae, RefusesWrongSizesAndOptions) {
  HyVae codec = small_vae();
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1, 1, 3, 32, 40},
                                            {1, 1, 3, 24, 32},
                                            {1, 1, 4, 32, 32},
                                            {1, 3, 32, 32},
                                            {1, 0, 3, 32, 32}}) {
    EXPECT_THAT(error_of([&] { codec.encode(at::zeros(shape)); }), HasSubstr("cannot be encoded"));
  }
  EXPECT_THAT(error_of([&] {
                codec.decode(at::zeros({1, 4, 2, 3}));
              }),
              HasSubstr("expected [B, T, 4, h, w]"));
  EXPECT_THAT(error_of([&] { small_vae({.compute = at::kDouble}); }),
              HasSubstr("compute type Double, expected Float, BFloat16 or Half"));
  EXPECT_THAT(error_of([&] { small_vae({.latents_per_pass = 0}); }),
              HasSubstr("latents_per_pass 0"));
  EXPECT_THAT(error_of([&] {
                HyVaeEncoder encoder(
                    HyVaeConfig{.latent_channels = 5, .block_out_channels = {8, 8, 16, 16, 16}});
              }),
              HasSubstr("a last width of 16, expected a multiple of 10"));
  EXPECT_THAT(error_of([] { HyVaeEncoder encoder(HyVaeConfig{.ffactor_spatial = 12}); }),
              HasSubstr("expected powers of 2"));
}

TEST(HyVaeFile, OpensByItsNamesWithTheSizesItHas) {
  const TemporaryFolder folder;
  const Tensors tensors = small_weights();
  write_safetensors(folder / "diffusion_pytorch_model.safetensors",
                    {tensors.begin(), tensors.end()});
  HyVae direct = small_vae();
  for (const auto& path : {folder / "diffusion_pytorch_model.safetensors", folder.path()}) {
    const auto opened = open_codec(path);
    EXPECT_THAT(opened->name(), StartsWith("hunyuanvideo1.5-vae-"));
    EXPECT_EQ(opened->name(), direct.name());
    EXPECT_EQ(opened->latent_channels(), 4);
    EXPECT_EQ(opened->spatial_factor(), 16);
    EXPECT_TRUE(at::equal(opened->decode(random_latents(2)), direct.decode(random_latents(2))));
  }
}

TEST(HyVaeFile, RefusesWhatDoesNotFitNamingFileAndTensor) {
  const TemporaryFolder folder;
  const auto path = folder / "vae.safetensors";
  const auto refused = [&](const auto& change) {
    Tensors tensors = small_weights();
    change(tensors);
    write_safetensors(path, {tensors.begin(), tensors.end()});
    const std::string message = error_of([&] { open_codec(path); });
    EXPECT_THAT(message, AllOf(HasSubstr(path.string()), Not(HasSubstr("\n"))));
    return message;
  };
  EXPECT_THAT(refused([](auto& t) { t.erase("decoder.norm_out.gamma"); }),
              HasSubstr("lacks the parameter 'decoder.norm_out.gamma'"));
  EXPECT_THAT(refused([](auto& t) { t.erase("encoder.conv_in.conv.weight"); }),
              HasSubstr("tensor encoder.conv_in.conv.weight is missing"));
  EXPECT_THAT(refused([](auto& t) { t["loss.weight"] = at::zeros({3}); }),
              HasSubstr("tensor loss.weight is none of a HunyuanVideo VAE"));
  EXPECT_THAT(
      refused([](auto& t) { t["encoder.conv_in.conv.bias"] = at::zeros({5}); }),
      AllOf(HasSubstr("'encoder.conv_in.conv.bias' has shape [5]"), HasSubstr("expected [8]")));
  EXPECT_THAT(refused([](auto& t) { t["encoder.conv_in.conv.bias"].fill_(NAN); }),
              HasSubstr("tensor encoder.conv_in.conv.bias is not finite"));
}

}  // namespace
}  // namespace minwm::models
