#pragma once
// Clips that tests of the latent store and the loader write and recognise.

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <spdlog/fmt/fmt.h>

#include "minwm/core/random.h"
#include "minwm/data/latent_store.h"

namespace minwm::data::testing {

inline StoreLayout small_layout() {
  StoreLayout layout;
  layout.frames = 3;
  layout.channels = 4;
  layout.height = 2;
  layout.width = 5;
  layout.text_tokens = 2;
  layout.text_dim = 3;
  layout.pixel_height = 16;
  layout.pixel_width = 40;
  layout.codec = "test-codec-1";
  layout.provenance = "{\"command\": \"test\"}";
  return layout;
}

/// The same with trajectories kept at two levels.
inline StoreLayout ode_layout() {
  StoreLayout layout = small_layout();
  layout.ode_sigmas = {1, 5. / 6};
  return layout;
}

/// Clip number i: everything in it follows from i, and latents and text survive float16.
inline Clip sample(int64_t i, const StoreLayout& layout = small_layout()) {
  const auto address = static_cast<uint64_t>(i);
  Clip clip;
  clip.sample_id = fmt::format("clip-{:05}", i);
  clip.caption = fmt::format("caption {} of a grüne Wiese", i);
  clip.trajectory = "w*2";
  clip.source = fmt::format("world:{}", i);
  clip.latents = random_normal({layout.frames, layout.channels, layout.height, layout.width},
                               {address, "test.latents"})
                     .to(at::kHalf)
                     .to(at::kFloat);
  clip.text = random_normal({layout.text_tokens, layout.text_dim}, {address, "test.text"})
                  .to(at::kHalf)
                  .to(at::kFloat);
  clip.world_to_camera = at::eye(4).repeat({layout.frames, 1, 1});
  for (int64_t t = 0; t < layout.frames; ++t) {
    clip.world_to_camera[t][2][3] = -0.01f * static_cast<float>(t * (i % 10 + 1));
  }
  if (!layout.ode_sigmas.empty()) {
    const auto states = static_cast<int64_t>(layout.ode_sigmas.size()) + 2;
    clip.ode_states =
        random_normal({states, layout.frames, layout.channels, layout.height, layout.width},
                      {address, "test.ode_states"})
            .to(at::kHalf)
            .to(at::kFloat);
    clip.given = i % 2;
  }
  clip.intrinsics = at::eye(3);
  clip.intrinsics[0][2] = clip.intrinsics[1][2] = 0.5;
  return clip;
}

inline LatentStoreWriter writer_of(const std::filesystem::path& path, int64_t capacity,
                                   const StoreLayout& layout = small_layout()) {
  return LatentStoreWriter(path, layout, capacity, comm::self_communicator());
}

/// A finished store of `count` samples.
inline void write_store(const std::filesystem::path& path, int64_t count,
                        const StoreLayout& layout = small_layout()) {
  LatentStoreWriter writer = writer_of(path, count, layout);
  for (int64_t i = 0; i < count; ++i) {
    writer.write(i, sample(i, layout));
  }
  ASSERT_TRUE(writer.close());
}

inline bool same(const Clip& a, const Clip& b) {
  const bool states = a.ode_states.defined();
  if (states != b.ode_states.defined() || (states && !at::equal(a.ode_states, b.ode_states))) {
    return false;
  }
  return a.given == b.given && a.sample_id == b.sample_id && a.caption == b.caption &&
         a.trajectory == b.trajectory && a.source == b.source && at::equal(a.latents, b.latents) &&
         at::equal(a.world_to_camera, b.world_to_camera) && at::equal(a.intrinsics, b.intrinsics) &&
         at::equal(a.text, b.text);
}

}  // namespace minwm::data::testing
