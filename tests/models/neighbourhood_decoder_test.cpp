// The decoder that sees around its block: better pictures from the same latents.

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/files.h"
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
using ::testing::Not;
using ::testing::StartsWith;
using namespace minwm::models::testing;

constexpr int64_t kChannels = 6;  ///< few, so that blocks show

const AnalyticCodec& block_codec() {
  static const AnalyticCodec codec = AnalyticCodec::fit(training_clips(), {.channels = kChannels});
  return codec;
}

AnalyticCodec with_neighbourhood(const NeighbourhoodOptions& options = {.ridge = 30}) {
  AnalyticCodec codec = block_codec();
  codec.fit_decoder(training_clips(), options);
  return codec;
}

at::Tensor noisy(const at::Tensor& latents, double noise, uint64_t seed) {
  return latents + noise * random_normal(latents.sizes(), {.seed = seed, .purpose = "test.noise"});
}

/// Mean difference across the borders of 8 x 8 blocks over that inside.
double block_edges(const at::Tensor& pixels) {
  const auto part = [&](int64_t axis, bool border) {
    const at::Tensor steps = pixels.diff(1, axis).abs();
    const at::Tensor at_border = at::arange(1, steps.size(axis) + 1).remainder(8) == 0;
    const at::Tensor chosen = border ? at_border : at_border.logical_not();
    return steps.index_select(axis, chosen.nonzero().squeeze(1)).mean().item<double>();
  };
  return (part(3, true) + part(4, true)) / (part(3, false) + part(4, false));
}

TEST(NeighbourhoodDecoder, BeatsTheBlockAloneOnEveryNewClipExactAndNoisy) {
  AnalyticCodec block = block_codec(), wide = with_neighbourhood();
  for (uint64_t seed = 100; seed < 108; ++seed) {
    const at::Tensor pixels = to_pixels(waves(seed, 13));
    const at::Tensor latents = block.encode(pixels);
    EXPECT_TRUE(at::equal(wide.encode(pixels), latents));
    for (const double noise : {0., .1, .2}) {
      const at::Tensor seen = noisy(latents, noise, seed);
      const at::Tensor before = block.decode(seen), after = wide.decode(seen);
      EXPECT_GT(psnr(after, pixels), psnr(before, pixels) + .2) << seed << ", noise " << noise;
      EXPECT_GE(psnr(after.narrow(1, 0, 1), pixels.narrow(1, 0, 1)),
                psnr(before.narrow(1, 0, 1), pixels.narrow(1, 0, 1)))
          << seed << ", noise " << noise;
      EXPECT_LT(block_edges(after), block_edges(before)) << seed << ", noise " << noise;
    }
  }
}

TEST(NeighbourhoodDecoder, KeepsWhatEncodesAndItsName) {
  const TemporaryFolder folder;
  const AnalyticCodec wide = with_neighbourhood();
  EXPECT_EQ(wide.name(), block_codec().name());
  EXPECT_EQ(block_codec().decoder(), "block");
  EXPECT_THAT(wide.decoder(), StartsWith("neighbourhood-3x3-"));
  EXPECT_NE(wide.decoder(), with_neighbourhood({.noise = .2}).decoder());
  EXPECT_EQ(wide.without_neighbourhood().decoder(), "block");
  block_codec().save(folder / "block.safetensors");
  wide.save(folder / "wide.safetensors");
  wide.without_neighbourhood().save(folder / "again.safetensors");
  EXPECT_EQ(read_file(folder / "again.safetensors"), read_file(folder / "block.safetensors"));
  const Safetensors old(folder / "block.safetensors"), extended(folder / "wide.safetensors");
  EXPECT_EQ(old.names().size(), 6);
  for (const std::string& name : old.names()) {
    EXPECT_TRUE(at::equal(extended.get(name), old.get(name))) << name;
  }
  for (const auto& [key, value] : old.metadata()) {
    EXPECT_EQ(extended.metadata().at(key), value) << key;
  }
}

TEST(NeighbourhoodDecoder, SavedAndOpenedFilesWithItAndWithoutDecodeTheSameBits) {
  const TemporaryFolder folder;
  const at::Tensor latents = random_normal({2, 3, kChannels, 3, 4}, {.seed = 3, .purpose = "test"});
  for (AnalyticCodec codec :
       {block_codec(), with_neighbourhood(), with_neighbourhood({.reach = 2})}) {
    codec.save(folder / "codec.safetensors");
    AnalyticCodec opened = AnalyticCodec::load(folder / "codec.safetensors");
    EXPECT_EQ(opened.decoder(), codec.decoder());
    EXPECT_TRUE(at::equal(opened.decode(latents), codec.decode(latents))) << codec.decoder();
    opened.save(folder / "again.safetensors");
    EXPECT_EQ(read_file(folder / "again.safetensors"), read_file(folder / "codec.safetensors"));
  }
}

