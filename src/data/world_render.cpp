// render(): frames are cut into tiles; a tile's rays are traced against the objects near it, sorted
// by the surface they hit, shaded surface by surface and averaged into pixels.

#include <algorithm>
#include <array>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "world_scene.h"
#include "world_view.h"

namespace minwm::data {
namespace {

constexpr int64_t kTilesPerTask = 16;
constexpr double kFarthestCamera = 1e4;  ///< texture coordinates stay exact to a thousandth

/// Arrays of one thread.
struct Workspace {
  Tile tile;
  Batch batch;
  SkyBatch sky;
  std::array<int32_t, kMaxRays> order;  ///< rays sorted by surface
};

/// Pixels [left, right) x [top, bottom) of an image, and how pixels become rays.
struct TileArea {
  int left, right, top, bottom;
  float pixel;               ///< size of a pixel on the plane at depth 1
  float centre_x, centre_y;  ///< image centre in pixels

  int pixels() const { return (right - left) * (bottom - top); }
  Rectangle rectangle() const {
    return {(static_cast<float>(left) - centre_x) * pixel,
            (static_cast<float>(right) - centre_x) * pixel,
            (static_cast<float>(top) - centre_y) * pixel,
            (static_cast<float>(bottom) - centre_y) * pixel};
  }
};

class Renderer {
 public:
  Renderer(const World& world, const std::vector<camera::Rigid>& poses) : world_(world) {
    views_.reserve(poses.size());
    for (const camera::Rigid& pose : poses) {
      views_.push_back(view_of(world, pose));
    }
    const auto width = static_cast<float>(world.style.width);
    pixel_ = 1 / (static_cast<float>(world.style.fx) * width);
    columns_ = (world.style.width + kTileWidth - 1) / kTileWidth;
    rows_ = (world.style.height + kTileHeight - 1) / kTileHeight;
  }

  int64_t tiles() const { return static_cast<int64_t>(views_.size()) * rows_ * columns_; }

  /// Traces and shades one tile.
  void paint(int64_t index, Workspace& work, uint8_t* pixels) const {
    const FrameView& view = views_[static_cast<size_t>(index / (rows_ * columns_))];
    const TileArea area = area_of(index);
    const auto samples = static_cast<int>(world_.style.samples);
    const int rays = trace(work.tile, view, area, samples);
    shade(work, view, rays);
    average(work.tile, area, samples, pixels + 3 * first_pixel(index, area));
  }

  /// Depth and object of the pixels' centres.
  void measure(int64_t index, Workspace& work, float* depth, int32_t* objects) const {
    const TileArea area = area_of(index);
    trace(work.tile, views_[static_cast<size_t>(index / (rows_ * columns_))], area, 1);
    int ray = 0;
    for (int row = 0; row < area.bottom - area.top; ++row) {
      const int64_t at = first_pixel(index, area) + row * world_.style.width;
      for (int column = 0; column < area.right - area.left; ++column, ++ray) {
        const int32_t id = work.tile.id[ray];
        depth[at + column] = id == 0 ? 0 : work.tile.t[ray];
        objects[at + column] = id;
      }
    }
  }

 private:
  TileArea area_of(int64_t index) const {
    const auto width = static_cast<int>(world_.style.width);
    const auto height = static_cast<int>(world_.style.height);
    const auto left = static_cast<int>(index % columns_) * kTileWidth;
    const auto top = static_cast<int>(index / columns_ % rows_) * kTileHeight;
    return {left,
            std::min(left + kTileWidth, width),
            top,
            std::min(top + kTileHeight, height),
            pixel_,
            static_cast<float>(width) / 2,
            static_cast<float>(height) / 2};
  }

  int64_t first_pixel(int64_t index, const TileArea& area) const {
    const int64_t frame = index / (rows_ * columns_);
    return (frame * world_.style.height + area.top) * world_.style.width + area.left;
  }

