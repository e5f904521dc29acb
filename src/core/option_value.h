#pragma once
// The typed variable behind one option: text in, text out.

#include <memory>
#include <string>
#include <vector>

namespace minwm {

class OptionValue {
 public:
  virtual ~OptionValue() = default;
  /// Sets the variable; false (and no change) if `text` is not of its type.
  virtual bool assign(const std::string& text) = 0;
  /// The value as assign() reads it.
  virtual std::string text() const = 0;
  /// What assign() accepts, for error messages: "a whole number".
  virtual std::string expected() const = 0;
  /// What --help shows after the flag: "N".
  virtual std::string placeholder() const = 0;
  /// True if the flag may stand without a value.
  virtual bool is_switch() const { return false; }
};

/// Accepts true false yes no on off 1 0.
bool parse_bool(const std::string& text, bool* value);

/// T as Options::add lists them.
template <class T>
std::unique_ptr<OptionValue> make_option_value(T* value);

std::unique_ptr<OptionValue> make_choice_value(std::string* value,
                                               std::vector<std::string> choices);

}  // namespace minwm
