// The text stream in front of HY's blocks: the rules that no golden case shows (spec hy-mmdit 5,
// 20).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/error.h"
#include "minwm/nn/parameters.h"
#include "tests/models/small_hy.h"

namespace minwm::models {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): small_hy.h
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kRounding = 1e-5;

/// What makes the text stream, with weights that let every input matter.
struct TextParts : torch::nn::Module {
  explicit TextParts(HyConfig with) : config(std::move(with)) {
    modules.text = register_module("txt_in", HyTokenRefiner(config));
    modules.byt5 = register_module("byt5_in", HyByt5Mapper(config));
    modules.vision = register_module("vision_in", HyVisionMapper(config));
    modules.type_table =
        register_parameter("type_table", nn::make_parameter({3, config.hidden_size}));
    at::NoGradGuard no_grad;
    for (auto& item : named_parameters()) {
      item.value().add_(0.3 * random_normal(item.value().sizes(), {9, item.key()}));
    }
  }
  HyTextStream assemble(const Conditions& conditions) const {
    return modules.assemble(conditions, timesteps(conditions.text.size(0)), config, at::kFloat);
  }
  static at::Tensor timesteps(int64_t batch) { return at::zeros({batch}); }
  HyConfig config;
  HyTextModules modules;
};

TextParts& parts() {
  static TextParts all(small_hy());
  return all;
}

/// Three samples with 2 rows of vision, (1, 2, 0) of 3 rows of glyphs and (5, 4, 3) of 5 of text.
Conditions three_samples() {
  return small_conditions(small_hy(), 3, 1);
}

at::Tensor rows_of(const HyTextStream& stream, int64_t sample) {
  return stream.rows[sample].narrow(0, 0, stream.lengths.at(static_cast<size_t>(sample)));
}

void expect_same_rows(const HyTextStream& ours, int64_t sample, const HyTextStream& reference,
                      int64_t of) {
  ASSERT_EQ(rows_of(ours, sample).sizes(), rows_of(reference, of).sizes());
  EXPECT_LT(relative_distance(rows_of(ours, sample), rows_of(reference, of)), kRounding);
}

TEST(HyTextRefiner, RowZeroIsSeenEvenWhereItDoesNotCount) {
  const at::Tensor x = random_normal({1, 4, 6}, {3, "x"});
  const at::Tensor mask = at::tensor({0.f, 1.f, 1.f, 0.f}).unsqueeze(0);
  const auto counted = [&](const at::Tensor& states) {
    return parts()
        .modules.text->forward(states, TextParts::timesteps(1), mask, at::kFloat)[0]
        .narrow(0, 1, 2);
  };
  const at::Tensor as_it_is = counted(x);
  at::Tensor first = x.clone(), last = x.clone();
  first.select(1, 0).neg_();
  last.select(1, 3).fill_(1e6);
  EXPECT_GT(relative_distance(counted(first), as_it_is), 1e-3);
  EXPECT_TRUE(at::equal(counted(last), as_it_is));
}

TEST(HyTextRefiner, RowsThatDoNotCountAreFiniteAndGetNoGradient) {
  const at::Tensor x = random_normal({2, 5, 6}, {3, "x"}).requires_grad_();
  at::Tensor mask = at::ones({2, 5});
  mask[0].slice(0, 2).zero_();
  mask[1].slice(0, 4).zero_();
  const at::Tensor y = parts().modules.text->forward(x, TextParts::timesteps(2), mask, at::kFloat);
  EXPECT_TRUE(y.isfinite().all().item<bool>());
  (y * mask.unsqueeze(2)).square().sum().backward();
  EXPECT_EQ((x.grad() * (1 - mask).unsqueeze(2)).abs().max().item<double>(), 0);
  EXPECT_GT(x.grad()[1][0].abs().max().item<double>(), 0);
}

