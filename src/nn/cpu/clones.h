#pragma once
// Loops are compiled for three levels of x86-64 and chosen when the program starts; the binary
// stays portable.

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define MINWM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MINWM_CLONES
#endif
#define MINWM_INLINE static inline __attribute__((always_inline))

namespace minwm::nn::cpu {

using Bf16 = uint16_t;

MINWM_INLINE float load(const float* p) {
  return *p;
}
MINWM_INLINE float load(const Bf16* p) {
  const uint32_t bits = static_cast<uint32_t>(*p) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
MINWM_INLINE void store(float* p, float value) {
  *p = value;
}
/// Round to nearest, ties to even.
MINWM_INLINE void store(Bf16* p, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits += 0x7fff + ((bits >> 16) & 1);
  *p = static_cast<Bf16>(bits >> 16);
}
MINWM_INLINE float rounded(const float*, float value) {
  return value;
}
MINWM_INLINE float rounded(const Bf16*, float value) {
  Bf16 half;
  store(&half, value);
  return load(&half);
}

/// e^x to 2 units in the last place, vectorisable; x is limited to -87 … 88.
MINWM_INLINE float exp_of(float x) {
  x = x < -87.0F ? -87.0F : (x > 88.0F ? 88.0F : x);
  const float n = std::nearbyintf(x * 1.44269504F);
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

}  // namespace minwm::nn::cpu
