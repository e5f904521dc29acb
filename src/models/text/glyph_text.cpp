#include "minwm/models/text/glyph_text.h"

#include <algorithm>
#include <unordered_set>

#include "json_file.h"

namespace minwm::models {
namespace {

constexpr int64_t kFirstByte = 3, kSentinels = 125, kFirstSentinel = 259;
constexpr std::string_view kOpen = "\u201C", kClose = "\u201D";  // “ and ”

using Table = std::vector<std::pair<std::string, int64_t>>;

/// Names with their index, in the order of the file.
Table read_table(const std::filesystem::path& path) {
  return with_json_file<nlohmann::ordered_json>(path, [&](const nlohmann::ordered_json& json) {
    Table table;
    for (const auto& item : json.items()) {
      table.emplace_back(item.key(), item.value().get<int64_t>());
      require(table.back().second >= 0, "{}: '{}' has index {}", path.string(), item.key(),
              table.back().second);
    }
    return table;
  });
}

/// Where a quote that begins before `begin` closes, or npos. Remembers its last answer: a long
/// line of quotes that never close is not read again for each of them.
class Closing {
 public:
  Closing(std::string_view text, std::string_view quote) : text_(text), quote_(quote) {}
  size_t after(size_t begin) {
    if (begin > found_ || !searched_) {
      found_ = text_.find(quote_, begin);
      searched_ = true;
    }
    return found_;
  }

 private:
  std::string_view text_, quote_;
  size_t found_ = 0;
  bool searched_ = false;
};

}  // namespace

std::vector<std::string> quoted_texts(std::string_view caption, QuoteRule rule) {
  std::vector<std::string> texts;
  std::unordered_set<std::string> seen;
  Closing straight(caption, "\""), curly(caption, kClose), line(caption, "\n");
  for (size_t i = 0; i < caption.size();) {
    const bool is_straight = caption[i] == '"';
    const bool is_curly = rule == QuoteRule::kPipeline && caption.substr(i).starts_with(kOpen);
    if (!is_straight && !is_curly) {
      ++i;
      continue;
    }
    const size_t begin = i + (is_straight ? 1 : kOpen.size());
    const size_t end = (is_straight ? straight : curly).after(begin);
    if (end == std::string_view::npos || line.after(begin) < end) {
      i = begin;
      continue;
    }
    std::string text(caption.substr(begin, end - begin));
    if (seen.insert(text).second) {
      texts.push_back(std::move(text));
    }
    i = end + (is_straight ? 1 : kClose.size());
  }
  return texts;
}

GlyphTokenizer GlyphTokenizer::open(const std::filesystem::path& folder) {
  const auto fonts = folder / "multilingual_10-lang_idx.json";
  return GlyphTokenizer(static_cast<int64_t>(read_table(folder / "color_idx.json").size()),
                        read_table(fonts), fonts.string());
}

GlyphTokenizer::GlyphTokenizer(int64_t colors, const Table& fonts, const std::string& where)
    : colors_(colors) {
  special_.add("<pad>", 0, where);
  special_.add("</s>", 1, where);
  special_.add("<unk>", 2, where);
  int64_t id = kFirstSentinel;
  for (int64_t k = 0; k < kSentinels; ++k) {
    special_.add(fmt::format("<extra_id_{}>", k), id++, where);
  }
  for (int64_t k = 0; k < colors; ++k) {
    special_.add(fmt::format("<color-{}>", k), id++, where);
  }
  for (const auto& [name, index] : fonts) {
    require(name.size() > 2 && name[2] == '-',
            "{}: font '{}': a name like en-Poppins-Italic was expected", where, name);
    font_tokens_.push_back(fmt::format("<{}-font-{}>", name.substr(0, 2), index));
    special_.add(font_tokens_.back(), id++, where);
  }
  vocabulary_ = id;
}

std::string GlyphTokenizer::prompt(const std::vector<std::string>& texts,
                                   const std::vector<GlyphStyle>& styles) const {
  require(styles.empty() || styles.size() == texts.size(), "{} texts, but {} styles", texts.size(),
          styles.size());
  std::string result;
  for (size_t i = 0; i < texts.size(); ++i) {
    const GlyphStyle style = styles.empty() ? GlyphStyle{} : styles[i];
    require(!style.color || (*style.color >= 0 && *style.color < colors_),
            "colour {} is not one of {}", style.color.value_or(0), colors_);
    result += fmt::format("Text \"{}\"", texts[i]);
    if (style.font) {
      require(*style.font >= 0 && *style.font < static_cast<int64_t>(font_tokens_.size()),
              "font {} is not one of {}", *style.font, font_tokens_.size());
      result += " in ";
      result += style.color ? fmt::format("<color-{}>, ", *style.color) : "";
      result += font_tokens_[static_cast<size_t>(*style.font)];
    }
    result += ". ";
  }
  return result;
}

std::vector<int64_t> GlyphTokenizer::ids(std::string_view text) const {
  std::vector<int64_t> result;
  special_.split(text, result, [&](std::string_view part) {
    for (const char byte : part) {
      result.push_back(static_cast<unsigned char>(byte) + kFirstByte);
    }
  });
  return result;
}

}  // namespace minwm::models
