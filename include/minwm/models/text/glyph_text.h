#pragma once
// Text that is to be drawn into a video: what a caption has in quotes, and byT5's tokens of it.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "minwm/models/text/special_tokens.h"

namespace minwm::models {

/// Which quotes count: the pipeline reads "…" and “…”, training features were made with "…" alone.
enum class QuoteRule { kPipeline, kAsciiOnly };

/// The texts in quotes, in order, each once; a quote does not go over a line's end. "" counts.
std::vector<std::string> quoted_texts(std::string_view caption, QuoteRule rule);

/// A colour's index and a font's place in the file of Glyph-SDXL-v2's fonts. A colour is told only
/// with a font.
struct GlyphStyle {
  std::optional<int64_t> color, font;
};

/// byT5's 384 ids (bytes and sentinels), then tokens of colours and fonts: 1510 with
/// Glyph-SDXL-v2's tables. Source: spec encoders 4.2; golden kind encoders.byt5.tokens.
class GlyphTokenizer {
 public:
  /// @param folder  with color_idx.json and multilingual_10-lang_idx.json (name → index).
  /// @throws Error naming the file and the entry that does not fit.
  static GlyphTokenizer open(const std::filesystem::path& folder);
  /// @param fonts  name and index within its language, whose two letters come first:
  ///               "en-Montserrat-Regular", 0. In the order of the file.
  GlyphTokenizer(int64_t colors, const std::vector<std::pair<std::string, int64_t>>& fonts,
                 const std::string& where);

  int64_t vocabulary() const { return vocabulary_; }

  /// `Text "t1". Text "t2" in <color-3>, <en-font-7>. `; empty without texts. `styles` is empty or
  /// one per text. @throws Error for a colour or font that is not in the tables.
  std::string prompt(const std::vector<std::string>& texts,
                     const std::vector<GlyphStyle>& styles = {}) const;

  /// Byte + 3, and the ids of special tokens that are written out; without "</s>" at the end.
  std::vector<int64_t> ids(std::string_view text) const;

 private:
  SpecialTokens special_;
  int64_t colors_ = 0, vocabulary_ = 0;
  std::vector<std::string> font_tokens_;  ///< in the order of the file
};

}  // namespace minwm::models
