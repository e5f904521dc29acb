#include "ledger.h"

#include <algorithm>

#include <c10/core/ScalarType.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::comm {

double Call::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

std::string Call::name() const {
  return fmt::format("{} '{}' seq {}", op, what, sequence);
}

std::string Call::text() const {
  return fmt::format("{} ({} bytes {}) at {}", name(), bytes, c10::toString(dtype), place(where));
}

std::string place(const std::source_location& where) {
  const std::string_view path = where.file_name();
  size_t begin = 0;
  for (const std::string_view folder : {"/src/", "/include/", "/tests/", "/bench/"}) {
    const size_t found = path.rfind(folder);
    if (found != std::string_view::npos) {
      begin = std::max(begin, found + 1);
    }
  }
  return fmt::format("{}:{}", path.substr(begin), where.line());
}

Call Ledger::add(const char* op, const CallSite& site, uint64_t bytes, uint64_t counted_bytes,
                 at::ScalarType dtype) {
  const auto hash_text = [](std::string_view text) {
    return stream_key({.seed = 0, .purpose = text});
  };
  const std::lock_guard lock(mutex_);
  for (const uint64_t part :
       {hash_text(op), hash_text(site.what), counted_bytes, static_cast<uint64_t>(dtype)}) {
    hash_ = mix64(hash_ ^ part);
  }
  Call call{.op = op,
            .what = std::string(site.what),
            .where = site.where,
            .sequence = calls_,
            .bytes = bytes,
            .dtype = dtype,
            .begun = std::chrono::steady_clock::now(),
            .timeout = site.timeout};
  last_[calls_++ % kKept] = call;
  return call;
}

uint64_t Ledger::hash() const {
  const std::lock_guard lock(mutex_);
  return hash_;
}

uint64_t Ledger::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

Call Ledger::last() const {
  const std::lock_guard lock(mutex_);
  return calls_ == 0 ? Call{} : last_[(calls_ - 1) % kKept];
}

std::vector<std::string> Ledger::recent() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> texts;
  for (uint64_t i = calls_ > kKept ? calls_ - kKept : 0; i < calls_; ++i) {
    texts.push_back(last_[i % kKept].text());
  }
  return texts;
}

}  // namespace minwm::comm