TEST(NeighbourhoodDecoder, StreamingDecodesTheSameBitsAsOneShotAndLooksAtNoOtherTime) {
  AnalyticCodec codec = with_neighbourhood();
  const at::Tensor latents = random_normal({2, 7, kChannels, 4, 6}, {.seed = 1, .purpose = "test"});
  const at::Tensor whole = codec.decode(latents);
  for (const std::vector<int64_t>& chunks :
       {std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1}, {3, 4}, {7}}) {
    const auto state = codec.make_decode_state();
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (const int64_t n : chunks) {
      parts.push_back(codec.decode_stream(latents.narrow(1, begin, n), *state));
      begin += n;
    }
    EXPECT_TRUE(at::equal(at::cat(parts, 1), whole));
  }
  at::Tensor changed = latents.clone();
  changed.select(1, 3).neg_();  // frames 9 … 12
  const at::Tensor other = codec.decode(changed);
  EXPECT_TRUE(at::equal(other.narrow(1, 0, 9), whole.narrow(1, 0, 9)));
  EXPECT_TRUE(at::equal(other.narrow(1, 13, 12), whole.narrow(1, 13, 12)));
  EXPECT_FALSE(at::equal(other.narrow(1, 9, 4), whole.narrow(1, 9, 4)));
}

TEST(NeighbourhoodDecoder, ALatentVectorReachesTheBlocksAroundItsOwnAndNoFurther) {
  const at::Tensor latents = random_normal({1, 2, kChannels, 6, 7}, {.seed = 4, .purpose = "test"});
  at::Tensor changed = latents.clone();
  changed.select(3, 2).select(3, 3) += 1;  // row 2, column 3
  for (const int64_t reach : {0, 1, 2}) {
    AnalyticCodec codec = with_neighbourhood({.reach = reach});
    const at::Tensor difference = (codec.decode(changed) - codec.decode(latents)).abs();
    const at::Tensor blocks =
        difference.view({5, 3, 6, 8, 7, 8}).permute({2, 4, 0, 1, 3, 5}).flatten(2).amax(2);
    at::Tensor expected = at::zeros({6, 7}, at::kBool);
    expected.narrow(0, std::max<int64_t>(2 - reach, 0), 2 * reach + 1)
        .narrow(1, 3 - reach, 2 * reach + 1)
        .fill_(true);
    EXPECT_TRUE(at::equal(blocks > 1e-5, expected)) << blocks;
  }
}

TEST(NeighbourhoodDecoder, IsThatOfNoisyCopiesInClosedForm) {
  // At the border of a 2 x 3 picture a latent vector, and so its noise, stands in several places.
  const int64_t channels = 2, size = 4, copies = 4000;
  const double noise = .5;
  const at::Tensor latents =
      random_normal({5, channels, 2, 3}, {.seed = 5, .purpose = "test.latents"});
  const at::Tensor blocks = random_normal({5 * 6, size}, {.seed = 6, .purpose = "test.blocks"});
  const at::Tensor own = at::zeros({channels, size});
  NeighbourhoodFit exact(channels, size, 1), sampled(channels, size, 1);
  exact.add(latents, blocks);
  const at::Tensor many = latents.repeat({copies, 1, 1, 1});
  sampled.add(noisy(many, noise, 7), blocks.repeat({copies, 1}));
  // The pull of one block in 30 is that of `copies` in 30 times as many.
  const NeighbourhoodDecoder a = exact.solve(own, noise, 1);
  const NeighbourhoodDecoder b = sampled.solve(own, 0, copies);
  EXPECT_LT((a.weight - b.weight).norm().item<double>(), .05 * a.weight.norm().item<double>());
  EXPECT_LT((a.bias - b.bias).norm().item<double>(), .05 * a.bias.norm().item<double>());
  const NeighbourhoodDecoder c = exact.solve(own, 0, 1);
  EXPECT_GT((a.weight - c.weight).norm().item<double>(), .2 * a.weight.norm().item<double>());
}