TEST(HyText, ValidRowsAreVisionGlyphsTextEachWithItsType) {
  const auto conditions = three_samples();
  const auto stream = parts().assemble(conditions);
  EXPECT_THAT(stream.lengths, ElementsAre(2 + 1 + 5, 2 + 2 + 4, 2 + 0 + 3));
  EXPECT_EQ(stream.rows.size(1), 8);
  const auto& m = parts().modules;
  const at::Tensor vision = m.vision->forward(conditions.vision, at::kFloat) + m.type_table[2];
  const at::Tensor glyphs = m.byt5->forward(conditions.byt5, at::kFloat) + m.type_table[1];
  const at::Tensor text =
      m.text->forward(conditions.text, TextParts::timesteps(3), conditions.text_mask, at::kFloat) +
      m.type_table[0];
  const at::Tensor expected =
      at::cat({vision[1], glyphs[1].slice(0, 0, 2), text[1].slice(0, 0, 4)});
  EXPECT_LT(relative_distance(rows_of(stream, 1), expected), kRounding);
}

TEST(HyText, OrderInsideAGroupIsKeptWhereAMaskHasHoles) {
  auto conditions = clip_conditions(three_samples(), 0);
  conditions.byt5_mask = at::tensor({1.f, 0.f, 1.f}).unsqueeze(0);
  const auto stream = parts().assemble(conditions);
  EXPECT_THAT(stream.lengths, ElementsAre(2 + 2 + 5));
  const auto& m = parts().modules;
  const at::Tensor glyphs = m.byt5->forward(conditions.byt5, at::kFloat)[0] + m.type_table[1];
  EXPECT_LT(relative_distance(rows_of(stream, 0)[2], glyphs[0]), kRounding);
  EXPECT_LT(relative_distance(rows_of(stream, 0)[3], glyphs[2]), kRounding);
}

TEST(HyText, VisionThatIsAllZeroCountsForAnImageTask) {
  auto conditions = three_samples();
  conditions.vision = at::zeros_like(conditions.vision);
  EXPECT_THAT(parts().assemble(conditions).lengths, ElementsAre(8, 8, 5));
}

TEST(HyText, VisionThatIsNotZeroCountsForATextTask) {
  auto conditions = three_samples();
  const auto image_task = parts().assemble(conditions);
  conditions.text_to_video = true;
  const auto text_task = parts().assemble(conditions);
  EXPECT_EQ(text_task.lengths, image_task.lengths);
  EXPECT_TRUE(at::equal(text_task.rows, image_task.rows));
  // One row of an image that is not zero is an image.
  conditions.vision.select(1, 0).zero_();
  EXPECT_EQ(parts().assemble(conditions).lengths, image_task.lengths);
}

TEST(HyText, ABatchOfATextTaskDecidesOnVisionSampleBySample) {
  auto conditions = three_samples();
  conditions.text_to_video = true;
  conditions.vision[1].zero_();
  const auto stream = parts().assemble(conditions);
  EXPECT_THAT(stream.lengths, ElementsAre(8, 6, 5));
  for (int64_t i = 0; i < 3; ++i) {
    expect_same_rows(stream, i, parts().assemble(clip_conditions(conditions, i)), 0);
  }
}

TEST(HyText, WithoutATextMaskRowsThatAreNotZeroCountAndRowZeroAlways) {
  auto conditions = three_samples();
  conditions.text = conditions.text * conditions.text_mask.unsqueeze(2);
  const auto masked = parts().assemble(conditions);
  conditions.text_mask = at::Tensor();
  const auto guessed = parts().assemble(conditions);
  EXPECT_EQ(guessed.lengths, masked.lengths);
  EXPECT_TRUE(at::equal(guessed.rows, masked.rows));
  conditions.text = at::zeros_like(conditions.text);
  EXPECT_THAT(parts().assemble(conditions).lengths, ElementsAre(2 + 1 + 1, 2 + 2 + 1, 2 + 0 + 1));
}

TEST(HyText, WithoutAGlyphMaskAllGlyphsCount) {
  auto conditions = three_samples();
  conditions.byt5_mask = at::Tensor();
  EXPECT_THAT(parts().assemble(conditions).lengths, ElementsAre(2 + 3 + 5, 2 + 3 + 4, 2 + 3 + 3));
}

TEST(HyText, UndefinedGlyphsAndVisionAreNoRows) {
  auto conditions = three_samples();
  const auto whole = parts().assemble(conditions);
  conditions.vision = at::Tensor();
  conditions.byt5 = conditions.byt5_mask = at::Tensor();
  const auto text_only = parts().assemble(conditions);
  EXPECT_THAT(text_only.lengths, ElementsAre(5, 4, 3));
  EXPECT_LT(relative_distance(rows_of(text_only, 0), rows_of(whole, 0).slice(0, 3)), kRounding);
}

