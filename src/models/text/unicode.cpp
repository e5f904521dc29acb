#include "unicode.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

icu::UnicodeString to_icu(const std::u32string& text) {
  return icu::UnicodeString::fromUTF32(reinterpret_cast<const UChar32*>(text.data()),
                                       static_cast<int32_t>(text.size()));
}

std::u32string from_icu(const icu::UnicodeString& text) {
  std::u32string result;
  result.reserve(static_cast<size_t>(text.length()));
  for (int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1)) {
    result.push_back(static_cast<char32_t>(text.char32At(i)));
  }
  return result;
}

}  // namespace

std::u32string decode_utf8(std::string_view text, const std::string& what) {
  require(text.size() < (size_t{1} << 30), "{}: {} bytes are too many, at most 2^30", what,
          text.size());
  std::u32string result;
  result.reserve(text.size());
  const auto length = static_cast<int32_t>(text.size());
  for (int32_t i = 0; i < length;) {
    const int32_t start = i;
    UChar32 c = 0;
    U8_NEXT(text.data(), i, length, c);
    require(c >= 0, "{}: no UTF-8 text at byte {}", what, start);
    result.push_back(static_cast<char32_t>(c));
  }
  return result;
}

std::string encode_utf8(std::u32string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char32_t c : text) {
    char bytes[4];
    int32_t length = 0;
    U8_APPEND_UNSAFE(bytes, length, static_cast<UChar32>(c));
    result.append(bytes, static_cast<size_t>(length));
  }
  return result;
}

std::u32string nfc(const std::u32string& text) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* const normalizer = icu::Normalizer2::getNFCInstance(status);
  require(U_SUCCESS(status) != 0, "ICU has no NFC data: {}", u_errorName(status));
  const icu::UnicodeString source = to_icu(text);
  const icu::UnicodeString normal = normalizer->normalize(source, status);
  require(U_SUCCESS(status) != 0, "ICU cannot normalise a text: {}", u_errorName(status));
  return from_icu(normal);
}

std::u32string lower_case(const std::u32string& text) {
  return from_icu(to_icu(text).toLower(icu::Locale::getRoot()));
}

std::u32string upper_case(const std::u32string& text) {
  return from_icu(to_icu(text).toUpper(icu::Locale::getRoot()));
}

bool is_white_space(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0;
}

bool is_letter(char32_t c) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_L_MASK) != 0;
}

bool is_number(char32_t c) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK) != 0;
}

bool is_decimal_digit(char32_t c) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_ND_MASK) != 0;
}

}  // namespace minwm::models