TEST(NeighbourhoodDecoder, FittedForNoiseItDecodesNoisyLatentsBetter) {
  AnalyticCodec exact = with_neighbourhood({.noise = 0, .ridge = 30});
  AnalyticCodec robust = with_neighbourhood({.noise = .3, .ridge = 30});
  const at::Tensor pixels = to_pixels(waves(100, 13));
  const at::Tensor latents = exact.encode(pixels), seen = noisy(latents, .3, 8);
  EXPECT_GT(psnr(robust.decode(seen), pixels), psnr(exact.decode(seen), pixels));
  EXPECT_LT(psnr(robust.decode(latents), pixels), psnr(exact.decode(latents), pixels));
}

TEST(NeighbourhoodDecoder, OfFewClipsItIsNearlyThatOfTheBlockAlone) {
  AnalyticCodec block = block_codec(), wide = block_codec();
  wide.fit_decoder({waves(0, 5)}, {});
  for (uint64_t seed = 100; seed < 104; ++seed) {
    const at::Tensor pixels = to_pixels(waves(seed, 13));
    const at::Tensor latents = block.encode(pixels);
    EXPECT_GT(psnr(wide.decode(latents), pixels), psnr(block.decode(latents), pixels) - .1);
  }
}

TEST(NeighbourhoodDecoder, RefusesWhatItCannotFit) {
  AnalyticCodec codec = block_codec();
  const auto refused = [&](const NeighbourhoodOptions& options) {
    return error_of([&] { codec.fit_decoder({waves(0, 5)}, options); });
  };
  EXPECT_THAT(refused({.reach = 4}), HasSubstr("decoder reach 4: expected 0 to 3 blocks"));
  EXPECT_THAT(refused({.noise = -1}), HasSubstr("decoder noise -1"));
  EXPECT_THAT(refused({.ridge = 0}), HasSubstr("decoder ridge 0: expected above 0"));
  EXPECT_THAT(error_of([&] { codec.fit_decoder({}, {}); }), HasSubstr("no clips"));
  EXPECT_THAT(error_of([&] {
                codec.fit_decoder({waves(0, 5), waves(1, 4)}, {});
              }),
              HasSubstr("codec clip 1: Byte [4, 32, 48, 3]"));
  EXPECT_EQ(codec.decoder(), "block");
}

TEST(NeighbourhoodDecoder, DamagedFilesAreRefused) {
  const TemporaryFolder folder;
  const auto path = folder / "codec.safetensors";
  with_neighbourhood().save(path);
  std::map<std::string, std::string> metadata;
  std::map<std::string, at::Tensor> tensors;
  {
    const Safetensors file(path);
    metadata = file.metadata();
    for (const std::string& name : file.names()) {
      tensors[name] = file.get(name);
    }
  }
  /// The error after one change, which must name the file.
  const auto refused = [&](const auto& change) {
    auto changed_tensors = tensors;
    auto changed_metadata = metadata;
    change(changed_tensors, changed_metadata);
    write_safetensors(path, {changed_tensors.begin(), changed_tensors.end()}, changed_metadata);
    const std::string message = error_of([&] { open_codec(path); });
    EXPECT_THAT(message, AllOf(HasSubstr(path.string()), Not(HasSubstr("\n"))));
    return message;
  };
  const std::string weight = "group.decoder.weight";
  EXPECT_THAT(refused([&](auto& t, auto&) { t.erase(weight); }),
              HasSubstr("tensor group.decoder.weight is missing"));
  EXPECT_THAT(
      refused([&](auto& t, auto&) { t[weight] = t[weight].flatten(0, 1); }),
      HasSubstr("group.decoder.weight is Float [9, 6, 768], expected Float [3, 3, 6, 768]"));
  EXPECT_THAT(refused([&](auto& t, auto&) { t[weight] = t[weight] / 0; }),
              HasSubstr("group.decoder.weight is not finite"));
  EXPECT_THAT(refused([&](auto& t, auto&) { t[weight] = t[weight] * 2; }),
              HasSubstr("damaged: the content is that of decoder neighbourhood-3x3-"));
  EXPECT_THAT(refused([](auto&, auto& m) { m.erase("decoder"); }),
              HasSubstr("metadata 'decoder' is missing"));
  EXPECT_THAT(refused([](auto&, auto& m) { m["decoder_reach"] = "9"; }),
              HasSubstr("decoder reach 9: expected 0 to 3"));
  EXPECT_THAT(refused([](auto&, auto& m) { m["decoder_noise"] = "some"; }),
              HasSubstr("decoder_noise = 'some' is not a number"));
}

}  // namespace
}  // namespace minwm::models
