// The tiny autoencoders with random weights: names, streams, previews, files, refusals. Their
// numbers are golden cases.

#include "minwm/models/codec/taehv.h"

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

TaehvConfig base_config() {
  return {.latent_channels = 4, .encoder_width = 6, .decoder_widths = {8, 6, 4, 4}};
}

TaehvConfig super_config() {
  return {.arch = TaehvArch::kSuper,
          .patch_size = 2,
          .latent_channels = 4,
          .encoder_width = 6,
          .decoder_widths = {8, 6, 4, 4}};
}

Tensors weights(const TaehvConfig& config) {
  return random_weights(*TaehvEncoder(config), *TaehvDecoder(config));
}

TaehvCodec codec_of(const TaehvConfig& config, at::ScalarType compute = at::kFloat) {
  return {config, weights(config), "test", compute};
}

at::Tensor random_latents(int64_t frames, uint64_t seed = 1) {
  return random_normal({1, frames, 4, 2, 3}, {.seed = seed, .purpose = "latents"});
}

/// In [0, 1].
at::Tensor random_video(int64_t frames) {
  return random_normal({1, frames, 3, 16, 32}, {.seed = 3, .purpose = "pixels"}).sigmoid();
}

TEST(Taehv, HasTheNamesAndShapesOfThePublishedFiles) {
  for (const auto& [name, count] : std::map<std::string, size_t>{
           {"taew2_1", 128}, {"taehv1_5", 128}, {"taehv1_5_super", 112}}) {
    const Shapes published = published_shapes(name);
    if (published.empty()) {
      GTEST_SKIP() << "no list of the published tensors here";
    }
    EXPECT_EQ(published.size(), count);
    const TaehvConfig config = taehv_config(without_values(published), name);
    EXPECT_EQ(config.patch_size, name == "taew2_1" ? 1 : 2);
    EXPECT_EQ(config.latent_channels, name == "taew2_1" ? 16 : 32);
    EXPECT_EQ(config.arch == TaehvArch::kSuper, name == "taehv1_5_super");
    const nn::HollowParameters hollow;
    EXPECT_EQ(shapes_of(*TaehvEncoder(config), *TaehvDecoder(config)), published) << name;
  }
}

TEST(Taehv, AStreamInAnyPartsIsOneShotUpToRounding) {
  double largest = 0;
  for (const TaehvConfig& config : {base_config(), super_config()}) {
    TaehvCodec codec = codec_of(config);
    const int64_t s = codec.spatial_factor();
    const at::Tensor latents = random_latents(6), whole = codec.decode(latents);
    ASSERT_EQ(whole.sizes(), at::IntArrayRef({1, 21, 3, 2 * s, 3 * s}));
    ASSERT_LE(whole.abs().max().item<double>(), 1);
    for (const std::vector<int64_t>& parts :
         {std::vector<int64_t>{1, 1, 1, 1, 1, 1}, {1, 3, 2}, {4, 2}}) {
      const double difference = largest_difference(streamed(codec, latents, parts), whole);
      largest = std::max(largest, difference);
      EXPECT_LT(difference, 1e-5) << ::testing::PrintToString(parts);
    }
  }
  RecordProperty("difference", fmt::format("{:.2e}", largest));
}

TEST(Taehv, FramesEncodedOneByOneAreTheClipUpToRounding) {
  const at::NoGradGuard no_grad;
  for (const TaehvConfig& config : {base_config(), super_config()}) {
    TaehvEncoder encoder(config);
    Tensors tensors = weights(config);
    std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("decoder."); });
    load_state(*encoder, tensors, "test");
    const at::Tensor video = random_video(9), whole = encoder->encode(video);
    ASSERT_EQ(whole.size(1), 3);
    TaehvEncodeState state;
    std::vector<at::Tensor> latents;
    for (int64_t t = 0; t < 9; ++t) {
      latents.push_back(encoder->encode_next(video.narrow(1, t, 1), state));
      EXPECT_EQ(latents.back().size(1), t % 4 == 3 ? 1 : 0);
    }
    EXPECT_THAT(error_of([&] {
                  encoder->encode_next(at::zeros({1, 1, 3, 32, 32}), state);
                }),
                HasSubstr("expected the same batch, height and width"));
    latents.push_back(encoder->flush(state));
    EXPECT_LT(largest_difference(at::cat(latents, 1), whole), 1e-5);
    EXPECT_FALSE(encoder->flush(state).defined());
    // After a flush a stream starts anew.
    EXPECT_LT(largest_difference(encoder->encode_next(video.narrow(1, 0, 4), state),
                                 whole.narrow(1, 0, 1)),
              1e-5);
  }
}

