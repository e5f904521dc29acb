#include "html_entities.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "unicode.h"

namespace minwm::models {
namespace {

constexpr char kTables[] =
#include "text_tables.inc"
    ;

bool is_ascii_digit(char32_t c) {
  return c >= U'0' && c <= U'9';
}
bool is_ascii_letter(char32_t c) {
  return (c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z');
}

/// -1 if c is no hexadecimal digit.
int hex_value(char32_t c) {
  if (is_ascii_digit(c)) {
    return static_cast<int>(c - U'0');
  }
  const char32_t low = c | 0x20;
  return low >= U'a' && low <= U'f' && c < 0x80 ? static_cast<int>(low - U'a') + 10 : -1;
}

/// What a numeric reference stands for; some vanish.
std::u32string numeric_character(uint32_t number) {
  if (number == 0) {
    return U"\uFFFD";
  }
  if (number >= 0x80 && number <= 0x9F) {
    return {windows_1252(number)};
  }
  if ((number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF) {
    return U"\uFFFD";
  }
  const bool control =
      (number < 0x20 && number != '\t' && number != '\n' && number != '\f' && number != '\r') ||
      number == 0x7F;
  if (control || (number >= 0xFDD0 && number <= 0xFDEF) || (number & 0xFFFE) == 0xFFFE) {
    return {};
  }
  return {static_cast<char32_t>(number)};
}

/// A reference found: where it ends and what replaces it.
struct Reference {
  size_t end;
  std::u32string text;
};

/// "#38;" or "#x26;" at `begin` (the "#"); end == begin where there is none.
Reference numeric_reference(const std::u32string& text, size_t begin) {
  size_t i = begin + 1;
  const bool hexadecimal = i < text.size() && (text[i] == U'x' || text[i] == U'X');
  i += hexadecimal ? 1 : 0;
  const size_t digits = i;
  uint32_t number = 0;
  for (; i < text.size() && (hexadecimal ? hex_value(text[i]) >= 0 : is_ascii_digit(text[i]));
       ++i) {
    number = number * (hexadecimal ? 16 : 10) + static_cast<uint32_t>(hex_value(text[i]));
    number = std::min(number, uint32_t{0x110000});  // all beyond Unicode are alike
  }
  if (i == digits) {
    return {begin, {}};
  }
  i += i < text.size() && text[i] == U';' ? 1 : 0;
  return {i, numeric_character(number)};
}

/// "amp;", "amp" or a name that begins with a known one, at `begin`.
Reference named_reference(const std::u32string& text, size_t begin) {
  constexpr size_t kLongest = 32;
  constexpr std::u32string_view kEnds = U"\t\n\f <&#;";
  size_t i = begin;
  while (i < text.size() && i - begin < kLongest &&
         kEnds.find(text[i]) == std::u32string_view::npos) {
    ++i;
  }
  if (i == begin) {
    return {begin, {}};
  }
  i += i < text.size() && text[i] == U';' ? 1 : 0;
  const auto& entities = text_tables().entities;
  const std::u32string name = text.substr(begin, i - begin);
  for (size_t length = name.size(); length >= 1; --length) {
    // A beginning of one character is no reference, a whole name of one would be.
    if (length == 1 && length != name.size()) {
      break;
    }
    const auto found = entities.find(encode_utf8(name.substr(0, length)));
    if (found != entities.end()) {
      return {i, found->second + name.substr(length)};
    }
  }
  return {i, U"&" + name};
}

TextTables read_tables() {
  const auto json = nlohmann::json::parse(kTables);
  const auto value = [](const auto& item) {
    return decode_utf8(item.value().template get<std::string>(), "text tables");
  };
  TextTables tables;
  for (const auto& item : json.at("entities").items()) {
    tables.entities.emplace(item.key() + ";", value(item));
  }
  for (const auto& item : json.at("entities_without_semicolon").items()) {
    tables.entities.emplace(item.key() + ";", value(item));
    tables.entities.emplace(item.key(), value(item));
  }
  for (const auto& item : json.at("ligatures").items()) {
    tables.ligatures.emplace(std::stoul(item.key(), nullptr, 16), value(item));
  }
  for (const auto& item : json.at("width").items()) {
    tables.width.emplace(std::stoul(item.key(), nullptr, 16), value(item));
  }
  return tables;
}

/// Adds what ftfy knows on top: shouted names (&EACUTE;) where HTML leaves them alone.
void add_strict(TextTables& tables) {
  for (const auto& [name, character] : tables.entities) {
    if (name.back() != ';') {
      continue;
    }
    tables.strict_entities[name] = character;
    std::string upper = name;
    bool lower = true;
    for (char& c : upper) {
      lower = lower && !(c >= 'A' && c <= 'Z');
      c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
    bool known = false;  // a beginning that HTML reads ("&LTxyz;" is "<xyz;")
    for (size_t length = 2; length <= upper.size(); ++length) {
      known = known || tables.entities.contains(upper.substr(0, length));
    }
    if (lower && !known) {
      tables.strict_entities.emplace(upper, upper_case(character));
    }
  }
}

}  // namespace

const TextTables& text_tables() {
  static const TextTables tables = [] {
    TextTables result = read_tables();
    add_strict(result);
    return result;
  }();
  return tables;
}

char32_t windows_1252(char32_t byte) {
  static constexpr std::array<char32_t, 32> kCharacters = {
      0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
      0x2039, 0x0152, 0x8D,   0x017D, 0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
      0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};
  return byte >= 0x80 && byte <= 0x9F ? kCharacters[byte - 0x80] : byte;
}

std::u32string unescape_html(const std::u32string& text) {
  std::u32string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (text[i] == U'&' && i + 1 < text.size()) {
      const Reference found =
          text[i + 1] == U'#' ? numeric_reference(text, i + 1) : named_reference(text, i + 1);
      if (found.end > i + 1) {
        result += found.text;
        i = found.end;
        continue;
      }
    }
    result.push_back(text[i++]);
  }
  return result;
}

std::u32string unescape_strict(const std::u32string& text) {
  constexpr size_t kLongest = 24;
  std::u32string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (text[i] != U'&') {
      result.push_back(text[i++]);
      continue;
    }
    const bool numeric = i + 1 < text.size() && text[i + 1] == U'#';
    const size_t begin = i + (numeric ? 2 : 1);
    size_t end = begin;
    while (end < text.size() && end - begin < kLongest &&
           (is_ascii_digit(text[end]) || is_ascii_letter(text[end]))) {
      ++end;
    }
    if (end == begin || end >= text.size() || text[end] != U';') {
      result.push_back(text[i++]);
      continue;
    }
    std::u32string reference = text.substr(i, ++end - i);
    if (numeric) {
      const std::u32string character = unescape_html(reference);
      if (character.find(U';') == std::u32string::npos) {  // else only a part was read
        reference = character;
      }
    } else {
      const auto& known = text_tables().strict_entities;
      const auto found = known.find(encode_utf8(std::u32string_view(reference).substr(1)));
      reference = found != known.end() ? found->second : reference;
    }
    result += reference;
    i = end;
  }
  return result;
}

}  // namespace minwm::models
