#include "minwm/nn/frame_cache.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::nn {
namespace {

std::vector<int64_t> frames_of(const FrameSlots& slots) {
  std::vector<int64_t> frames;
  for (const auto& held : slots.held()) {
    frames.push_back(held.frame);
  }
  return frames;
}

TEST(FrameCache, EvictsTheOldestButNotTheSinks) {
  FrameSlots slots(6, 1);
  for (int chunk = 0; chunk < 4; ++chunk) {
    slots.make_room(2);
    slots.append(2);
  }
  EXPECT_EQ(frames_of(slots), (std::vector<int64_t>{0, 3, 4, 5, 6, 7}));
  EXPECT_EQ(slots.seen(), 8);
}

TEST(FrameCache, ReadsFramesOldestFirstAfterSlotsWereReused) {
  FrameSlots slots(4, 0);
  SlotStore store;
  for (int64_t chunk = 0; chunk < 5; ++chunk) {
    slots.make_room(2);
    const auto taken = slots.append(2);
    store.write(
        taken, at::stack({at::full({1, 3}, 2.0 * chunk), at::full({1, 3}, 2.0 * chunk + 1)}, 1), 4);
  }
  const at::Tensor held = store.read(slots.held());
  ASSERT_EQ(held.sizes(), (at::IntArrayRef{1, 4, 3}));
  EXPECT_TRUE(at::equal(held.select(2, 0).select(0, 0), at::tensor({6.0, 7.0, 8.0, 9.0})));
}

TEST(FrameCache, RefusesAChunkThatDoesNotFitBesideTheSinks) {
  FrameSlots slots(4, 2);
  EXPECT_THROW(slots.make_room(3), Error);
  EXPECT_THROW(FrameSlots(2, 2), Error);
}

TEST(FrameCache, ClearForgetsEverything) {
  FrameSlots slots(4, 0);
  slots.append(3);
  const int64_t version = slots.version();
  slots.clear();
  EXPECT_TRUE(slots.held().empty());
  EXPECT_EQ(slots.seen(), 0);
  EXPECT_NE(slots.version(), version);
}

}  // namespace
}  // namespace minwm::nn
