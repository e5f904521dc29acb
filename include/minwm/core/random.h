#pragma once
// Counter-based random numbers: a draw is a pure function of its address, so results do not depend
// on the number of ranks, on resume, or on the order in which things happen.
//
//   at::Tensor noise = random_normal({20, 16, 60, 104}, {seed, "train.noise", step, sample});

#include <cstdint>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm {

/// The address of a stream. Different purposes never share numbers.
struct RandomKey {
  uint64_t seed = 0;
  std::string_view purpose;  ///< e.g. "train.noise"; hashed (FNV-1a)
  uint64_t step = 0;
  uint64_t sample = 0;  ///< global sample index; leave 0 for draws that all ranks share
  uint64_t index = 0;   ///< anything finer, e.g. the block
};

/// splitmix64's finaliser with its increment: mix(0) = 0xe220a8397b1dcdaf.
uint64_t mix64(uint64_t value);

/// The 64-bit key of an address.
uint64_t stream_key(const RandomKey& key);

/// Sequential draws from one address: draw k is mix64(key + k * 0x9E3779B97F4A7C15), k = 1, 2, ….
class RandomStream {
 public:
  explicit RandomStream(uint64_t key) : key_(key) {}
  explicit RandomStream(const RandomKey& key) : key_(stream_key(key)) {}
  uint64_t bits();
  double uniform();            ///< [0, 1)
  int64_t integer(int64_t n);  ///< 0 … n-1
  double normal();             ///< standard normal (Box–Muller)

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

/// Standard normal float32 CPU tensor; element i depends on the address and i alone.
at::Tensor random_normal(at::IntArrayRef shape, const RandomKey& key);
/// Uniform [0, 1) float32 CPU tensor, likewise.
at::Tensor random_uniform(at::IntArrayRef shape, const RandomKey& key);
/// One double in [0, 1).
double random_uniform(const RandomKey& key);
/// One integer in 0 … n-1.
int64_t random_integer(int64_t n, const RandomKey& key);
/// A permutation of 0 … n-1.
std::vector<int64_t> random_permutation(int64_t n, const RandomKey& key);

}  // namespace minwm
