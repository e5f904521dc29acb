#pragma once
// What replays of autoencoders share.

#include "hash32.h"
#include "wan_model.h"

namespace minwm::golden {

/// Reads fields of a case's config; those that are absent keep their value.
inline auto config_reader(const Case& c) {
  return [&c](const char* key, auto& field) {
    if (c.config.contains(key)) {
      c.config.at(key).get_to(field);
    }
  };
}

/// A half of an autoencoder, with its own of the case's parameters, stored or made.
template <class Network, class Config>
Network case_network(const Case& c, const Config& config, const std::string& prefix) {
  Network network(config);
  auto tensors = uses_hash32(c) ? hash32_parameters(c, *network) : parameters(c);
  std::erase_if(tensors, [&](const auto& item) { return !item.first.starts_with(prefix); });
  models::load_state(*network, tensors, c.path);
  return network;
}

}  // namespace minwm::golden