  /// Rays of one pixel are neighbours in the tile. Returns their padded number.
  int trace(Tile& tile, const FrameView& view, const TileArea& area, int samples) const {
    lay_out(tile, area, samples);
    const int rays = area.pixels() * samples * samples;
    const int n = pad(tile, rays);
    trace_ground(tile, n, view.camera, world_.ground.height);
    const Rectangle rectangle = area.rectangle();
    for (size_t k = 0; k < world_.objects.size(); ++k) {
      const ObjectView& object = view.objects[k];
      if (!object.bounds.meets(rectangle)) {
        continue;
      }
      const auto id = static_cast<int32_t>(2 + k);
      switch (world_.objects[k].shape) {
        case Shape::kBox:
          trace_box(tile, n, object.solid, id);
          break;
        case Shape::kPillar:
          trace_pillar(tile, n, object.solid, id);
          break;
        case Shape::kBall:
          trace_ball(tile, n, object.solid, id);
          break;
      }
    }
    return rays;
  }

  static void lay_out(Tile& tile, const TileArea& area, int samples) {
    const float step = 1.F / static_cast<float>(samples);
    int ray = 0;
    for (int row = area.top; row < area.bottom; ++row) {
      for (int column = area.left; column < area.right; ++column) {
        for (int v = 0; v < samples; ++v) {
          for (int u = 0; u < samples; ++u, ++ray) {
            tile.x[ray] = (static_cast<float>(column) - area.centre_x +
                           (static_cast<float>(u) + 0.5F) * step) *
                          area.pixel;
            tile.y[ray] =
                (static_cast<float>(row) - area.centre_y + (static_cast<float>(v) + 0.5F) * step) *
                area.pixel;
          }
        }
      }
    }
  }

  /// Repeats the last ray up to a full vector and forgets earlier hits.
  static int pad(Tile& tile, int rays) {
    const int n = padded(rays);
    std::fill(tile.x + rays, tile.x + n, tile.x[rays - 1]);
    std::fill(tile.y + rays, tile.y + n, tile.y[rays - 1]);
    std::fill(tile.t, tile.t + n, kNoHit);
    std::fill(tile.id, tile.id + n, 0);
    return n;
  }

  /// Sorts the rays by surface and shades one surface after the other.
  void shade(Workspace& work, const FrameView& view, int rays) const {
    std::array<int, kMostObjects + 3> start{};
    for (int i = 0; i < rays; ++i) {
      ++start[static_cast<size_t>(work.tile.id[i]) + 1];
    }
    for (size_t id = 1; id < start.size(); ++id) {
      start[id] += start[id - 1];
    }
    std::array<int, kMostObjects + 3> next = start;
    for (int i = 0; i < rays; ++i) {
      work.order[static_cast<size_t>(next[static_cast<size_t>(work.tile.id[i])]++)] = i;
    }
    for (size_t id = 0; id + 1 < start.size(); ++id) {
      if (start[id + 1] > start[id]) {
        shade_rays(work, view, static_cast<int32_t>(id),
                   &work.order[static_cast<size_t>(start[id])], start[id + 1] - start[id]);
      }
    }
  }

  void shade_rays(Workspace& work, const FrameView& view, int32_t id, const int32_t* order,
                  int count) const {
    Batch& batch = work.batch;
    Tile& tile = work.tile;
    const int n = padded(count);
    for (int i = 0; i < n; ++i) {
      const int32_t ray = order[std::min(i, count - 1)];
      batch.x[i] = tile.x[ray];
      batch.y[i] = tile.y[ray];
      batch.t[i] = tile.t[ray];
    }
    if (id == 0) {
      const float spacing = pixel_ / static_cast<float>(world_.style.samples);
      shade_sky(batch, work.sky, n, view.camera, world_.sky, spacing);
    } else if (id == 1) {
      locate_ground(batch, n, view.camera, pixel_, world_.sky);
      shade_pattern(batch, n, world_.ground.texture, true);
      shade_surface(batch, n, world_.ground.texture, world_.sky, 1);
    } else {
      const auto k = static_cast<size_t>(id - 2);
      shade_object(batch, n, world_.objects[k], view.objects[k].solid);
    }
    for (int i = 0; i < count; ++i) {
      tile.red[order[i]] = batch.red[i];
      tile.green[order[i]] = batch.green[i];
      tile.blue[order[i]] = batch.blue[i];
    }
  }

