#include "word_scanner.h"

#include "unicode.h"

namespace minwm::models {
namespace {

bool is_line_end(char32_t c) {
  return c == U'\r' || c == U'\n';
}
bool is_other(char32_t c) {
  return !is_white_space(c) && !is_letter(c) && !is_number(c);
}

template <class Class>
size_t skip(std::u32string_view text, size_t i, const Class& belongs) {
  while (i < text.size() && belongs(text[i])) {
    ++i;
  }
  return i;
}

/// ASCII lower case; the long s is an s.
char32_t folded(char32_t c) {
  return c == 0x017F ? U's' : c >= U'A' && c <= U'Z' ? c + 0x20 : c;
}

/// The end of 's, 't, 'm, 'd, 're, 've, 'll in either case, or begin.
size_t contraction_end(std::u32string_view text, size_t begin) {
  if (text[begin] != U'\'' || begin + 1 >= text.size()) {
    return begin;
  }
  const char32_t first = folded(text[begin + 1]);
  if (first == U's' || first == U't' || first == U'm' || first == U'd') {
    return begin + 2;
  }
  const char32_t second = begin + 2 < text.size() ? folded(text[begin + 2]) : U'\0';
  const bool two =
      ((first == U'r' || first == U'v') && second == U'e') || (first == U'l' && second == U'l');
  return two ? begin + 3 : begin;
}

/// A run of white space: up to its last line end; without one all but the character before a
/// word, which belongs to that word.
size_t space_end(std::u32string_view text, size_t begin) {
  const size_t end = skip(text, begin, is_white_space);
  for (size_t i = end; i > begin; --i) {
    if (is_line_end(text[i - 1])) {
      return i;
    }
  }
  return end < text.size() && end - begin > 1 ? end - 1 : end;
}

}  // namespace

size_t word_end(std::u32string_view text, size_t begin) {
  if (const size_t end = contraction_end(text, begin); end > begin) {
    return end;
  }
  const char32_t c = text[begin];
  if (is_letter(c)) {
    return skip(text, begin, is_letter);
  }
  if (is_number(c)) {
    return begin + 1;
  }
  const bool more = begin + 1 < text.size();
  if (!is_line_end(c) && more && is_letter(text[begin + 1])) {
    return skip(text, begin + 1, is_letter);
  }
  const size_t other = c == U' ' && more ? begin + 1 : begin;
  if (is_other(text[other])) {
    return skip(text, skip(text, other, is_other), is_line_end);
  }
  return space_end(text, begin);
}

}  // namespace minwm::models