TEST(Taehv, TheStateOfAStreamDoesNotGrow) {
  for (const TaehvConfig& config : {base_config(), super_config()}) {
    TaehvCodec codec = codec_of(config);
    TaehvDecodeState state;
    codec.decode_stream(random_latents(1), state);
    const int64_t bytes = state.history.bytes();
    EXPECT_EQ(state.history.slots.size(), 9U);
    // One frame before each of three blocks per stage, of the stage's width and size.
    EXPECT_EQ(bytes, 4 * 3 * (2 * 3) * (8 + 4 * 6 + 16 * 4));
    for (const int64_t count : {2, 1}) {
      codec.decode_stream(random_latents(count), state);
      EXPECT_EQ(state.history.bytes(), bytes);
    }
  }
}

TEST(Taehv, TwoStreamsTakeTurnsAndABranchLeavesItsTrunkAlone) {
  TaehvCodec codec = codec_of(base_config());
  const at::Tensor one = random_latents(3, 1), two = random_latents(3, 2);
  TaehvDecodeState first, second;
  std::vector<at::Tensor> of_first, of_second;
  for (int64_t k = 0; k < 3; ++k) {
    if (k == 2) {
      TaehvDecodeState branch = first;
      codec.decode_stream(two.narrow(1, 0, 1), branch);
    }
    of_first.push_back(codec.decode_stream(one.narrow(1, k, 1), first));
    of_second.push_back(codec.decode_stream(two.narrow(1, k, 1), second));
  }
  EXPECT_TRUE(at::equal(at::cat(of_first, 1), streamed(codec, one, {1, 1, 1})));
  EXPECT_TRUE(at::equal(at::cat(of_second, 1), streamed(codec, two, {1, 1, 1})));
}

TEST(Taehv, ARefusedPartLeavesTheStreamWhereItWas) {
  TaehvCodec codec = codec_of(base_config());
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
  EXPECT_TRUE(at::equal(at::cat({start, rest}, 1), streamed(codec, latents, {1, 2})));
}

TEST(Taehv, PreviewsAreSmallerAndKeepTheLastRowsOfTimeSteps) {
  TaehvConfig config = base_config();
  const Tensors whole = weights(config);
  config.time_upscale = {false, false, true};
  config.space_upscale = {true, false, false};
  TaehvCodec preview(config, whole, "test");
  const at::Tensor pixels = preview.decode(random_latents(3));
  EXPECT_EQ(pixels.sizes(), at::IntArrayRef({1, 5, 3, 4, 6}));  // 2 per latent, without the first
  Tensors cut = whole;
  cut["decoder.13.conv.weight"] = cut["decoder.13.conv.weight"].narrow(0, 6, 6);
  TaehvCodec from_cut(config, cut, "test");
  EXPECT_TRUE(at::equal(from_cut.decode(random_latents(3)), pixels));
}

TEST(Taehv, SixteenBitTypesStayNearFloat32) {
  for (const TaehvConfig& config : {base_config(), super_config()}) {
    TaehvCodec exact = codec_of(config), brain = codec_of(config, at::kBFloat16),
               half = codec_of(config, at::kHalf);
    EXPECT_EQ(brain.name(), exact.name());
    const at::Tensor latents = random_latents(3), video = exact.decode(latents);
    EXPECT_EQ(brain.decode(latents).scalar_type(), at::kFloat);
    EXPECT_LT(relative_error(brain.decode(latents), video), 0.06);
    EXPECT_LT(relative_error(half.decode(latents), video), 0.01);
    EXPECT_GT(relative_error(half.decode(latents), video), 1e-6);  // it did compute in 16 bits
    const at::Tensor pixels = random_video(5) * 2 - 1;
    EXPECT_LT(relative_error(half.encode(pixels), exact.encode(pixels)), 0.01);
  }
}

