#include "minwm/core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "minwm/core/error.h"

namespace minwm {

void init_logging(int rank, int world_size, const std::string& level) {
  const auto parsed = spdlog::level::from_str(level);
  // from_str answers "off" for anything it does not know.
  require(parsed != spdlog::level::off || level == "off",
          "log level '{}': expected trace, debug, info, warn, error or off", level);
  auto logger = std::make_shared<spdlog::logger>(
      "minwm", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern(world_size > 1 ? fmt::format("%H:%M:%S [rank {}] %^%l%$: %v", rank)
                                     : std::string("%H:%M:%S %^%l%$: %v"));
  logger->set_level(rank == 0 ? parsed : std::max(parsed, spdlog::level::warn));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace minwm
