#pragma once
// Logging goes to stderr through spdlog (spdlog::info, spdlog::warn, …), prefixed with time and
// rank.

#include <string>

namespace minwm {

/// Sets the pattern and level. Ranks above 0 print warnings and errors only. `level`: trace debug
/// info warn error off.
void init_logging(int rank, int world_size, const std::string& level = "info");

}  // namespace minwm
