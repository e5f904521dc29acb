#include "minwm/models/text/prompts.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

// The nine spaces between items are upstream's source indentation; they are tokens.
constexpr std::string_view kVideoSystem =
    "You are a helpful assistant. Describe the video by detailing the following aspects:         "
    "1. The main content and theme of the video.         "
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the "
    "objects.         "
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the "
    "objects.         "
    "4. background environment, light, style and atmosphere.         "
    "5. camera angles, movements, and transitions used in the video.";
constexpr std::string_view kImageSystem =
    "You are a helpful assistant. Describe the image by detailing the following aspects:         "
    "1. The main content and theme of the image.         "
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the "
    "objects.         "
    "3. The background environment, light, style and atmosphere.";

void check_length(int64_t length) {
  require(length >= 1, "prompts of {} tokens: at least 1 is needed", length);
}

/// Rows padded on the right; none is longer than `length`.
PromptTokens pad_rows(const std::vector<std::vector<int64_t>>& rows, int64_t length, int64_t pad) {
  PromptTokens tokens;
  const auto count = static_cast<int64_t>(rows.size());
  tokens.ids = at::full({count, length}, pad, at::kLong);
  tokens.mask = at::zeros({count, length}, at::kLong);
  for (int64_t row = 0; row < count; ++row) {
    const auto& ids = rows[static_cast<size_t>(row)];
    std::copy(ids.begin(), ids.end(), tokens.ids.data_ptr<int64_t>() + row * length);
    std::fill_n(tokens.mask.data_ptr<int64_t>() + row * length, ids.size(), 1);
  }
  return tokens;
}

void cut(std::vector<int64_t>& ids, int64_t length) {
  ids.resize(std::min(ids.size(), static_cast<size_t>(length)));
}

}  // namespace

std::string_view wan_negative_prompt() {
  return "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质"
         "量，"
         "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的"
         "，"
         "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走";
}

PromptTokens wan_prompt_tokens(const UnigramTokenizer& tokenizer,
                               const std::vector<std::string>& prompts, int64_t length,
                               CleanMode mode) {
  check_length(length);
  std::vector<std::vector<int64_t>> rows;
  for (const auto& prompt : prompts) {
    rows.push_back(tokenizer.ids(clean_text(prompt, mode)));
    cut(rows.back(), length - 1);
    rows.back().push_back(tokenizer.end());
  }
  return pad_rows(rows, length, tokenizer.pad());
}

LlmTemplate llm_template(const std::string& name) {
  require(name == "video" || name == "image",
          "template '{}' of the language model is not known: video or image", name);
  return name == "video" ? LlmTemplate::kVideo : LlmTemplate::kImage;
}

PromptTokens hy_prompt_tokens(const ByteBpeTokenizer& tokenizer,
                              const std::vector<std::string>& prompts, LlmTemplate chat,
                              int64_t length) {
  check_length(length);
  const int64_t pad = tokenizer.added_token("<|endoftext|>");
  tokenizer.added_token("<|im_start|>");
  tokenizer.added_token("<|im_end|>");
  const std::string before = fmt::format("<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n",
                                         chat == LlmTemplate::kVideo ? kVideoSystem : kImageSystem);
  // A prompt that begins with a line end changes the id before it ("\n\n" is one token), but not
  // where the crop is: upstream's is a constant of the template too.
  const auto crop = static_cast<int64_t>(tokenizer.ids(before).size());
  std::vector<std::vector<int64_t>> rows;
  for (const auto& prompt : prompts) {
    rows.push_back(tokenizer.ids(fmt::format("{}{}<|im_end|>\n<|im_start|>assistant\n", before,
                                             prompt.empty() ? " " : prompt)));
    cut(rows.back(), length + crop);
  }
  PromptTokens tokens = pad_rows(rows, length + crop, pad);
  tokens.crop = crop;
  return tokens;
}

PromptTokens glyph_prompt_tokens(const GlyphTokenizer& tokenizer,
                                 const std::vector<std::string>& captions, GlyphSource source,
                                 int64_t length) {
  check_length(length);
  constexpr int64_t kPad = 0, kEnd = 1;
  std::vector<std::vector<int64_t>> rows;
  for (const auto& caption : captions) {
    const auto rule = source == GlyphSource::kQuoted ? QuoteRule::kPipeline : QuoteRule::kAsciiOnly;
    const std::string text = source == GlyphSource::kWholeCaption
                                 ? caption
                                 : tokenizer.prompt(quoted_texts(caption, rule));
    auto& row = rows.emplace_back();
    if (text.empty() && source != GlyphSource::kWholeCaption) {
      continue;
    }
    row = tokenizer.ids(text);
    cut(row, length - 1);
    if (row.empty() || row.back() != kEnd) {
      row.push_back(kEnd);
    }
  }
  return pad_rows(rows, length, kPad);
}

}  // namespace minwm::models
