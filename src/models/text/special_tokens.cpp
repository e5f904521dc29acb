#include "minwm/models/text/special_tokens.h"

#include <algorithm>

#include "minwm/core/error.h"

namespace minwm::models {

void SpecialTokens::add(const std::string& token, int64_t id, const std::string& where) {
  require(!token.empty(), "{}: an added token is empty", where);
  const auto [known, added] = ids_.emplace(token, id);
  require(added || known->second == id, "{}: added token '{}' has the ids {} and {}", where, token,
          known->second, id);
  auto& lengths = lengths_[static_cast<unsigned char>(token.front())];
  if (std::find(lengths.begin(), lengths.end(), token.size()) == lengths.end()) {
    lengths.push_back(token.size());
    std::sort(lengths.rbegin(), lengths.rend());
  }
}

void SpecialTokens::split(std::string_view text, std::vector<int64_t>& result,
                          const std::function<void(std::string_view)>& plain) const {
  size_t begin = 0;
  const auto flush = [&](size_t end) {
    if (end > begin) {
      plain(text.substr(begin, end - begin));
    }
  };
  for (size_t i = 0; i < text.size();) {
    size_t taken = 0;
    for (const size_t length : lengths_[static_cast<unsigned char>(text[i])]) {
      const auto found =
          length <= text.size() - i ? ids_.find(std::string(text.substr(i, length))) : ids_.end();
      if (found != ids_.end()) {
        flush(i);
        result.push_back(found->second);
        taken = length;
        break;
      }
    }
    i += std::max<size_t>(taken, 1);
    begin = taken > 0 ? i : begin;
  }
  flush(text.size());
}

}  // namespace minwm::models
