#include "minwm/models/text/byte_bpe.h"

#include <queue>
#include <tuple>

#include "minwm/core/error.h"
#include "unicode.h"
#include "word_scanner.h"

namespace minwm::models {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

/// GPT-2's letters for bytes: printable ones stand for themselves, the other 68 are U+0100, …
std::array<std::string, 256> byte_letters() {
  std::array<std::string, 256> letters;
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const char32_t letter = printable ? byte : next++;
    letters[byte] = encode_utf8({&letter, 1});
  }
  return letters;
}

}  // namespace

void ByteBpeTokenizer::set_vocabulary(const Vocabulary& vocabulary, const std::string& where) {
  const auto letters = byte_letters();
  for (size_t byte = 0; byte < letters.size(); ++byte) {
    const auto found = vocabulary.find(letters[byte]);
    require(found != vocabulary.end(), "{}: no entry '{}' for byte {}: not a byte-level vocabulary",
            where, letters[byte], byte);
    byte_ids_[byte] = found->second;
  }
}

void ByteBpeTokenizer::add_merge(const Vocabulary& vocabulary, std::string_view left,
                                 std::string_view right, const std::string& where) {
  const auto id = [&](const std::string& piece) {
    const auto found = vocabulary.find(piece);
    require(found != vocabulary.end(), "{}: merge {} '{} {}' needs '{}', which is no entry", where,
            merges_.size(), left, right, piece);
    return found->second;
  };
  const std::string first(left), second(right);
  const uint64_t key = pair_key(id(first), id(second));
  const bool added =
      merges_.emplace(key, Merge{static_cast<int32_t>(merges_.size()), id(first + second)}).second;
  require(added, "{}: merge '{} {}' is there twice", where, left, right);
}

std::vector<int64_t> ByteBpeTokenizer::ids(std::string_view text) const {
  decode_utf8(text, "prompt");
  std::vector<int64_t> result;
  added_.split(text, result, [&](std::string_view part) { append_part(part, result); });
  return result;
}

int64_t ByteBpeTokenizer::added_token(const std::string& token) const {
  const auto found = added_.ids().find(token);
  require(found != added_.ids().end(), "{}: no added token '{}'", where_, token);
  return found->second;
}

void ByteBpeTokenizer::append_part(std::string_view text, std::vector<int64_t>& result) const {
  const std::u32string normal = nfc(decode_utf8(text, "prompt"));
  for (size_t begin = 0; begin < normal.size();) {
    const size_t end = word_end(normal, begin);
    append_word(encode_utf8(std::u32string_view(normal).substr(begin, end - begin)), result);
    begin = end;
  }
}

void ByteBpeTokenizer::append_word(std::string_view bytes, std::vector<int64_t>& result) const {
  constexpr int32_t kNone = -1;
  /// A symbol of the word; merged into the one before it, its id is kNone.
  struct Symbol {
    int32_t id, previous, next;
  };
  const auto count = static_cast<int32_t>(bytes.size());
  std::vector<Symbol> symbols(bytes.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {
        byte_ids_[static_cast<unsigned char>(bytes[static_cast<size_t>(i)])], i - 1,
        i + 1 < count ? i + 1 : kNone};
  }
  // Rank, place, and the pair as it was then: an entry whose pair has changed since is stale.
  using Candidate = std::tuple<int32_t, int32_t, uint64_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto propose = [&](int32_t left) {
    if (left == kNone || symbols[static_cast<size_t>(left)].next == kNone) {
      return;
    }
    const Symbol& symbol = symbols[static_cast<size_t>(left)];
    const uint64_t key = pair_key(symbol.id, symbols[static_cast<size_t>(symbol.next)].id);
    if (const auto merge = merges_.find(key); merge != merges_.end()) {
      candidates.emplace(merge->second.rank, left, key);
    }
  };
  for (int32_t i = 0; i + 1 < count; ++i) {
    propose(i);
  }
  while (!candidates.empty()) {
    const auto [rank, left, key] = candidates.top();
    candidates.pop();
    Symbol& symbol = symbols[static_cast<size_t>(left)];
    if (symbol.id == kNone || symbol.next == kNone ||
        pair_key(symbol.id, symbols[static_cast<size_t>(symbol.next)].id) != key) {
      continue;
    }
    Symbol& right = symbols[static_cast<size_t>(symbol.next)];
    symbol.id = merges_.at(key).id;
    symbol.next = right.next;
    right.id = kNone;
    if (symbol.next != kNone) {
      symbols[static_cast<size_t>(symbol.next)].previous = left;
    }
    propose(symbol.previous);
    propose(left);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id != kNone) {
      result.push_back(symbol.id);
    }
  }
}

}  // namespace minwm::models
