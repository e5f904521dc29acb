#include "minwm/models/text/clean_text.h"

#include <algorithm>

#include "html_entities.h"
#include "minwm/core/error.h"
#include "unicode.h"

namespace minwm::models {
namespace {

bool in(char32_t c, char32_t first, char32_t last) {
  return c >= first && c <= last;
}

/// What ftfy removes besides terminal escapes.
bool is_dropped(char32_t c) {
  return c <= 0x08 || c == 0x0B || in(c, 0x0E, 0x1F) || c == 0x7F || in(c, 0x206A, 0x206F) ||
         c == 0xFEFF || in(c, 0xFFF9, 0xFFFC);
}

/// Runs `change(c, result)` over the text.
template <class Change>
std::u32string each_character(const std::u32string& text, const Change& change) {
  std::u32string result;
  result.reserve(text.size());
  for (const char32_t c : text) {
    change(c, result);
  }
  return result;
}

/// Controls, ligatures, widths and quotes, in this order for every character: what one of the
/// tables gives ("ŉ" is "ʼn") the later ones see too.
std::u32string fix_characters(const std::u32string& text) {
  const TextTables& tables = text_tables();
  const auto mapped = [](const auto& table) {
    return [&table](char32_t c, std::u32string& result) {
      const auto found = table.find(c);
      found == table.end() ? result.push_back(c) : void(result += found->second);
    };
  };
  std::u32string result =
      each_character(text, [](char32_t c, std::u32string& out) { out.push_back(windows_1252(c)); });
  result = each_character(result, mapped(tables.ligatures));
  result = each_character(result, mapped(tables.width));
  return each_character(result, [](char32_t c, std::u32string& out) {
    const bool single_quote = c == 0x02BC || in(c, 0x2018, 0x201B);
    out.push_back(single_quote ? U'\'' : in(c, 0x201C, 0x201F) ? U'"' : c);
  });
}

/// Every kind of line end becomes "\n".
std::u32string fix_line_ends(const std::u32string& text) {
  std::u32string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    if (c == U'\r' && i + 1 < text.size() && text[i + 1] == U'\n') {
      continue;
    }
    result.push_back(c == U'\r' || c == 0x2028 || c == 0x2029 || c == 0x85 ? U'\n' : c);
  }
  return result;
}

/// Takes out ESC [ digits and semicolons, letter, and then the characters that are dropped.
std::u32string remove_controls(const std::u32string& text) {
  constexpr char32_t kEscape = 0x1B;
  std::u32string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == kEscape && i + 1 < text.size() && text[i + 1] == U'[') {
      size_t end = i + 2;
      while (end < text.size() && (text[end] == U';' || is_decimal_digit(text[end]))) {
        ++end;
      }
      if (end < text.size() && (in(text[end], U'a', U'z') || in(text[end], U'A', U'Z'))) {
        i = end;
        continue;
      }
    }
    if (!is_dropped(text[i])) {
      result.push_back(text[i]);
    }
  }
  return result;
}

std::u32string fix_segment(std::u32string segment, bool unescape) {
  for (;;) {
    std::u32string fixed = unescape ? unescape_strict(segment) : segment;
    fixed = nfc(remove_controls(fix_line_ends(fix_characters(fixed))));
    if (fixed == segment) {
      return segment;
    }
    segment = std::move(fixed);
  }
}

/// ftfy.fix_text without its repair of encodings.
std::u32string fix_text(const std::u32string& text) {
  constexpr size_t kLongestSegment = 1'000'000;  // ftfy's max_decode_length
  std::u32string result;
  bool unescape = true;
  for (size_t begin = 0; begin < text.size();) {
    const size_t line_end = text.find(U'\n', begin);
    const size_t end = std::min({line_end == std::u32string::npos ? text.size() : line_end + 1,
                                 begin + kLongestSegment, text.size()});
    std::u32string segment = text.substr(begin, end - begin);
    // Text with tags is taken for HTML, whose references mean themselves, from here on.
    unescape = unescape && segment.find(U'<') == std::u32string::npos;
    result += fix_segment(std::move(segment), unescape);
    begin = end;
  }
  return result;
}

/// Without white space at both ends, every run of it one space.
std::u32string collapse(const std::u32string& text) {
  std::u32string result;
  result.reserve(text.size());
  for (const char32_t c : text) {
    if (!is_white_space(c)) {
      result.push_back(c);
    } else if (!result.empty() && result.back() != U' ') {
      result.push_back(U' ');
    }
  }
  if (!result.empty() && result.back() == U' ') {
    result.pop_back();
  }
  return result;
}

std::u32string without_punctuation(const std::u32string& text) {
  return each_character(text, [](char32_t c, std::u32string& result) {
    if (c == U'_') {
      result.push_back(U' ');
    } else if (!in(c, 0x21, 0x2F) && !in(c, 0x3A, 0x40) && !in(c, 0x5B, 0x60) &&
               !in(c, 0x7B, 0x7E)) {
      result.push_back(c);
    }
  });
}

}  // namespace

CleanMode clean_mode(const std::string& name) {
  if (name == "whitespace") {
    return CleanMode::kWhitespace;
  }
  require(name == "lower" || name == "canonicalize",
          "clean mode '{}' is not known: whitespace, lower or canonicalize", name);
  return name == "lower" ? CleanMode::kLower : CleanMode::kCanonicalize;
}

std::string clean_text(std::string_view text, CleanMode mode) {
  const std::u32string fixed = unescape_html(unescape_html(fix_text(decode_utf8(text, "prompt"))));
  if (mode == CleanMode::kCanonicalize) {
    return encode_utf8(collapse(lower_case(without_punctuation(fixed))));
  }
  const std::u32string plain = collapse(fixed);
  return encode_utf8(mode == CleanMode::kLower ? lower_case(plain) : plain);
}

}  // namespace minwm::models
