#pragma once
// What the data commands write into a store about its origin (minwm/data/provenance.h).

#include <string>

#include <nlohmann/json.hpp>

namespace minwm::apps {

/// `options`: those that decide about the content; not paths, not the number of ranks.
inline std::string provenance(const char* command, const nlohmann::ordered_json& options) {
  const nlohmann::ordered_json document = {
      {"program", "minwm " MINWM_VERSION}, {"command", command}, {"options", options}};
  return document.dump();
}

}  // namespace minwm::apps
