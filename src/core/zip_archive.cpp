#include "zip_archive.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minwm/core/error.h"

namespace minwm {
namespace {

// Sizes and signatures of the records (PKWARE's APPNOTE 4.3).
constexpr uint64_t kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20, kCentralSize = 46,
                   kLocalSize = 30, kLongestComment = 65535;
constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator = 0x07064b50,
                   kCentral = 0x02014b50, kLocal = 0x04034b50;
constexpr uint32_t kIn64 = 0xffffffff;  ///< "the number is in the zip64 record"
constexpr uint64_t kLargestDirectory = uint64_t{1} << 30;

/// Little-endian number at `offset`.
template <class T>
T number(const std::string& bytes, uint64_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

/// The 64-bit numbers of a central entry: those that do not fit 32 bits stand in the extra field,
/// in this order.
struct Numbers64 {
  uint64_t size, stored_size, local_header;
};

Numbers64 resolve(const std::string& central, const std::string& extra, const std::string& where) {
  Numbers64 out{number<uint32_t>(central, 24), number<uint32_t>(central, 20),
                number<uint32_t>(central, 42)};
  for (uint64_t at = 0; at + 4 <= extra.size();) {
    const auto id = number<uint16_t>(extra, at), length = number<uint16_t>(extra, at + 2);
    require(at + 4 + length <= extra.size(), "{}: malformed zip entry", where);
    uint64_t next = at + 4;
    const uint64_t end = next + length;
    for (uint64_t* value : {&out.size, &out.stored_size, &out.local_header}) {
      if (id == 1 && *value == kIn64) {
        require(next + 8 <= end, "{}: malformed zip64 entry", where);
        *value = number<uint64_t>(extra, next);
        next += 8;
      }
    }
    at = end;
  }
  return out;
}

}  // namespace

ZipArchive::ZipArchive(const std::filesystem::path& path) : file_(path.string()) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(descriptor_ >= 0, "cannot read {}: {}", file_, std::strerror(errno));
  try {
    struct stat status {};
    require(::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode),
            "cannot read {}: not a regular file", file_);
    size_ = static_cast<uint64_t>(status.st_size);
    read_directory(find_directory());
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

ZipArchive::~ZipArchive() {
  ::close(descriptor_);
}

void ZipArchive::read_at(uint64_t offset, char* out, uint64_t count) const {
  require(offset <= size_ && count <= size_ - offset, "{}: truncated", file_);
  while (count > 0) {
    const ssize_t got = ::pread(descriptor_, out, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    require(got >= 0, "cannot read {}: {}", file_, std::strerror(errno));
    require(got > 0, "{}: truncated while it was read", file_);
    out += got;
    offset += static_cast<uint64_t>(got);
    count -= static_cast<uint64_t>(got);
  }
}

std::string ZipArchive::read_at(uint64_t offset, uint64_t count) const {
  require(offset <= size_ && count <= size_ - offset, "{}: truncated", file_);
  std::string bytes(count, '\0');
  read_at(offset, bytes.data(), count);
  return bytes;
}

ZipArchive::Directory ZipArchive::find_directory() const {
  require(size_ >= 2 && read_at(0, 2) == "PK",
          "{}: not a zip-format PyTorch file (files older than PyTorch 1.6 must be saved again)",
          file_);
  const uint64_t length = std::min(size_, kEndSize + kLongestComment);
  const std::string tail = read_at(size_ - length, length);
  for (uint64_t at = length < kEndSize ? 0 : length - kEndSize + 1; at-- > 0;) {
    if (number<uint32_t>(tail, at) != kEnd ||
        at + kEndSize + number<uint16_t>(tail, at + 20) != length) {
      continue;
    }
    Directory found{number<uint32_t>(tail, at + 16), number<uint32_t>(tail, at + 12),
                    number<uint16_t>(tail, at + 10)};
    const uint64_t end = size_ - length + at;
    if (end >= kLocatorSize) {
      const std::string locator = read_at(end - kLocatorSize, kLocatorSize);
      if (number<uint32_t>(locator, 0) == kLocator) {
        const std::string record = read_at(number<uint64_t>(locator, 8), kEnd64Size);
        require(number<uint32_t>(record, 0) == kEnd64, "{}: malformed zip64 record", file_);
        found = {number<uint64_t>(record, 48), number<uint64_t>(record, 40),
                 number<uint64_t>(record, 32)};
      }
    }
    return found;
  }
  fail("{}: truncated: the zip directory at its end is missing", file_);
}

void ZipArchive::read_directory(const Directory& directory) {
  require(directory.size <= kLargestDirectory, "{}: the zip directory has {} bytes", file_,
          directory.size);
  const std::string bytes = read_at(directory.begin, directory.size);
  uint64_t at = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    require(at + kCentralSize <= bytes.size() && number<uint32_t>(bytes, at) == kCentral,
            "{}: malformed zip directory at entry {} of {}", file_, i, directory.entries);
    const std::string central = bytes.substr(at, kCentralSize);
    const uint64_t name_size = number<uint16_t>(central, 28),
                   extra_size = number<uint16_t>(central, 30),
                   comment_size = number<uint16_t>(central, 32);
    const uint64_t next = at + kCentralSize + name_size + extra_size + comment_size;
    require(next <= bytes.size(), "{}: malformed zip directory at entry {} of {}", file_, i,
            directory.entries);
    const std::string name = bytes.substr(at + kCentralSize, name_size);
    const std::string where = file_ + ": entry '" + name + "'";
    require((number<uint16_t>(central, 8) & 1) == 0, "{}: encrypted", where);
    const Numbers64 numbers =
        resolve(central, bytes.substr(at + kCentralSize + name_size, extra_size), where);
    require(number<uint16_t>(central, 10) == 0 && numbers.size == numbers.stored_size,
            "{}: compressed, expected stored entries as torch.save writes them", where);
    const Entry entry{data_begin(numbers.local_header, name), numbers.size};
    require(entry.begin <= size_ && entry.size <= size_ - entry.begin, "{}: truncated", where);
    require(entries_.emplace(name, entry).second, "{}: in the file twice", where);
    at = next;
  }
  refuse_overlaps(directory.begin);
}

uint64_t ZipArchive::data_begin(uint64_t local_header, const std::string& name) const {
  const std::string local = read_at(local_header, kLocalSize);
  require(number<uint32_t>(local, 0) == kLocal && number<uint16_t>(local, 26) == name.size() &&
              read_at(local_header + kLocalSize, name.size()) == name,
          "{}: entry '{}': malformed zip header", file_, name);
  return local_header + kLocalSize + name.size() + number<uint16_t>(local, 28);
}

void ZipArchive::refuse_overlaps(uint64_t directory_begin) const {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, entry] : entries_) {
    ranges.emplace_back(entry.begin, entry.begin + entry.size);
  }
  std::sort(ranges.begin(), ranges.end());
  ranges.emplace_back(directory_begin, directory_begin);
  for (size_t i = 1; i < ranges.size(); ++i) {
    require(ranges[i - 1].second <= ranges[i].first, "{}: zip entries overlap at byte {}", file_,
            ranges[i].first);
  }
}

const ZipArchive::Entry& ZipArchive::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  require(found != entries_.end(), "{}: no entry '{}'", file_, name);
  return found->second;
}

void ZipArchive::read(const std::string& name, char* out) const {
  const Entry& e = entry(name);
  read_at(e.begin, out, e.size);
}

std::string ZipArchive::read(const std::string& name) const {
  const Entry& e = entry(name);
  return read_at(e.begin, e.size);
}

std::string ZipArchive::find_in_top_folder(const std::string& name) const {
  std::string found;
  for (const auto& [full, entry] : entries_) {
    const size_t slash = full.find('/');
    if (slash != full.npos && full.substr(slash + 1) == name) {
      require(found.empty(), "{}: both '{}' and '{}'", file_, found, full);
      found = full;
    }
  }
  require(!found.empty(), "{}: no '{}' in it, so torch.save did not write it", file_, name);
  return found;
}

}  // namespace minwm
