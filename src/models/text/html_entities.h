#pragma once
// Character references of HTML5, as Python's html.unescape and ftfy read them.

#include <string>
#include <unordered_map>

namespace minwm::models {

/// The tables of prompt cleaning, read once from the text that is compiled in (text_tables.inc: W3C
/// names of HTML5; Unicode's compatibility mappings in ftfy's selection).
struct TextTables {
  std::unordered_map<std::string, std::u32string> entities;  ///< "amp" and "amp;"
  /// Names with ";" and their upper-case spellings, for ftfy's own unescaping.
  std::unordered_map<std::string, std::u32string> strict_entities;
  std::unordered_map<char32_t, std::u32string> ligatures, width;
};
const TextTables& text_tables();

/// Windows-1252 of a byte 0x80 … 0x9F; the five bytes it leaves open stay.
char32_t windows_1252(char32_t byte);

/// Every reference of the whole text, with or without ";", longest known beginning.
std::u32string unescape_html(const std::u32string& text);

/// Only references that end with ";": ftfy's step.
std::u32string unescape_strict(const std::u32string& text);

}  // namespace minwm::models
