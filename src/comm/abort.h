#pragma once
// abort_job with more to say, for the files of this room.

#include <string>

#include <nlohmann/json.hpp>

namespace minwm::comm {

/// Like abort_job; the fields of `details` follow rank, host and what.
[[noreturn]] void abort_job_with(const std::string& message, const nlohmann::ordered_json& details,
                                 int exit_code);

}  // namespace minwm::comm
