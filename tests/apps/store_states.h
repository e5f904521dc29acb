#pragma once
// Looking into latent stores, finished or not.

#include <array>
#include <filesystem>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/core/hdf5.h"

namespace minwm::testing {

namespace fs = std::filesystem;

/// The slots of a store (or of its .partial) in each state: nothing yet, done, failed.
inline std::array<int64_t, 3> states(const fs::path& path) {
  const hdf5::File file(path, hdf5::File::Mode::kReadOnly);
  const at::Tensor state = file.read("state");
  std::array<int64_t, 3> counts{};
  for (int64_t i = 0; i < state.size(0); ++i) {
    ++counts[state[i].item<uint8_t>()];
  }
  return counts;
}

/// Every dataset: samples, ids, cameras, checksums.
inline void expect_same_store(const fs::path& a, const fs::path& b) {
  const hdf5::File first(a, hdf5::File::Mode::kReadOnly), second(b, hdf5::File::Mode::kReadOnly);
  ASSERT_EQ(first.datasets(), second.datasets());
  for (const std::string& name : first.datasets()) {
    EXPECT_TRUE(at::equal(first.read(name), second.read(name))) << name;
  }
}

/// True as soon as the store under construction holds `count` samples.
inline auto partial_holds(const fs::path& store, int64_t count) {
  return [=] {
    const fs::path partial = store.string() + ".partial";
    try {
      return fs::exists(partial) && states(partial)[1] >= count;
    } catch (const Error&) {
      return false;  // not yet complete
    }
  };
}

}  // namespace minwm::testing
