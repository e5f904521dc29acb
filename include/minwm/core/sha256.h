#pragma once
// SHA-256 (FIPS 180-4): by which published files and cached results are recognised.

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace minwm {

/// A hash that is fed in pieces.
class Sha256 {
 public:
  void update(std::string_view bytes);
  /// 64 lower-case hexadecimal digits. Nothing may be fed afterwards.
  std::string hex();

 private:
  void block(const unsigned char* bytes);
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> pending_{};
  uint64_t length_ = 0;  ///< bytes fed
};

std::string sha256(std::string_view bytes);
/// Reads the file in pieces. @throws Error naming the path if it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace minwm
