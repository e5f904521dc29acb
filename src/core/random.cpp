#include "minwm/core/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "minwm/core/error.h"

namespace minwm {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio, splitmix64's increment
constexpr uint64_t kFold = 0xD1342543DE82EF95;    // an odd multiplier with good spectral quality
constexpr int64_t kGrain = 1 << 14;               // elements per parallel task

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

uint64_t draw(uint64_t key, uint64_t k) {
  return mix64(key + k * kGolden);
}

double to_unit(uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

struct Pair {
  double first, second;
};

/// Box–Muller; 1 - u keeps the logarithm's argument in (0, 1].
Pair normal_pair(uint64_t a, uint64_t b) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - to_unit(a)));
  const double angle = 2.0 * std::numbers::pi * to_unit(b);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace

uint64_t mix64(uint64_t value) {
  uint64_t z = value + kGolden;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

uint64_t stream_key(const RandomKey& key) {
  uint64_t hash = mix64(key.seed);
  for (const uint64_t part : {fnv1a(key.purpose), key.step, key.sample, key.index}) {
    hash = mix64(hash * kFold + part);
  }
  return hash;
}

uint64_t RandomStream::bits() {
  return draw(key_, ++counter_);
}

double RandomStream::uniform() {
  return to_unit(bits());
}

int64_t RandomStream::integer(int64_t n) {
  require(n > 0, "random integer below {}: expected a positive bound", n);
  return std::min(static_cast<int64_t>(uniform() * static_cast<double>(n)), n - 1);
}

double RandomStream::normal() {
  const uint64_t a = bits();
  return normal_pair(a, bits()).first;
}

at::Tensor random_normal(at::IntArrayRef shape, const RandomKey& key) {
  at::Tensor out = at::empty(shape, at::kFloat);
  float* values = out.mutable_data_ptr<float>();
  const int64_t n = out.numel();
  const uint64_t stream = stream_key(key);
  // Elements 2j and 2j+1 are the two halves of one Box–Muller pair.
  at::parallel_for(0, (n + 1) / 2, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      const auto k = static_cast<uint64_t>(2 * j);
      const Pair pair = normal_pair(draw(stream, k + 1), draw(stream, k + 2));
      values[2 * j] = static_cast<float>(pair.first);
      if (2 * j + 1 < n) {
        values[2 * j + 1] = static_cast<float>(pair.second);
      }
    }
  });
  return out;
}

at::Tensor random_uniform(at::IntArrayRef shape, const RandomKey& key) {
  at::Tensor out = at::empty(shape, at::kFloat);
  float* values = out.mutable_data_ptr<float>();
  const uint64_t stream = stream_key(key);
  at::parallel_for(0, out.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      // 24 bits are exact in float32, so 1.0 is never reached by rounding.
      const uint64_t bits = draw(stream, static_cast<uint64_t>(i) + 1);
      values[i] = static_cast<float>(bits >> 40) * 0x1p-24F;
    }
  });
  return out;
}

double random_uniform(const RandomKey& key) {
  return RandomStream(key).uniform();
}

int64_t random_integer(int64_t n, const RandomKey& key) {
  return RandomStream(key).integer(n);
}

std::vector<int64_t> random_permutation(int64_t n, const RandomKey& key) {
  require(n >= 0, "random permutation of {} items: expected 0 or more", n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  RandomStream stream(key);
  for (int64_t i = n - 1; i > 0; --i) {
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(stream.integer(i + 1))]);
  }
  return order;
}

}  // namespace minwm
