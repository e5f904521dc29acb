#include "minwm/models/text/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "charsmap.h"
#include "minwm/core/error.h"
#include "unicode.h"

namespace minwm::models {
namespace {

constexpr std::string_view kSpace = "\u2581";  // "▁"

/// Bytes of the UTF-8 character at the start of valid text.
size_t character_bytes(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text.front());
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// Spaces at the end off; every run of spaces one "▁", one in front.
std::string mark_spaces(std::string text) {
  text.erase(text.find_last_not_of(' ') + 1);
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ' ') {
      result.push_back(text[i]);
    } else if (i == 0 || text[i - 1] != ' ') {
      result += kSpace;
    }
  }
  if (!result.empty() && !result.starts_with(kSpace)) {
    result.insert(0, kSpace);
  }
  return result;
}

}  // namespace

UnigramTokenizer::UnigramTokenizer(UnigramModel model)
    : model_(std::move(model)),
      charsmap_(std::make_unique<Charsmap>(model_.charsmap, model_.where)),
      first_byte_(256) {
  auto& pieces = model_.pieces;
  require(!pieces.empty(), "{}: no piece of text in the vocabulary", model_.where);
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const auto& a, const auto& b) { return a.text < b.text; });
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < pieces.size(); ++i) {
    require(!pieces[i].text.empty() && std::isfinite(pieces[i].score),
            "{}: piece {} is empty or has no finite score", model_.where, pieces[i].id);
    require(i == 0 || pieces[i].text != pieces[i - 1].text, "{}: piece '{}' is there twice",
            model_.where, pieces[i].text);
    auto& range = first_byte_[static_cast<unsigned char>(pieces[i].text.front())];
    range.low = range.high == 0 ? static_cast<uint32_t>(i) : range.low;
    range.high = static_cast<uint32_t>(i + 1);
    lowest = std::min(lowest, pieces[i].score);
  }
  constexpr double kUnknownPenalty = 10;  // SentencePiece's
  unknown_score_ = lowest - kUnknownPenalty;
  const auto special = [&](const std::string& token) {
    const auto found = model_.special.ids().find(token);
    require(found != model_.special.ids().end(), "{}: no special token '{}'", model_.where, token);
    return found->second;
  };
  pad_ = special("<pad>");
  end_ = special("</s>");
  require(model_.bytes.empty() || model_.bytes.size() == 256,
          "{}: byte fallback needs 256 pieces <0xNN>, {} are there", model_.where,
          model_.bytes.size());
}

UnigramTokenizer::UnigramTokenizer(UnigramTokenizer&&) noexcept = default;
UnigramTokenizer& UnigramTokenizer::operator=(UnigramTokenizer&&) noexcept = default;
UnigramTokenizer::~UnigramTokenizer() = default;

std::vector<int64_t> UnigramTokenizer::ids(std::string_view text) const {
  decode_utf8(text, "prompt");
  std::vector<int64_t> result;
  model_.special.split(text, result, [&](std::string_view part) { append_part(part, result); });
  return result;
}

void UnigramTokenizer::append_part(std::string_view text, std::vector<int64_t>& result) const {
  const std::string marked = mark_spaces(charsmap_->normalise(text));
  for (size_t begin = 0; begin < marked.size();) {
    const size_t end = std::min(marked.find(kSpace, begin + 1), marked.size());
    append_word(std::string_view(marked).substr(begin, end - begin), result);
    begin = end;
  }
}

uint32_t UnigramTokenizer::Range::narrow(const std::vector<UnigramPiece>& pieces, size_t length,
                                         unsigned char byte) {
  const auto byte_at = [length](const UnigramPiece& piece) {
    return static_cast<unsigned char>(piece.text[length]);
  };
  const auto first = pieces.begin();
  const auto from = std::partition_point(first + low, first + high,
                                         [&](const auto& p) { return byte_at(p) < byte; });
  const auto to =
      std::partition_point(from, first + high, [&](const auto& p) { return byte_at(p) == byte; });
  low = static_cast<uint32_t>(from - first);
  high = static_cast<uint32_t>(to - first);
  return high - low;
}

template <class Found>
void UnigramTokenizer::for_each_piece(std::string_view text, const Found& found) const {
  Range range = first_byte_[static_cast<unsigned char>(text.front())];
  for (size_t length = 1; range.low < range.high; ++length) {
    const UnigramPiece& shortest = model_.pieces[range.low];
    if (shortest.text.size() == length) {
      found(shortest);
      ++range.low;
    }
    if (length == text.size() ||
        range.narrow(model_.pieces, length, static_cast<unsigned char>(text[length])) == 0) {
      return;
    }
  }
}

void UnigramTokenizer::append_word(std::string_view word, std::vector<int64_t>& result) const {
  constexpr int64_t kUnknown = -1, kUnreached = -2;
  /// The best way to end here.
  struct Node {
    double score = 0;
    size_t begin = 0;
    int64_t id = kUnreached;
  };
  std::vector<Node> nodes(word.size() + 1);
  const auto reach = [&](size_t begin, size_t end, double score, int64_t id) {
    Node& node = nodes[end];
    const double total = nodes[begin].score + score;
    if (node.id == kUnreached || total > node.score) {
      node = {total, begin, id};
    }
  };
  for (size_t begin = 0; begin < word.size();) {
    const size_t step = character_bytes(word.substr(begin));
    bool single = false;
    for_each_piece(word.substr(begin), [&](const UnigramPiece& piece) {
      reach(begin, begin + piece.text.size(), piece.score, piece.id);
      single = single || piece.text.size() == step;
    });
    if (!single) {
      reach(begin, begin + step, unknown_score_, kUnknown);
    }
    begin += step;
  }
  std::vector<size_t> ends;  // last first
  for (size_t end = word.size(); end > 0; end = nodes[end].begin) {
    ends.push_back(end);
  }
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    if (nodes[*end].id != kUnknown) {
      result.push_back(nodes[*end].id);
      continue;
    }
    const size_t begin = nodes[*end].begin;
    while (end + 1 != ends.rend() && nodes[*(end + 1)].id == kUnknown) {
      ++end;
    }
    append_unknown(word.substr(begin, *end - begin), result);
  }
}

void UnigramTokenizer::append_unknown(std::string_view characters,
                                      std::vector<int64_t>& result) const {
  if (model_.bytes.empty()) {
    result.push_back(model_.unknown);  // one for the whole run
    return;
  }
  for (const char c : characters) {
    result.push_back(model_.bytes[static_cast<unsigned char>(c)]);
  }
}

}  // namespace minwm::models
