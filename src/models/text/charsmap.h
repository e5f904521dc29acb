#pragma once
// SentencePiece's precompiled normalisation: a double-array trie of byte strings and what replaces
// them.

#include <string>
#include <string_view>
#include <vector>

namespace minwm::models {

class Charsmap {
 public:
  Charsmap() = default;  ///< changes nothing
  /// @param bytes  uint32 little-endian size of the trie in bytes, trie (uint32 units),
  /// replacements
  ///               that end with a zero byte. Empty: changes nothing.
  /// @throws Error naming `where` if the sizes do not fit.
  Charsmap(std::string_view bytes, std::string where);

  /// At every position the longest key is replaced; what begins no key is copied.
  /// @throws Error if the trie points outside of the file.
  std::string normalise(std::string_view text) const;

 private:
  uint32_t unit(size_t position) const;
  /// Bytes of the longest key at the start of `text` (0: none) and its replacement.
  size_t longest_key(std::string_view text, std::string_view& replacement) const;

  std::vector<uint32_t> trie_;
  std::string replacements_, where_;
};

/// @throws Error naming `where` if it is no base64.
std::string decode_base64(std::string_view text, const std::string& where);

}  // namespace minwm::models
