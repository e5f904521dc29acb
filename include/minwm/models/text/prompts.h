#pragma once
// From prompts to the rows of tokens an encoder takes: template, cut, padding, mask.

#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/models/text/byte_bpe.h"
#include "minwm/models/text/clean_text.h"
#include "minwm/models/text/glyph_text.h"
#include "minwm/models/text/unigram.h"

namespace minwm::models {

constexpr int64_t kWanPromptLength = 512;    ///< tokens of Wan's prompts
constexpr int64_t kHyPromptLength = 1000;    ///< tokens of HY's prompts after the template's crop
constexpr int64_t kGlyphPromptLength = 256;  ///< tokens of the text in quotes

/// The negative prompt of Wan's published configurations.
std::string_view wan_negative_prompt();

/// Prompts as an encoder takes them, on the CPU.
struct PromptTokens {
  at::Tensor ids;    ///< [B, L] int64, padded on the right
  at::Tensor mask;   ///< [B, L] int64, 1 = token, 0 = padding
  int64_t crop = 0;  ///< rows of the template's constant beginning, to be dropped after the encoder
};

/// Cleaned, cut to length - 1, "</s>" behind. "" is "</s>" alone.
/// @throws Error for text that is no UTF-8, or length < 1.
PromptTokens wan_prompt_tokens(const UnigramTokenizer& tokenizer,
                               const std::vector<std::string>& prompts,
                               int64_t length = kWanPromptLength,
                               CleanMode mode = CleanMode::kWhitespace);

/// HY's system prompt: training features were made with the video's, upstream's camera inference
/// uses the image's.
enum class LlmTemplate { kVideo, kImage };

/// "video" or "image". @throws Error naming the two.
LlmTemplate llm_template(const std::string& name);

/// The chat around every prompt ("" is one space), padded or cut to length + crop tokens; crop (108
/// for video, 74 for image) is where the prompt begins. Nothing is cleaned.
/// @throws Error for text that is no UTF-8, length < 1, or a tokenizer without the chat's tokens.
/// Source: spec encoders 3.4; golden kind encoders.hy_llm.tokens.
PromptTokens hy_prompt_tokens(const ByteBpeTokenizer& tokenizer,
                              const std::vector<std::string>& prompts,
                              LlmTemplate chat = LlmTemplate::kVideo,
                              int64_t length = kHyPromptLength);

/// What byT5 reads of a caption.
enum class GlyphSource {
  kQuoted,       ///< text in quotes of both kinds
  kAsciiQuoted,  ///< text in "…", as training features were made
  kWholeCaption  ///< the caption itself, as upstream's camera inference
};

/// A caption without quoted text is a row of zeros with mask 0: byT5 is not run on it.
/// Cut to length - 1 bytes or tokens, "</s>" behind unless one is there.
/// Source: spec encoders 4.1, 4.2; golden kind encoders.byt5.tokens.
PromptTokens glyph_prompt_tokens(const GlyphTokenizer& tokenizer,
                                 const std::vector<std::string>& captions,
                                 GlyphSource source = GlyphSource::kQuoted,
                                 int64_t length = kGlyphPromptLength);

}  // namespace minwm::models
