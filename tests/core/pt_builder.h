#pragma once
// Makes PyTorch files byte by byte, so that tests can also make malformed ones.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace minwm::testing::pt {

/// The `bytes` lowest bytes of a number, the lowest first.
inline std::string little(uint64_t value, size_t bytes) {
  std::string out(bytes, '\0');
  for (size_t i = 0; i < std::min<size_t>(bytes, 8); ++i) {
    out[i] = static_cast<char>(value >> (8 * i));
  }
  return out;
}

/// What a zip file of stored entries looks like, with places to break it.
struct Zip {
  std::string local, central;
  uint16_t entries = 0;
  uint16_t method = 0, flags = 0;
  bool zip64 = false;

  Zip& add(const std::string& name, const std::string& data) {
    const uint64_t offset = local.size(), size = data.size();
    local += little(0x04034b50, 4) + little(20, 2) + little(flags, 2) + little(method, 2) +
             little(0, 8) + little(size, 4) + little(size, 4) + little(name.size(), 2) +
             little(0, 2) + name + data;
    const std::string extra =
        zip64 ? little(1, 2) + little(24, 2) + little(size, 8) + little(size, 8) + little(offset, 8)
              : "";
    const uint64_t in64 = 0xffffffff;
    central += little(0x02014b50, 4) + little(20, 2) + little(20, 2) + little(flags, 2) +
               little(method, 2) + little(0, 8) + little(zip64 ? in64 : size, 4) +
               little(zip64 ? in64 : size, 4) + little(name.size(), 2) + little(extra.size(), 2) +
               little(0, 10) + little(zip64 ? in64 : offset, 4) + name + extra;
    ++entries;
    return *this;
  }

  std::string bytes() const {
    const uint64_t directory = local.size();
    std::string end;
    if (zip64) {
      end = little(0x06064b50, 4) + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8) +
            little(entries, 8) + little(entries, 8) + little(central.size(), 8) +
            little(directory, 8);
      end += little(0x07064b50, 4) + little(0, 4) + little(directory + central.size(), 8) +
             little(1, 4);
    }
    end += little(0x06054b50, 4) + little(0, 4) + little(zip64 ? 0xffff : entries, 2) +
           little(zip64 ? 0xffff : entries, 2) + little(zip64 ? 0xffffffff : central.size(), 4) +
           little(zip64 ? 0xffffffff : directory, 4) + little(0, 2);
    return local + central + end;
  }
};

/// Pieces of pickle programs.
inline std::string text(const std::string& value) {
  return "X" + little(value.size(), 4) + value;
}
inline std::string number(uint16_t value) {
  return "M" + little(value, 2);
}
inline std::string numbers(const std::vector<uint16_t>& values) {
  std::string out = "(";
  for (const uint16_t value : values) {
    out += number(value);
  }
  return out + "t";
}
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string storage(const std::string& type, const std::string& key, uint16_t numel) {
  return "(" + text("storage") + global("torch", type) + text(key) + text("cpu") + number(numel) +
         "tQ";
}
inline std::string tensor(const std::string& storage_program, uint16_t offset,
                          const std::vector<uint16_t>& shape,
                          const std::vector<uint16_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + storage_program + number(offset) +
         numbers(shape) + numbers(strides) + "\x89" + global("collections", "OrderedDict") + ")Rt" +
         "R";
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace minwm::testing::pt
