// The analytic codec on synthetic video.

#include <algorithm>
#include <cmath>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/random.h"
#include "minwm/core/safetensors.h"
#include "minwm/models/codec/analytic.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/waves.h"

namespace minwm::models {
namespace {

using ::minwm::testing::error_of;
using ::minwm::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace minwm::models::testing;

AnalyticCodec fitted(const AnalyticCodecOptions& options = {}) {
  static const std::vector<at::Tensor> clips = training_clips();
  return AnalyticCodec::fit(clips, options);
}

TEST(AnalyticCodec, StreamingDecodesTheSameBitsAsOneShot) {
  AnalyticCodec codec = fitted();
  const at::Tensor latents = random_normal({2, 7, 16, 4, 6}, {.seed = 1, .purpose = "test"});
  const at::Tensor whole = codec.decode(latents);
  ASSERT_EQ(whole.sizes(), at::IntArrayRef({2, 25, 3, kHeight, kWidth}));
  for (const std::vector<int64_t>& chunks :
       {std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1}, {3, 4}, {1, 5, 1}, {7}}) {
    const auto state = codec.make_decode_state();
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (const int64_t n : chunks) {
      parts.push_back(codec.decode_stream(latents.narrow(1, begin, n), *state));
      EXPECT_EQ(parts.back().size(1), begin == 0 ? 4 * n - 3 : 4 * n);
      begin += n;
    }
    EXPECT_TRUE(at::equal(at::cat(parts, 1), whole));
  }
}

TEST(AnalyticCodec, EarlierLatentsAndFramesDoNotDependOnLaterOnes) {
  AnalyticCodec codec = fitted();
  const at::Tensor pixels = to_pixels(waves(100, 13));
  const at::Tensor latents = codec.encode(pixels);
  for (const int64_t frame : {1, 5, 12}) {
    at::Tensor changed = pixels.clone();
    changed.narrow(1, frame, 13 - frame).neg_();
    const at::Tensor other = codec.encode(changed);
    const int64_t first = (frame + 3) / 4;  // the latent that covers the frame
    EXPECT_TRUE(at::equal(other.narrow(1, 0, first), latents.narrow(1, 0, first))) << frame;
    EXPECT_FALSE(at::allclose(other.select(1, first), latents.select(1, first))) << frame;
  }
  at::Tensor changed = latents.clone();
  changed.narrow(1, 2, 2).neg_();
  EXPECT_TRUE(
      at::equal(codec.decode(changed).narrow(1, 0, 5), codec.decode(latents).narrow(1, 0, 5)));
  // A clip's first latents are those of its beginning.
  EXPECT_TRUE(at::equal(codec.encode(pixels.narrow(1, 0, 5)), latents.narrow(1, 0, 2)));
}

TEST(AnalyticCodec, EncodingWhatItDecodedGivesTheLatentsBack) {
  AnalyticCodec codec = fitted();
  const at::Tensor latents = random_normal({1, 4, 16, 2, 3}, {.seed = 2, .purpose = "test"});
  EXPECT_TRUE(at::allclose(codec.encode(codec.decode(latents)), latents, 1e-4, 1e-4));
}

TEST(AnalyticCodec, ReconstructsNewClipsAndMoreChannelsReconstructBetter) {
  const at::Tensor pixels = to_pixels(waves(100, 13, 0));
  AnalyticCodec sixteen = fitted(), four = fitted({.channels = 4});
  const double fine = psnr(sixteen.decode(sixteen.encode(pixels)), pixels);
  EXPECT_GT(fine, 30);
  EXPECT_GT(fine, psnr(four.decode(four.encode(pixels)), pixels) + 3);
}

TEST(AnalyticCodec, ABasisOfFullSizeLosesNothing) {
  AnalyticCodec codec = fitted({.patch = 2, .channels = 12});
  const at::Tensor frame = to_pixels(waves(100, 1));
  EXPECT_TRUE(at::equal(to_uint8(codec.decode(codec.encode(frame))), to_uint8(frame)));
}

TEST(AnalyticCodec, LatentsHaveUnitVarianceAndHalfTheSpreadOfTheComponents) {
  const auto channel_deviations = [](AnalyticCodec codec, bool first) {
    std::vector<at::Tensor> all;
    for (const at::Tensor& clip : training_clips()) {
      const at::Tensor latents = codec.encode(to_pixels(clip))[0];
      all.push_back(first ? latents.narrow(0, 0, 1) : latents.narrow(0, 1, 3));
    }
    return at::cat(all).transpose(0, 1).flatten(1).std(1, false);
  };
  for (const bool first : {true, false}) {
    const at::Tensor none = channel_deviations(fitted({.whitening = 0}), first);
    const at::Tensor half = channel_deviations(fitted({.whitening = .5}), first);
    const at::Tensor full = channel_deviations(fitted({.whitening = 1}), first);
    for (const at::Tensor& deviations : {none, half, full}) {
      EXPECT_NEAR(deviations.square().mean().item<double>(), 1, 1e-3);
    }
    EXPECT_TRUE(at::allclose(full, at::ones({16}), 1e-3, 1e-3));
    const at::Tensor halved = none.sqrt() / none.mean().sqrt();
    EXPECT_TRUE(at::allclose(half, halved, 1e-3, 1e-3));
    EXPECT_GT((none.max() / none.min()).item<double>(), 5) << "the components are spread";
  }
}

TEST(AnalyticCodec, AStillClipHasNearlyTheSameLatentsInEveryFrame) {
  // One patch embedding serves frame 0 and the groups: the strongest channels must mean the same.
  AnalyticCodec codec = fitted();
  const at::Tensor still = to_pixels(waves(100, 1, 0).expand({5, -1, -1, -1}));
  const at::Tensor latents = codec.encode(still)[0];
  const at::Tensor strong = latents.narrow(1, 0, 3);
  const at::Tensor a = strong[0].flatten(), b = strong[1].flatten();
  const double cosine = (a.dot(b) / (a.norm() * b.norm())).item<double>();
  EXPECT_GT(cosine, .8);
}

TEST(AnalyticCodec, FittingDoesNotDependOnTheOrderOfTheClips) {
  std::vector<at::Tensor> clips = training_clips();
  std::reverse(clips.begin(), clips.end());
  EXPECT_EQ(AnalyticCodec::fit(clips, {}).name(), fitted().name());
  clips.pop_back();
  EXPECT_NE(AnalyticCodec::fit(clips, {}).name(), fitted().name());
  EXPECT_THAT(fitted().name(), StartsWith("analytic-8x8x16-"));
}

TEST(AnalyticCodec, SavedAndOpenedItIsTheSameCodec) {
  const TemporaryFolder folder;
  AnalyticCodec codec = fitted({.patch = 4, .channels = 6, .whitening = .25});
  codec.save(folder / "codec.safetensors");
  const auto opened = open_codec(folder / "codec.safetensors");
  EXPECT_EQ(opened->name(), codec.name());
  EXPECT_EQ(opened->latent_channels(), 6);
  EXPECT_EQ(opened->spatial_factor(), 4);
  const at::Tensor pixels = to_pixels(waves(100, 5));
  EXPECT_TRUE(at::equal(opened->encode(pixels), codec.encode(pixels)));
}

TEST(AnalyticCodec, RefusesWrongSizes) {
  AnalyticCodec codec = fitted();
  EXPECT_THAT(
      error_of([&] {
        codec.encode(at::zeros({1, 4, 3, 32, 32}));
      }),
      HasSubstr("pixels [1, 4, 3, 32, 32] cannot be encoded: expected [B, 1 + 4 m, 3, H, W] "
                "with H and W multiples of 8"));
  EXPECT_THAT(error_of([&] {
                codec.encode(at::zeros({1, 5, 3, 32, 30}));
              }),
              HasSubstr("[1, 5, 3, 32, 30]"));
  EXPECT_THAT(error_of([&] { codec.encode(at::zeros({5, 3, 32, 32})); }), HasSubstr("[5, 3, 32"));
  EXPECT_THAT(error_of([&] {
                codec.decode(at::zeros({1, 4, 8, 4, 4}));
              }),
              HasSubstr("latents [1, 4, 8, 4, 4] cannot be decoded: expected [B, T, 16, h, w]"));
  EXPECT_THAT(error_of([&] { codec.decode(at::zeros({1, 0, 16, 4, 4})); }), HasSubstr("[1, 0,"));
}

TEST(AnalyticCodec, RefusesToFitWhatItCannot) {
  EXPECT_THAT(error_of([] { AnalyticCodec::fit({}, {}); }), HasSubstr("no clips"));
  EXPECT_THAT(error_of([] {
                AnalyticCodec::fit({waves(0, 5), waves(1, 4)}, {});
              }),
              HasSubstr("codec clip 1: Byte [4, 32, 48, 3], expected Byte [1 + 4 m, H, W, 3]"));
  EXPECT_THAT(error_of([] { AnalyticCodec::fit({waves(0, 5)}, {.patch = 5}); }),
              HasSubstr("multiples of 5"));
  EXPECT_THAT(error_of([] { AnalyticCodec::fit({waves(0, 5)}, {.channels = 193}); }),
              HasSubstr("codec channels 193: a patch of 8 x 8 pixels has 192 numbers"));
  EXPECT_THAT(error_of([] { AnalyticCodec::fit({waves(0, 5)}, {.whitening = 2}); }),
              HasSubstr("codec whitening 2"));
  const at::Tensor grey = at::full({5, 32, 32, 3}, 100, at::kByte);
  EXPECT_THAT(
      error_of([&] { AnalyticCodec::fit({grey}, {}); }),
      HasSubstr("cannot fit 16 channels to 16 frame blocks: they vary in fewer directions"));
}

TEST(AnalyticCodec, RefusesFilesThatAreNotCodecs) {
  const TemporaryFolder folder;
  const auto path = folder / "codec.safetensors";
  fitted().save(path);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::map<std::string, std::string> metadata;
  {
    const Safetensors file(path);
    metadata = file.metadata();
    for (const std::string& name : file.names()) {
      tensors.emplace_back(name, file.get(name));
    }
  }
  /// The error after one change, which must name the file.
  const auto refused = [&](const auto& change) {
    auto changed_tensors = tensors;
    auto changed_metadata = metadata;
    change(changed_tensors, changed_metadata);
    write_safetensors(path, changed_tensors, changed_metadata);
    const std::string message = error_of([&] { open_codec(path); });
    EXPECT_THAT(message, AllOf(HasSubstr(path.string()), ::testing::Not(HasSubstr("\n"))));
    return message;
  };
  EXPECT_THAT(refused([](auto&, auto& m) { m["format"] = "vae"; }),
              HasSubstr("not an analytic codec"));
  EXPECT_THAT(refused([](auto&, auto& m) { m.clear(); }), HasSubstr("not an analytic codec"));
  EXPECT_THAT(refused([](auto&, auto& m) { m["version"] = "9"; }),
              HasSubstr("codec version 9, this program reads 1"));
  EXPECT_THAT(refused([](auto&, auto& m) { m["patch"] = "eight"; }), HasSubstr("'eight'"));
  EXPECT_THAT(refused([](auto&, auto& m) { m["patch"] = "-8"; }), HasSubstr("codec patch -8"));
  EXPECT_THAT(refused([](auto&, auto& m) { m.erase("name"); }), HasSubstr("'name' is missing"));
  EXPECT_THAT(refused([](auto& t, auto&) { t.pop_back(); }),
              HasSubstr("tensor group.scale is missing"));
  EXPECT_THAT(refused([](auto& t, auto&) { t[0].second = t[0].second.t().contiguous(); }),
              HasSubstr("tensor frame.basis is Float [192, 16], expected Float [16, 192]"));
  EXPECT_THAT(refused([](auto& t, auto&) { t[1].second = t[1].second.to(at::kDouble); }),
              HasSubstr("tensor frame.mean is Double"));
  EXPECT_THAT(refused([](auto& t, auto&) { t[1].second = at::full_like(t[1].second, NAN); }),
              HasSubstr("tensor frame.mean is not finite"));
  EXPECT_THAT(refused([](auto& t, auto&) { t[2].second = at::zeros_like(t[2].second); }),
              HasSubstr("frame.scale is not positive"));
  EXPECT_THAT(refused([](auto& t, auto&) { t[1].second = t[1].second + 1; }),
              HasSubstr("damaged: the content is that of analytic-8x8x16-"));
  EXPECT_THAT(error_of([&] { open_codec(folder / "absent.safetensors"); }),
              HasSubstr("absent.safetensors"));
}

TEST(ToUint8, RoundsToTheNearestWithTiesToEvenAndClamps) {
  const at::Tensor pixels = at::tensor({-1.0F, 0.0F, 1.0F, 2.0F, -7.0F, 1 / 127.5F, 3 / 255.0F});
  // 127.5 rounds to 128; 127.5 + 1.5 = 129; 127.5 + 1 = 128.5 rounds to 128.
  EXPECT_TRUE(at::equal(to_uint8(pixels), at::tensor({0, 128, 255, 255, 0, 128, 129}, at::kByte)));
}

}  // namespace
}  // namespace minwm::models
