#include "option_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <utility>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

namespace minwm {
namespace {

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

template <class T>
struct Format;

/// The whole text must be a number of type T.
template <class T>
bool parse_number(const std::string& text, T* value) {
  const char* const end = text.data() + text.size();
  const char* const begin = text.data() + (text.starts_with('+') ? 1 : 0);
  T parsed{};
  const auto result = std::from_chars(begin, end, parsed);
  if (result.ec != std::errc() || result.ptr != end || begin == end) {
    return false;
  }
  *value = parsed;
  return true;
}

template <>
struct Format<int64_t> {
  static constexpr const char* kExpected = "a whole number";
  static constexpr const char* kPlaceholder = "N";
  static bool parse(const std::string& text, int64_t* value) { return parse_number(text, value); }
  static std::string text(int64_t value) { return fmt::format("{}", value); }
};

template <>
struct Format<double> {
  static constexpr const char* kExpected = "a number";
  static constexpr const char* kPlaceholder = "X";
  static bool parse(const std::string& text, double* value) {
    double parsed = 0;
    const bool valid = parse_number(text, &parsed) && std::isfinite(parsed);
    *value = valid ? parsed : *value;
    return valid;
  }
  static std::string text(double value) { return fmt::format("{}", value); }
};

template <>
struct Format<bool> {
  static constexpr const char* kExpected = "true or false";
  static constexpr const char* kPlaceholder = "BOOL";
  static bool parse(const std::string& text, bool* value) { return parse_bool(text, value); }
  static std::string text(bool value) { return value ? "true" : "false"; }
};

template <>
struct Format<std::string> {
  static constexpr const char* kExpected = "a text";
  static constexpr const char* kPlaceholder = "TEXT";
  static bool parse(const std::string& text, std::string* value) {
    *value = text;
    return true;
  }
  static std::string text(const std::string& value) { return value; }
};

template <class T>
struct Format<std::vector<T>> {
  static inline const std::string kExpected =
      fmt::format("a comma separated list, each {}", Format<T>::kExpected);
  static inline const std::string kPlaceholder =
      fmt::format("{0},{0},...", Format<T>::kPlaceholder);
  static bool parse(const std::string& text, std::vector<T>* value) {
    std::vector<T> items;
    for (size_t begin = 0; !trim(text).empty() && begin <= text.size();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      const std::string item = trim(text.substr(begin, comma - begin));
      if (item.empty() || !Format<T>::parse(item, &items.emplace_back())) {
        return false;
      }
      begin = comma + 1;
    }
    *value = std::move(items);
    return true;
  }
  static std::string text(const std::vector<T>& value) {
    std::string joined;
    for (const T& item : value) {
      joined += (joined.empty() ? "" : ",") + Format<T>::text(item);
    }
    return joined;
  }
};

template <class T>
class Bound : public OptionValue {
 public:
  explicit Bound(T* value) : value_(value) {}
  bool assign(const std::string& text) override { return Format<T>::parse(text, value_); }
  std::string text() const override { return Format<T>::text(*value_); }
  std::string expected() const override { return std::string(Format<T>::kExpected); }
  std::string placeholder() const override { return std::string(Format<T>::kPlaceholder); }
  bool is_switch() const override { return std::is_same_v<T, bool>; }

 private:
  T* value_;
};

class Choice : public OptionValue {
 public:
  Choice(std::string* value, std::vector<std::string> choices)
      : value_(value), choices_(std::move(choices)) {}
  bool assign(const std::string& text) override {
    const bool valid = std::find(choices_.begin(), choices_.end(), text) != choices_.end();
    *value_ = valid ? text : *value_;
    return valid;
  }
  std::string text() const override { return *value_; }
  std::string expected() const override {
    return fmt::format("one of {}", fmt::join(choices_, ", "));
  }
  std::string placeholder() const override { return fmt::format("{}", fmt::join(choices_, "|")); }

 private:
  std::string* value_;
  std::vector<std::string> choices_;
};

}  // namespace

bool parse_bool(const std::string& text, bool* value) {
  for (const char* yes : {"true", "yes", "on", "1"}) {
    if (text == yes) {
      *value = true;
      return true;
    }
  }
  for (const char* no : {"false", "no", "off", "0"}) {
    if (text == no) {
      *value = false;
      return true;
    }
  }
  return false;
}

template <class T>
std::unique_ptr<OptionValue> make_option_value(T* value) {
  return std::make_unique<Bound<T>>(value);
}
template std::unique_ptr<OptionValue> make_option_value(int64_t*);
template std::unique_ptr<OptionValue> make_option_value(double*);
template std::unique_ptr<OptionValue> make_option_value(bool*);
template std::unique_ptr<OptionValue> make_option_value(std::string*);
template std::unique_ptr<OptionValue> make_option_value(std::vector<int64_t>*);
template std::unique_ptr<OptionValue> make_option_value(std::vector<double>*);
template std::unique_ptr<OptionValue> make_option_value(std::vector<std::string>*);

std::unique_ptr<OptionValue> make_choice_value(std::string* value,
                                               std::vector<std::string> choices) {
  return std::make_unique<Choice>(value, std::move(choices));
}

}  // namespace minwm