TEST(HyText, ABatchIsItsSamplesInValuesAndGradients) {
  const auto gradients = [&](const std::function<void()>& backward) {
    parts().zero_grad();
    backward();
    std::vector<at::Tensor> all;
    for (const auto& parameter : parts().parameters()) {
      all.push_back(parameter.grad().defined() ? parameter.grad().flatten().clone()
                                               : at::zeros({parameter.numel()}));
    }
    return at::cat(all);
  };
  const auto loss = [](const HyTextStream& stream) {
    at::Tensor sum = at::zeros({});
    for (int64_t i = 0; i < stream.rows.size(0); ++i) {
      sum = sum + rows_of(stream, i).square().sum();
    }
    return sum;
  };
  for (const bool equal_lengths : {false, true}) {
    auto conditions = three_samples();
    if (equal_lengths) {
      conditions.text_mask = at::ones_like(conditions.text_mask);
    }
    const at::Tensor together = gradients([&] { loss(parts().assemble(conditions)).backward(); });
    const at::Tensor one_by_one = gradients([&] {
      for (int64_t i = 0; i < 3; ++i) {
        loss(parts().assemble(clip_conditions(conditions, i))).backward();
      }
    });
    EXPECT_GT(one_by_one.abs().max().item<double>(), 0);
    EXPECT_LT(relative_distance(together, one_by_one), kRounding);
    const auto stream = parts().assemble(conditions);
    for (int64_t i = 0; i < 3; ++i) {
      expect_same_rows(stream, i, parts().assemble(clip_conditions(conditions, i)), 0);
    }
  }
}

TEST(HyText, RowsThatDoNotCountDoNotLeakIntoThoseThatDo) {
  auto conditions = three_samples();
  const auto before = parts().assemble(conditions);
  conditions.text.masked_fill_((conditions.text_mask == 0).unsqueeze(2), 1e6);
  conditions.byt5.masked_fill_((conditions.byt5_mask == 0).unsqueeze(2), 1e6);
  const auto after = parts().assemble(conditions);
  ASSERT_EQ(after.lengths, before.lengths);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::equal(rows_of(after, i), rows_of(before, i))) << i;
  }
}

template <class Spoil>
std::string refusal(const Spoil& spoil) {
  auto conditions = three_samples();
  spoil(conditions);
  try {
    parts().modules.assemble(conditions, TextParts::timesteps(3), parts().config, at::kFloat);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "accepted";
}

TEST(HyText, RefusesWhatDoesNotFitByName) {
  EXPECT_EQ(refusal([](Conditions&) {}), "accepted");
  EXPECT_THAT(refusal([](Conditions& c) { c.text = at::Tensor(); }),
              HasSubstr("text must be [B, L, 6]"));
  EXPECT_THAT(refusal([](Conditions& c) { c.text = c.text.slice(2, 1); }),
              HasSubstr("text must be [3, rows, 6]"));
  EXPECT_THAT(refusal([](Conditions& c) { c.vision = c.vision.slice(2, 1); }),
              HasSubstr("vision must be [3, rows, 5]"));
  EXPECT_THAT(refusal([](Conditions& c) { c.vision = c.vision.slice(0, 1); }),
              HasSubstr("vision must be [3, rows, 5]"));
  EXPECT_THAT(refusal([](Conditions& c) { c.byt5 = c.byt5.slice(2, 1); }),
              HasSubstr("byt5 must be [3, rows, 7]"));
  EXPECT_THAT(refusal([](Conditions& c) { c.text_mask = c.text_mask.slice(1, 1); }),
              HasSubstr("text mask must be [3, 5]"));
  EXPECT_THAT(refusal([](Conditions& c) { c.byt5_mask = c.byt5_mask.slice(1, 1); }),
              HasSubstr("byt5 mask must be [3, 3]"));
  EXPECT_THAT(refusal([](Conditions& c) { c.text_mask[1].zero_(); }),
              HasSubstr("text mask without any 1"));
}

}  // namespace
}  // namespace minwm::models
