#include "minwm/train/tensorboard.h"

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include <unistd.h>

#include "minwm/core/error.h"

namespace minwm::train {
namespace {

static_assert(std::endian::native == std::endian::little,
              "records are written as they lie in memory");

constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli's, bits reversed
constexpr uint32_t kMaskDelta = 0xA282EAD8;   // TFRecord's mask

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    }
    table[byte] = value;
  }
  return table;
}

uint32_t masked(uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + kMaskDelta;
}

template <class Number>
std::string bytes_of(Number number) {
  std::string bytes(sizeof number, '\0');
  std::memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}

// Protobuf's wire format: a field is (number << 3 | type), then the value.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) {
    bytes += static_cast<char>((value & 0x7F) | 0x80);
  }
  return bytes + static_cast<char>(value);
}

std::string field(uint64_t number, WireType type, const std::string& value) {
  return varint((number << 3) | type) + (type == kLength ? varint(value.size()) : "") + value;
}

/// Event { double wall_time = 1; int64 step = 2; … }.
std::string event_head(int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return field(1, kFixed64, bytes_of(std::chrono::duration<double>(now).count())) +
         field(2, kVarint, varint(static_cast<uint64_t>(step)));
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = crc_table();
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : bytes) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  }
  return ~crc;
}

std::string tfrecord(std::string_view payload) {
  const std::string length = bytes_of(static_cast<uint64_t>(payload.size()));
  return length + bytes_of(masked(crc32c(length))) + std::string(payload) +
         bytes_of(masked(crc32c(payload)));
}

EventWriter::EventWriter(const std::filesystem::path& folder, int64_t first_step) {
  std::error_code ignored;  // opening the file names the reason
  std::filesystem::create_directories(folder, ignored);
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  // TensorBoard reads the files of a folder in the order of their names, so a second run must sort
  // after the first.
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  path_ = folder / fmt::format("events.out.tfevents.{:010}.{:06}.{}", micros / 1000000,
                               micros % 1000000, host.data());
  file_.reset(std::fopen(path_.c_str(), "wb"));
  require(file_ != nullptr, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
  write(event_head(0) + field(3, kLength, "brain.Event:2"));
  // session_log { status = START }: points from this step on replace those of older files.
  write(event_head(first_step) + field(7, kLength, field(1, kVarint, varint(1))));
}

void EventWriter::scalars(int64_t step, const std::map<std::string, double>& values) {
  std::string summary;
  for (const auto& [tag, value] : values) {
    const std::string point =
        field(1, kLength, tag) +
        field(2, kFixed32, bytes_of(static_cast<float>(value)));  // Summary.Value
    summary += field(1, kLength, point);
  }
  write(event_head(step) + field(5, kLength, summary));
}

void EventWriter::write(std::string_view event) {
  const std::string record = tfrecord(event);
  const bool written = std::fwrite(record.data(), 1, record.size(), file_.get()) == record.size() &&
                       std::fflush(file_.get()) == 0;
  require(written, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

}  // namespace minwm::train
