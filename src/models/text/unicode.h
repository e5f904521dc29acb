#pragma once
// UTF-8 to code points and back, and ICU's tables of characters.

#include <string>
#include <string_view>

namespace minwm::models {

/// Code points of UTF-8 text. @throws Error naming `what` and the byte where it is no UTF-8.
std::u32string decode_utf8(std::string_view text, const std::string& what);
std::string encode_utf8(std::u32string_view text);

/// Normal form C.
std::u32string nfc(const std::u32string& text);
/// Full case mapping without a language: one character may become several.
std::u32string lower_case(const std::u32string& text);
std::u32string upper_case(const std::u32string& text);

/// The 25 characters of Unicode's White_Space.
bool is_white_space(char32_t c);
bool is_letter(char32_t c);         ///< \p{L}
bool is_number(char32_t c);         ///< \p{N}
bool is_decimal_digit(char32_t c);  ///< \p{Nd}

}  // namespace minwm::models