TEST(Taehv, RefusesWrongSizesAndOptions) {
  TaehvCodec codec = codec_of(super_config());
  EXPECT_THAT(error_of([&] {
                codec.encode(at::zeros({1, 5, 3, 16, 24}));
              }),
              AllOf(HasSubstr("cannot be encoded"), HasSubstr("multiples of 16")));
  EXPECT_THAT(error_of([&] {
                codec.decode(at::zeros({1, 4, 2, 3}));
              }),
              HasSubstr("expected [N, T, 4, h, w]"));
  EXPECT_THAT(error_of([] { codec_of(base_config(), at::kDouble); }),
              HasSubstr("compute type Double, expected Float, BFloat16 or Half"));
  TaehvConfig config = super_config();
  config.space_upscale = {true, true, false};
  EXPECT_THAT(error_of([&] { TaehvDecoder decoder(config); }),
              HasSubstr("the super decoder has no smaller preview"));
  config = base_config();
  config.decoder_widths = {8, 6, 4};
  EXPECT_THAT(error_of([&] { TaehvDecoder decoder(config); }),
              HasSubstr("decoder_widths [8, 6, 4]: expected 4"));
}

TEST(TaehvFile, OpensByItsNamesWithTheSizesItHas) {
  const TemporaryFolder folder;
  for (const TaehvConfig& config : {base_config(), super_config()}) {
    const Tensors tensors = weights(config);
    write_safetensors(folder / "tiny.safetensors", {tensors.begin(), tensors.end()});
    const auto opened = open_codec(folder / "tiny.safetensors");
    TaehvCodec direct = codec_of(config);
    EXPECT_THAT(opened->name(), StartsWith("taehv-"));
    EXPECT_EQ(opened->name(), direct.name());
    EXPECT_EQ(opened->latent_channels(), 4);
    EXPECT_EQ(opened->spatial_factor(), 8 * config.patch_size);
    EXPECT_TRUE(at::equal(opened->decode(random_latents(2)), direct.decode(random_latents(2))));
  }
}

TEST(TaehvFile, RefusesWhatDoesNotFitNamingFileAndTensor) {
  const TemporaryFolder folder;
  const auto path = folder / "tiny.safetensors";
  const auto refused = [&](const auto& change) {
    Tensors tensors = weights(base_config());
    change(tensors);
    write_safetensors(path, {tensors.begin(), tensors.end()});
    const std::string message = error_of([&] { open_codec(path); });
    EXPECT_THAT(message, AllOf(HasSubstr(path.string()), Not(HasSubstr("\n"))));
    return message;
  };
  EXPECT_THAT(refused([](auto& t) { t.erase("decoder.22.bias"); }),
              HasSubstr("lacks the parameter 'decoder.22.bias'"));
  EXPECT_THAT(refused([](auto& t) { t.erase("encoder.17.weight"); }),
              HasSubstr("tensor encoder.17.weight is missing"));
  EXPECT_THAT(refused([](auto& t) { t["loss.weight"] = at::zeros({3}); }),
              HasSubstr("tensor loss.weight is none of a TAEHV autoencoder"));
  EXPECT_THAT(refused([](auto& t) {
                t["encoder.0.weight"] = at::zeros({6, 5, 3, 3});
              }),
              HasSubstr("encoder.0.weight has 5 input channels, expected 3 p²"));
  EXPECT_THAT(refused([](auto& t) { t["encoder.0.bias"].fill_(NAN); }),
              HasSubstr("tensor encoder.0.bias is not finite"));
}

}  // namespace
}  // namespace minwm::models
