#pragma once
// Wan's cleaning of prompts before their tokens are taken: it is visible in ordinary prompts (a
// full-width comma becomes ",", curly quotes straight ones).

#include <string>
#include <string_view>

namespace minwm::models {

enum class CleanMode {
  kWhitespace,    ///< upstream's: every run of white space is one space
  kLower,         ///< the same in lower case
  kCanonicalize,  ///< lower case, "_" is a space, no ASCII punctuation
};

/// "whitespace", "lower" or "canonicalize". @throws Error naming the three.
CleanMode clean_mode(const std::string& name);

/// ftfy's fixes (references of HTML, controls, ligatures, widths, quotes, line ends, terminal
/// escapes, NFC), then HTML unescaped twice, then the mode's treatment of white space and case.
///
/// Text whose UTF-8 was read as another encoding before ("schÃ¶n") stays as it is: ftfy's
/// guess at what it was is not made here. Ordinary text is the same with and without it.
/// @param text  UTF-8. @return UTF-8.
/// @throws Error naming the byte where the text is no UTF-8.
/// Source: spec encoders 2.1; golden kind encoders.wan.clean.
std::string clean_text(std::string_view text, CleanMode mode = CleanMode::kWhitespace);

}  // namespace minwm::models
