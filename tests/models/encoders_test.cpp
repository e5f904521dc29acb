// The networks that encode conditions: what no golden case shows (spec encoders 1, 3, 4, 5, 6, 9).

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "minwm/core/error.h"
#include "minwm/models/text/byt5_encoder.h"
#include "minwm/models/text/hf_names.h"
#include "minwm/nn/parameters.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/small_encoders.h"

namespace minwm::models {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): small_encoders.h
using minwm::testing::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kRounding = 1e-5;

/// Three prompts of 7, 11 and 1 tokens, padded to 11.
const std::vector<int64_t> kLengths = {7, 11, 1};

at::Tensor prompts() {
  return at::arange(33, at::kLong).mul(17).remainder(50).view({3, 11});
}

at::Tensor prompt_mask() {
  return at::arange(11).unsqueeze(0).lt(at::tensor(kLengths).unsqueeze(1)).to(at::kLong);
}

double distance(const at::Tensor& ours, const at::Tensor& reference) {
  const at::Tensor a = ours.to(at::kDouble), b = reference.to(at::kDouble);
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

at::Tensor counted(const at::Tensor& states) {
  return states.index({prompt_mask().to(at::kBool)});
}

TEST(T5Encoder, RunsAtTrueLengthWhatAPaddedRunGives) {
  for (const bool shared : {false, true}) {
    const auto encoder = lively<T5Encoder>(small_t5(shared));
    const at::Tensor encoded = encoder->encode(prompts(), prompt_mask());
    const at::Tensor padded = encoder->forward(prompts(), prompt_mask());
    EXPECT_LT(distance(counted(encoded), counted(padded)), kRounding);
    EXPECT_EQ(encoded[0].slice(0, 7).abs().max().item<float>(), 0);
    EXPECT_EQ(encoded[2].slice(0, 1).abs().max().item<float>(), 0);
  }
}

TEST(T5Encoder, GivesAPromptTheSameBitsWhateverStandsBesideAndBehindIt) {
  const auto encoder = lively<T5Encoder>(small_t5());
  const at::Tensor together = encoder->encode(prompts(), prompt_mask());
  for (int64_t i = 0; i < 3; ++i) {
    const int64_t length = kLengths[static_cast<size_t>(i)];
    const at::Tensor ids = prompts().narrow(0, i, 1).narrow(1, 0, length);
    const at::Tensor alone = encoder->encode(ids, at::ones_like(ids));
    EXPECT_TRUE(at::equal(alone[0], together[i].narrow(0, 0, length))) << i;
  }
}

TEST(T5Encoder, SeesTokensOnBothSidesAndTheirOrder) {
  const auto encoder = lively<T5Encoder>(small_t5());
  const at::Tensor ids = prompts().narrow(0, 1, 1), mask = at::ones_like(ids);
  const at::Tensor before = encoder->encode(ids, mask);
  at::Tensor changed = ids.clone();
  changed[0][10] = 3;
  EXPECT_GT(distance(encoder->encode(changed, mask)[0][0], before[0][0]), 1e-4);
  const at::Tensor reversed = encoder->encode(ids.flip(1), mask).flip(1);
  EXPECT_GT(distance(reversed, before), 1e-4);
}

TEST(T5Encoder, LeavesARowWithoutTokensZero) {
  const auto encoder = lively<T5Encoder>(small_t5());
  at::Tensor mask = prompt_mask();
  mask[1].zero_();
  const auto glyphs = encode_glyphs(*encoder, prompts(), mask);
  EXPECT_EQ(glyphs.states[1].abs().max().item<float>(), 0);
  EXPECT_GT(glyphs.states[0].abs().max().item<float>(), 0);
  EXPECT_TRUE(at::equal(glyphs.mask, mask));
}

TEST(T5Encoder, ComputesInHalfTypesNearFloat32) {
  const at::Tensor exact = lively<T5Encoder>(small_t5())->encode(prompts(), prompt_mask());
  // Scores are not scaled, so these weights make them large: 8 or 11 bits of them show.
  for (const auto& [type, rounding] :
       {std::pair(at::kBFloat16, 0.15), std::pair(at::kHalf, 0.15 / 8)}) {
    const at::Tensor half = lively<T5Encoder>(small_t5(), type)->encode(prompts(), prompt_mask());
    EXPECT_EQ(half.scalar_type(), type);
    EXPECT_LT(distance(half, exact), rounding);
    EXPECT_GT(distance(half, exact), 0);
  }
}

TEST(T5Encoder, StaysFiniteWhereFloat16Overflows) {
  T5Encoder encoder(small_t5(), at::kHalf);
  auto values = values_for(encoder, 1);
  values["blocks.0.ffn.fc2.weight"].mul_(2e4);
  values["blocks.1.ffn.fc2.weight"].mul_(2e4);
  load_encoder(encoder, source_of(values));
  const at::Tensor inside = encoder.after_blocks(prompts(), prompt_mask(), 2);
  EXPECT_EQ(inside.abs().max().item<double>(), 64512);  // 65504 - 1000 as float16 has it
  EXPECT_TRUE(encoder.encode(prompts(), prompt_mask()).isfinite().all().item<bool>());
}

TEST(T5Names, OneEncoderUnderBothNames) {
  for (const bool shared : {false, true}) {
    auto config = small_t5(shared);
    const auto wan = lively<T5Encoder>(config);
    Values hf;
    for (const auto& item : wan->named_parameters()) {
      hf["encoder." + t5_hf_name(item.key())] = item.value();
    }
    hf["shared.weight"] = hf.at("encoder.embed_tokens.weight");
    hf["decoder.block.0.layer.0.layer_norm.weight"] = at::zeros({24});
    hf["lm_head.weight"] = at::zeros({50, 24});
    EXPECT_TRUE(has_t5_hf_names(source_of(hf)));
    EXPECT_FALSE(has_t5_hf_names(source_of(values_for(*wan))));
    T5Encoder same(config, at::kFloat);
    load_encoder(same, from_t5_hf(source_of(hf)));
    const at::Tensor expected = wan->encode(prompts(), prompt_mask());
    EXPECT_TRUE(at::equal(same.encode(prompts(), prompt_mask()), expected));

    Values glyph = {{"module.visual.weight", at::zeros({1})}};
    for (const auto& item : wan->named_parameters()) {
      glyph["module.text_tower.encoder." + t5_hf_name(item.key())] = item.value();
    }
    config.names = T5Names::kHuggingFace;
    T5Encoder named(config, at::kFloat);
    load_encoder(named, byt5_source(source_of(glyph)));
    EXPECT_TRUE(at::equal(named.encode(prompts(), prompt_mask()), expected));
  }
}

TEST(QwenEncoder, RunsAtTrueLengthWhatAPaddedRunGives) {
  const auto encoder = lively<QwenEncoder>(small_qwen());
  const auto states = encoder->encode(prompts(), prompt_mask(), 0);
  EXPECT_LT(distance(counted(states.embeds), counted(encoder->forward(prompts()))), kRounding);
  EXPECT_EQ(states.embeds[0].slice(0, 7).abs().max().item<float>(), 0);
  const auto cropped = encoder->encode(prompts(), prompt_mask(), 3);
  EXPECT_TRUE(at::equal(cropped.embeds, states.embeds.slice(1, 3)));
  EXPECT_TRUE(at::equal(cropped.mask, prompt_mask().slice(1, 3)));
  EXPECT_EQ(cropped.embeds[2].abs().max().item<float>(), 0);  // shorter than the crop
}

TEST(QwenEncoder, SeesOnlyWhatCameBefore) {
  const auto encoder = lively<QwenEncoder>(small_qwen());
  at::Tensor changed = prompts().clone();
  changed[1][5] = 3;
  const at::Tensor before = encoder->forward(prompts())[1], after = encoder->forward(changed)[1];
  EXPECT_TRUE(at::equal(before.slice(0, 0, 5), after.slice(0, 0, 5)));
  EXPECT_GT(distance(after.slice(0, 6), before.slice(0, 6)), 1e-4);
}

TEST(QwenEncoder, NeedsNoLayerBehindTheOneThatIsUsed) {
  const auto config = small_qwen();
  auto whole_config = config;
  whole_config.hidden_state_skip_layer = 0;
  const QwenEncoder whole(whole_config, at::kFloat);
  for (const std::string prefix :
       {"model.", "", "model.language_model.", "language_model.model."}) {
    Values checkpoint;
    for (const auto& [name, value] : values_for(whole)) {
      checkpoint[prefix + name] = value;
    }
    checkpoint["lm_head.weight"] = at::zeros({50, 24});
    checkpoint["visual.patch_embed.proj.weight"] = at::zeros({2, 3});
    auto source = source_of(checkpoint);
    source.read = [read = source.read](const std::string& name, int64_t begin, int64_t count) {
      for (const char* unused : {"layers.2.", "layers.3.", "lm_head", "visual", "model.norm"}) {
        EXPECT_EQ(name.find(unused), std::string::npos) << name << " was read";
      }
      return read(name, begin, count);
    };
    QwenEncoder encoder(config, at::kFloat);
    load_encoder(encoder, qwen_source(source, config));
    const at::Tensor expected = lively<QwenEncoder>(whole_config)->after_layers(prompts(), 2);
    EXPECT_TRUE(at::equal(encoder.forward(prompts()), expected)) << prefix;
    checkpoint.erase(prefix + "layers.1.mlp.up_proj.weight");
    EXPECT_THAT(
        error_of([&] { load_encoder(encoder, qwen_source(source_of(checkpoint), config)); }),
        AllOf(HasSubstr("weights.file"), HasSubstr("layers.1.mlp.up_proj.weight")));
  }
}

TEST(SiglipVision, DropsPixelsBeyondTheLastWholePatch) {
  const auto vision = lively<SiglipVision>(small_siglip());
  const at::Tensor pixels = random_normal({2, 3, 17, 17}, {1, "pixels"});
  const at::Tensor before = vision->forward(pixels);
  EXPECT_EQ(before.sizes(), at::IntArrayRef({2, 9, 24}));
  at::Tensor changed = pixels.clone();
  changed.slice(2, 15).fill_(9);
  changed.slice(3, 15).fill_(9);
  EXPECT_TRUE(at::equal(vision->forward(changed), before));
  changed.select(2, 14).fill_(9);
  EXPECT_GT(distance(vision->forward(changed), before), 1e-4);
  EXPECT_THAT(error_of([&] { vision->forward(pixels.slice(2, 1)); }), HasSubstr("[B, 3, 17, 17]"));
}

TEST(SiglipVision, LeavesTheHeadInTheFile) {
  auto config = small_siglip();
  config.head = true;
  const auto whole = lively<SiglipVision>(config);
  auto checkpoint = values_for(*whole);
  config.head = false;
  SiglipVision vision(config, at::kFloat);
  load_encoder(vision, siglip_source(source_of(checkpoint), config));
  const at::Tensor pixels = random_normal({1, 3, 17, 17}, {1, "pixels"});
  EXPECT_TRUE(at::equal(vision.forward(pixels), whole->forward(pixels)));
  EXPECT_EQ(whole->pool(whole->forward(pixels)).sizes(), at::IntArrayRef({1, 24}));
  EXPECT_THAT(error_of([&] { vision.pool(vision.forward(pixels)); }),
              HasSubstr("without its head"));
}

TEST(ClipVisual, NeedsNoBlockBehindTheOneThatIsUsed) {
  auto config = small_clip();
  config.blocks_used = 3;
  auto checkpoint = values_for(ClipVisual(config, at::kFloat));
  checkpoint["visual.head"] = at::zeros({24, 4});
  checkpoint["visual.post_norm.weight"] = at::zeros({24});
  checkpoint["textual.weight"] = checkpoint["log_scale"] = at::zeros({1});
  ClipVisual visual(small_clip(), at::kFloat);
  load_encoder(visual, clip_visual_source(source_of(checkpoint), small_clip()));
  const at::Tensor pixels = clip_pixels(random_normal({2, 3, 9, 16}, {1, "frames"}), 12);
  EXPECT_TRUE(at::equal(visual.forward(pixels), lively<ClipVisual>(small_clip())->forward(pixels)));
  EXPECT_THAT(error_of([&] { visual.forward(pixels.slice(3, 1)); }), HasSubstr("[B, 3, 12, 12]"));
}

TEST(ClipVisual, PixelsHaveItsMeanAndDeviation) {
  const at::Tensor white = clip_pixels(at::ones({1, 3, 5, 7}), 4).mean({0, 2, 3});
  EXPECT_NEAR(white[0].item<double>(), (1 - 0.48145466) / 0.26862954, 1e-5);
  EXPECT_NEAR(white[2].item<double>(), (1 - 0.40821073) / 0.27577711, 1e-5);
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

template <class Encoder, class Config>
std::pair<int64_t, size_t> published_size(const Config& config, at::ScalarType type) {
  const nn::HollowParameters hollow;
  const Encoder encoder(config, type);
  int64_t values = 0;
  for (const auto& parameter : encoder.parameters()) {
    values += parameter.numel();
  }
  return {values, encoder.parameters().size()};
}

TEST(Encoders, OfPublishedSizesAreCountedWithoutMemory) {
  using Size = std::pair<int64_t, size_t>;
  const int64_t before = resident_bytes();
  EXPECT_EQ(published_size<T5Encoder>(T5Config::umt5_xxl(), at::kBFloat16),
            Size(5'680'910'336, 242));
  EXPECT_EQ(published_size<T5Encoder>(byt5_small(), at::kFloat), Size(219'314'944, 111));
  SiglipConfig with_head;
  with_head.head = true;
  EXPECT_EQ(published_size<SiglipVision>(with_head, at::kHalf), Size(428'225'600, 448));
  QwenConfig whole;
  whole.hidden_state_skip_layer = 0;
  constexpr int64_t kQwen = 7'070'619'136, kLayer = 233'057'792;  // without lm_head
  EXPECT_EQ(published_size<QwenEncoder>(whole, at::kHalf), Size(kQwen, 28 * 12 + 2));
  EXPECT_EQ(published_size<QwenEncoder>(QwenConfig(), at::kHalf),
            Size(kQwen - 2 * kLayer - 3584, 26 * 12 + 1));
  EXPECT_LT(resident_bytes() - before, 100 << 20);
}

TEST(Encoders, MadeHollowGetTheirMemoryWhenLoaded) {
  const auto whole = lively<QwenEncoder>(small_qwen());
  std::shared_ptr<QwenEncoder> encoder;
  {
    const nn::HollowParameters hollow;
    encoder = std::make_shared<QwenEncoder>(small_qwen(), at::kFloat);
  }
  EXPECT_EQ(encoder->parameters().front().storage().nbytes(), 0U);
  load_encoder(*encoder, source_of(values_for(*whole)));
  EXPECT_TRUE(at::equal(encoder->forward(prompts()), whole->forward(prompts())));
}

template <class Encoder, class Config, class Run>
void expect_near_float32(const Config& config, const Run& run) {
  const at::Tensor exact = run(*lively<Encoder>(config));
  for (const auto& [type, rounding] : {std::pair(at::kBFloat16, 0.1), std::pair(at::kHalf, 0.01)}) {
    const at::Tensor half = run(*lively<Encoder>(config, type));
    EXPECT_EQ(half.scalar_type(), type);
    EXPECT_LT(distance(half, exact), rounding) << c10::toString(type);
    EXPECT_GT(distance(half, exact), 0);
  }
}

TEST(Encoders, ComputeInHalfTypesNearFloat32) {
  expect_near_float32<QwenEncoder>(
      small_qwen(), [](const auto& e) { return e.encode(prompts(), prompt_mask(), 2).embeds; });
  const at::Tensor pixels = random_normal({1, 3, 17, 17}, {1, "pixels"});
  expect_near_float32<SiglipVision>(small_siglip(),
                                    [&](const auto& e) { return e.forward(pixels); });
  const at::Tensor small = pixels.slice(2, 0, 12).slice(3, 0, 12);
  expect_near_float32<ClipVisual>(small_clip(), [&](const auto& e) { return e.forward(small); });
}

TEST(Encoders, RefuseWrongShapesByName) {
  T5Encoder encoder(small_t5(), at::kFloat);
  auto values = values_for(encoder);
  values["blocks.1.attn.k.weight"] = at::zeros({12, 23});
  EXPECT_THAT(error_of([&] { load_encoder(encoder, source_of(values)); }),
              AllOf(HasSubstr("weights.file"), HasSubstr("blocks.1.attn.k.weight"),
                    HasSubstr("[12, 23]"), HasSubstr("[12, 24]")));
  values["blocks.1.attn.k.weight"] = at::zeros({12, 24});
  values["blocks.3.norm1.weight"] = at::zeros({24});
  EXPECT_THAT(error_of([&] { load_encoder(encoder, source_of(values)); }),
              HasSubstr("blocks.3.norm1.weight"));
  EXPECT_THAT(error_of([&] {
                from_t5_hf(source_of({{"norm.weight", at::zeros({1})},
                                      {"final_layer_norm.weight", at::zeros({1})}}));
              }),
              HasSubstr("are both 'norm.weight'"));
}

TEST(Encoders, RefuseBadInput) {
  const auto t5 = lively<T5Encoder>(small_t5());
  const auto qwen = lively<QwenEncoder>(small_qwen());
  at::Tensor ids = prompts();
  ids[1][4] = 50;
  EXPECT_THAT(error_of([&] { t5->encode(ids, prompt_mask()); }),
              HasSubstr("token id 50 is outside of the vocabulary of 50 tokens"));
  ids[1][4] = -1;
  EXPECT_THAT(error_of([&] { qwen->forward(ids); }), HasSubstr("token id -1"));
  EXPECT_THAT(error_of([&] { t5->encode(prompts().to(at::kInt), prompt_mask()); }),
              HasSubstr("expected Long"));
  EXPECT_THAT(error_of([&] { t5->encode(prompts(), prompt_mask().flip(1)); }),
              HasSubstr("do not come first"));
  EXPECT_THAT(error_of([&] { qwen->encode(prompts(), prompt_mask().slice(1, 1), 0); }),
              HasSubstr("mask [3, 10]"));
  EXPECT_THAT(error_of([&] { qwen->encode(prompts(), prompt_mask(), 12); }),
              HasSubstr("cannot crop 12 of 11 tokens"));
  EXPECT_THAT(error_of([&] { SiglipVision(small_siglip(), at::kDouble); }),
              HasSubstr("cannot compute in Double"));
}

TEST(Encoders, RefuseConfigurationsThatAreNone) {
  auto t5 = small_t5();
  t5.num_heads = 5;
  EXPECT_THAT(error_of([&] { T5Encoder(t5, at::kFloat); }), HasSubstr("5 heads do not divide"));
  auto qwen = small_qwen();
  qwen.num_key_value_heads = 4;
  EXPECT_THAT(error_of([&] { QwenEncoder(qwen, at::kFloat); }), HasSubstr("4 heads of keys"));
  qwen = small_qwen();
  qwen.hidden_state_skip_layer = 5;
  EXPECT_THAT(error_of([&] { QwenEncoder(qwen, at::kFloat); }), HasSubstr("skip 5 of 4 layers"));
}

}  // namespace
}  // namespace minwm::models
