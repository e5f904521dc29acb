#pragma once
// Tokens that are written out in a text and stand for themselves ("</s>", "<|im_end|>").

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace minwm::models {

class SpecialTokens {
 public:
  /// @throws Error if the token is empty or has another id already; `where` names the file.
  void add(const std::string& token, int64_t id, const std::string& where);
  const std::unordered_map<std::string, int64_t>& ids() const { return ids_; }

  /// Splits at the longest special token of every position, left to right; all else goes to
  /// `plain` in pieces that are not empty; ids of special tokens are appended to `result`.
  void split(std::string_view text, std::vector<int64_t>& result,
             const std::function<void(std::string_view)>& plain) const;

 private:
  std::unordered_map<std::string, int64_t> ids_;
  std::array<std::vector<size_t>, 256> lengths_;  ///< by first byte, longest first
};

}  // namespace minwm::models
