#pragma once
// What tests of video codecs share: random weights, streams, measures of difference.

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/models/codec/codec.h"
#include "minwm/models/state.h"
#include "tests/golden/hash32.h"

namespace minwm::models::testing {

using Tensors = std::map<std::string, at::Tensor>;
using Shapes = std::map<std::string, std::vector<int64_t>>;

/// Random values for the parameters of a codec's halves.
inline Tensors random_weights(const torch::nn::Module& encoder, const torch::nn::Module& decoder) {
  Tensors tensors;
  for (const auto* half : {&encoder, &decoder}) {
    for (const auto& item : half->named_parameters()) {
      tensors[item.key()] = golden::hash32_parameter(item.key(), item.value().sizes(), 1);
    }
  }
  return tensors;
}

inline Shapes shapes_of(const torch::nn::Module& encoder, const torch::nn::Module& decoder) {
  Shapes shapes;
  for (const auto* half : {&encoder, &decoder}) {
    for (const auto& item : half->named_parameters()) {
      shapes[item.key()] = item.value().sizes().vec();
    }
  }
  return shapes;
}

/// The published tensors of data/vae_manifests/<name>.json; empty where the list is absent.
inline Shapes published_shapes(const std::string& name) {
  const std::string path = MINWM_SHARED_DATA "/data/vae_manifests/" + name + ".json";
  Shapes shapes;
  if (std::filesystem::exists(path)) {
    std::ifstream file(path);
    const auto manifest = nlohmann::json::parse(file);
    for (const auto& item : manifest.at("tensors")) {
      shapes[item[0]] = item[1].get<std::vector<int64_t>>();
    }
  }
  return shapes;
}

/// Tensors of these shapes without values.
inline Tensors without_values(const Shapes& shapes) {
  Tensors tensors;
  for (const auto& [name, shape] : shapes) {
    tensors[name] = at::empty(shape, at::device(at::kMeta));
  }
  return tensors;
}

/// A stream of these latents in parts of these lengths.
inline at::Tensor streamed(Codec& codec, const at::Tensor& latents,
                           const std::vector<int64_t>& parts) {
  const auto state = codec.make_decode_state();
  std::vector<at::Tensor> pixels;
  int64_t begin = 0;
  for (const int64_t count : parts) {
    pixels.push_back(codec.decode_stream(latents.narrow(1, begin, count), *state));
    EXPECT_EQ(pixels.back().size(1), begin == 0 ? 4 * count - 3 : 4 * count);
    begin += count;
  }
  return at::cat(pixels, 1);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

inline double relative_error(const at::Tensor& ours, const at::Tensor& exact) {
  return ((ours - exact).norm() / exact.norm()).item<double>();
}

}  // namespace minwm::models::testing
