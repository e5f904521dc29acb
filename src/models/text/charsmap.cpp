#include "charsmap.h"

#include <array>
#include <cstring>

#include "minwm/core/error.h"
#include "unicode.h"

namespace minwm::models {
namespace {

// One unit of the double array (Darts-clone's layout).
constexpr uint32_t kLabel = 0x800000FF;
constexpr uint32_t kValue = 0x7FFFFFFF;
uint32_t offset_of(uint32_t unit) {
  return (unit >> 10) << ((unit & 0x200) >> 6);
}
bool has_value(uint32_t unit) {
  return ((unit >> 8) & 1) != 0;
}

/// Bytes of the UTF-8 character that begins with this byte.
size_t character_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

Charsmap::Charsmap(std::string_view bytes, std::string where) : where_(std::move(where)) {
  if (bytes.empty()) {
    return;
  }
  uint32_t trie_bytes = 0;
  require(bytes.size() >= sizeof(trie_bytes), "{}: the charsmap has {} bytes", where_,
          bytes.size());
  std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
  bytes.remove_prefix(sizeof(trie_bytes));
  require(trie_bytes > 0 && trie_bytes % sizeof(uint32_t) == 0 && trie_bytes <= bytes.size(),
          "{}: the charsmap's trie has {} bytes of {}: whole units of 4 within the file were "
          "expected",
          where_, trie_bytes, bytes.size());
  trie_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(trie_.data(), bytes.data(), trie_bytes);
  replacements_ = bytes.substr(trie_bytes);
  require(!replacements_.empty() && replacements_.back() == '\0',
          "{}: the charsmap's replacements do not end with a zero byte", where_);
}

uint32_t Charsmap::unit(size_t position) const {
  require(position < trie_.size(), "{}: the charsmap's trie points at unit {} of {}", where_,
          position, trie_.size());
  return trie_[position];
}

size_t Charsmap::longest_key(std::string_view text, std::string_view& replacement) const {
  size_t longest = 0;
  size_t position = offset_of(unit(0));
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    position ^= byte;
    if (position >= trie_.size() || (trie_[position] & kLabel) != byte) {
      break;
    }
    const uint32_t node = trie_[position];
    position ^= offset_of(node);
    if (has_value(node)) {
      const uint32_t start = unit(position) & kValue;
      require(start < replacements_.size(), "{}: the charsmap has a replacement at {} of {}",
              where_, start, replacements_.size());
      longest = i + 1;
      replacement = replacements_.c_str() + start;
    }
  }
  return longest;
}

std::string Charsmap::normalise(std::string_view text) const {
  if (trie_.empty()) {
    return std::string(text);
  }
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    std::string_view replacement;
    size_t length = longest_key(text, replacement);
    if (length == 0) {
      length = std::min(character_bytes(text.front()), text.size());
      replacement = text.substr(0, length);
    }
    result += replacement;
    text.remove_prefix(length);
  }
  decode_utf8(result, where_ + ": text after the charsmap");  // a damaged one cuts characters
  return result;
}

std::string decode_base64(std::string_view text, const std::string& where) {
  static constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  require(text.size() % 4 == 0, "{}: base64 of {} characters, a multiple of 4 was expected", where,
          text.size());
  for (int padding = 0; padding < 2 && !text.empty() && text.back() == '='; ++padding) {
    text.remove_suffix(1);
  }
  std::array<int, 256> values;
  values.fill(-1);
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int>(i);
  }
  std::string result;
  result.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = values[static_cast<unsigned char>(c)];
    require(value >= 0, "{}: byte {} is no base64", where, static_cast<int>(c));
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      result.push_back(static_cast<char>(bits >> count & 0xFF));
    }
  }
  return result;
}

}  // namespace minwm::models
