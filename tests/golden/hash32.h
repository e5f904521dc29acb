#pragma once
// Parameters of cases too large to store them: made from their names (spec vae 8, scheme hash32).

#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "case.h"
#include "minwm/core/error.h"

namespace minwm::golden {

/// The CRC-32 of zlib over a name's bytes.
inline uint32_t name_crc32(std::string_view name) {
  uint32_t crc = 0xffffffffu;
  for (const char c : name) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xedb88320u : 0u);
    }
  }
  return ~crc;
}

/// Element i of a parameter, as a number in [-0.5, 0.5).
inline double hash32_uniform(uint32_t i, uint32_t crc) {
  uint32_t x = i * 2654435761u + crc;
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  x ^= x >> 16;
  return static_cast<double>(x) / 4294967296.0 - 0.5;
}

/// The parameter `name` (its full published name) of this shape: float32.
inline at::Tensor hash32_parameter(const std::string& name, at::IntArrayRef shape, double gain) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  const uint32_t crc = name_crc32(name);
  const int64_t n = tensor.numel();
  double offset = 0, scale = 0.2;  // .bias
  if (name.ends_with("gamma")) {
    offset = 1, scale = 0.4;
  } else if (!name.ends_with(".bias")) {
    scale = std::sqrt(12.0) * gain / std::sqrt(static_cast<double>(n / shape[0]));
  }
  float* const values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) {
    values[i] = static_cast<float>(offset + scale * hash32_uniform(static_cast<uint32_t>(i), crc));
  }
  return tensor;
}

/// Whether a case's parameters are made and not stored.
inline bool uses_hash32(const Case& c) {
  return c.config.contains("param_init");
}

/// The parameters of a module (hollow or not) by the case's config.param_init.
inline std::map<std::string, at::Tensor> hash32_parameters(const Case& c,
                                                           const torch::nn::Module& module) {
  const auto& init = c.config.at("param_init");
  require(init.at("scheme") == "hash32", "{}: param_init scheme {}, expected hash32", c.path,
          init.at("scheme").dump());
  std::map<std::string, at::Tensor> tensors;
  for (const auto& item : module.named_parameters()) {
    tensors[item.key()] =
        hash32_parameter(item.key(), item.value().sizes(), init.at("gain").get<double>());
  }
  return tensors;
}

}  // namespace minwm::golden
