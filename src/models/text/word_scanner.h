#pragma once
// Qwen2's cut of text into words, which its files give as a regular expression.

#include <string_view>

namespace minwm::models {

/// The end of the word that begins at `begin` (< text.size()): the first alternative that matches
/// of
///   (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N} | ?[^\s\p{L}\p{N}]+[\r\n]*
///   | \s*[\r\n]+ | \s+(?!\S) | \s+
size_t word_end(std::u32string_view text, size_t begin);

}  // namespace minwm::models
