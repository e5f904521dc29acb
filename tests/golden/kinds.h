#pragma once
// Looking up what register_kind (case.h) added.

#include <string>

#include "case.h"

namespace minwm::golden {

/// The replay of a kind, or nullptr.
Replay find_kind(const std::string& kind);

}  // namespace minwm::golden