  void shade_object(Batch& batch, int n, const Object& object, const Solid& solid) const {
    switch (object.shape) {
      case Shape::kBox:
        locate_box(batch, n, solid, pixel_);
        break;
      case Shape::kPillar:
        locate_pillar(batch, n, solid, pixel_);
        break;
      case Shape::kBall:
        locate_ball(batch, n, solid, pixel_);
        break;
    }
    constexpr float kObjectGain = 1.1F;  // objects stand out from the ground
    shade_pattern(batch, n, object.texture, false);
    shade_surface(batch, n, object.texture, world_.sky, kObjectGain);
  }

  void average(const Tile& tile, const TileArea& area, int samples, uint8_t* pixels) const {
    const int per_pixel = samples * samples;
    const float scale = 255.F / static_cast<float>(per_pixel);
    const auto to_byte = [&](const float* values) {
      float sum = 0;
      for (int s = 0; s < per_pixel; ++s) {
        sum += values[s];
      }
      return static_cast<uint8_t>(std::clamp(sum * scale + 0.5F, 0.F, 255.F));
    };
    int ray = 0;
    for (int row = area.top; row < area.bottom; ++row) {
      for (int column = area.left; column < area.right; ++column, ray += per_pixel) {
        *pixels++ = to_byte(tile.red + ray);
        *pixels++ = to_byte(tile.green + ray);
        *pixels++ = to_byte(tile.blue + ray);
      }
      pixels += 3 * (world_.style.width - (area.right - area.left));
    }
  }

  const World& world_;
  std::vector<FrameView> views_;
  float pixel_;
  int64_t columns_, rows_;
};

std::vector<camera::Rigid> checked_poses(const at::Tensor& camera_to_world) {
  camera::require_rigid(camera_to_world, "camera_to_world");
  std::vector<camera::Rigid> poses = camera::to_rigid(camera_to_world);
  for (size_t i = 0; i < poses.size(); ++i) {
    for (const double value : poses[i].translation) {
      require(std::abs(value) < kFarthestCamera,
              "camera_to_world of frame {} is {} units away, expected less than {}", i,
              std::abs(value), kFarthestCamera);
    }
  }
  return poses;
}

}  // namespace

Rendered render(const World& world, const at::Tensor& camera_to_world, bool with_depth) {
  const std::vector<camera::Rigid> poses = checked_poses(camera_to_world);
  const auto frames = static_cast<int64_t>(poses.size());
  const int64_t height = world.style.height;
  const int64_t width = world.style.width;
  Rendered out;
  out.pixels = at::empty({frames, height, width, 3}, at::kByte);
  uint8_t* pixels = out.pixels.mutable_data_ptr<uint8_t>();
  float* depth = nullptr;
  int32_t* objects = nullptr;
  if (with_depth) {
    out.depth = at::empty({frames, height, width}, at::kFloat);
    out.objects = at::empty({frames, height, width}, at::kInt);
    depth = out.depth.mutable_data_ptr<float>();
    objects = out.objects.mutable_data_ptr<int32_t>();
  }
  const Renderer renderer(world, poses);
  at::parallel_for(0, renderer.tiles(), kTilesPerTask, [&](int64_t begin, int64_t end) {
    const auto work = std::make_unique_for_overwrite<Workspace>();
    for (int64_t tile = begin; tile < end; ++tile) {
      renderer.paint(tile, *work, pixels);
      if (with_depth) {
        renderer.measure(tile, *work, depth, objects);
      }
    }
  });
  return out;
}

}  // namespace minwm::data
