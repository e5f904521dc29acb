#pragma once
// Bytes of CPU tensors, exactly: an allocator that counts.

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <malloc.h>

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

namespace minwm::testing {

/// While it lives, new CPU tensors are counted. One at a time.
class CountedBytes {
 public:
  CountedBytes() : before_(c10::GetCPUAllocator()) {
    live = peak_live = 0;
    c10::SetCPUAllocator(&counting(), kPriority);
  }
  ~CountedBytes() { c10::SetCPUAllocator(before_, kPriority); }
  CountedBytes(const CountedBytes&) = delete;
  CountedBytes& operator=(const CountedBytes&) = delete;

  static int64_t now() { return live; }
  /// The most since the last call of restart().
  static int64_t peak() { return peak_live; }
  static void restart() { peak_live = live.load(); }

 private:
  static constexpr uint8_t kPriority = 100;
  inline static std::atomic<int64_t> live{0}, peak_live{0};

  static void give_back(void* memory) {
    if (memory != nullptr) {
      live -= static_cast<int64_t>(malloc_usable_size(memory));
      c10::free_cpu(memory);
    }
  }

  struct Counting : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
      void* memory = bytes == 0 ? nullptr : c10::alloc_cpu(bytes);
      if (memory != nullptr) {
        live += static_cast<int64_t>(malloc_usable_size(memory));
        peak_live = std::max(peak_live.load(), live.load());
      }
      // Context = data and a raw deleter: oneDNN takes memory from allocators like this only.
      return {memory, memory, &give_back, c10::DeviceType::CPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
    void copy_data(void* to, const void* from, size_t bytes) const override {
      default_copy_data(to, from, bytes);
    }
  };

  static Counting& counting() {
    static Counting made;
    return made;
  }

  c10::Allocator* before_;
};

}  // namespace minwm::testing
