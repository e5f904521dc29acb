#include "minwm/eval/drift.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "minwm/eval/plot.h"
#include "minwm/eval/video_metrics.h"

namespace minwm::eval {
namespace {

constexpr int64_t kFirstPath = 1000;  // trajectory indices of a world that no data set reaches

struct Quantity {
  const char *key, *title, *unit;
  double ChunkLook::*value;
};
constexpr Quantity kQuantities[] = {
    {"brightness", "Brightness", "grey level", &ChunkLook::brightness},
    {"contrast", "Contrast", "standard deviation, grey levels", &ChunkLook::contrast},
    {"sharpness", "Sharpness", "mean gradient, grey levels", &ChunkLook::sharpness},
    {"tile_grid", "Token grid", "borders over the rest", &ChunkLook::tile_grid},
    {"psnr", "PSNR against the exact video", "dB", &ChunkLook::psnr}};

// The way back: every motion undone, the last first. Exact for motions of a single key.
std::vector<camera::Motion> reversed(std::vector<camera::Motion> motions) {
  std::reverse(motions.begin(), motions.end());
  for (auto& m : motions) {
    m = {-m.forward, -m.right, -m.up, -m.yaw, -m.pitch, -m.third_person_yaw};
  }
  return motions;
}

double relative(const Drift& drift, double ChunkLook::*value, size_t first, size_t end) {
  double model = 0, truth = 0;
  for (size_t i = first; i < end; ++i) {
    model += drift.model[i].*value;
    truth += drift.truth[i].*value;
  }
  return model / truth;
}

double change(const Drift& drift, double ChunkLook::*value) {
  const size_t chunks = drift.model.size();
  return relative(drift, value, chunks - std::max<size_t>(chunks / 4, 1), chunks) /
         relative(drift, value, 0, 1);
}

}  // namespace

Commanded there_and_back(uint64_t world_seed, const data::WorldStyle& style, int64_t latent_frames,
                         int64_t piece) {
  require(piece >= 2, "there and back: pieces of {} latents; expected 2 or more", piece);
  std::vector<camera::Motion> motions;
  for (int64_t k = 0; std::ssize(motions) + 1 < latent_frames; ++k) {
    const auto there =
        camera::parse_pose_string(data::random_trajectory(world_seed, kFirstPath + k, piece - 1));
    const auto back = reversed(there);
    motions.insert(motions.end(), there.begin(), there.end());
    motions.insert(motions.end(), back.begin(), back.end());
  }
  return command_clip(world_seed, style, latent_frames, 1, camera::to_pose_string(motions));
}

std::vector<ChunkLook> chunk_looks(const at::Tensor& frames, const at::Tensor& truth,
                                   int64_t chunk_frames, int64_t token_pixels) {
  require(frames.sizes() == truth.sizes() && chunk_frames >= 1,
          "chunk looks: expected two videos of one size, and chunks of 1 latent or more");
  std::vector<ChunkLook> looks;
  for (int64_t first = 0; first < frames.size(0); first += chunk_frames) {
    const int64_t count = std::min(chunk_frames, frames.size(0) - first);
    const at::Tensor chunk = frames.narrow(0, first, count);
    const at::Tensor grey =
        at::matmul(chunk.to(at::kFloat), at::tensor({.299f, .587f, .114f}));  // [n, H, W]
    looks.push_back({grey.mean().item<double>(),
                     grey.std(at::IntArrayRef{1, 2}).mean().item<double>(), mean_gradient(chunk),
                     tile_grid(chunk, token_pixels),
                     mean_psnr(chunk, truth.narrow(0, first, count))});
  }
  return looks;
}

void add_looks(std::vector<ChunkLook>& mean, const std::vector<ChunkLook>& one, int64_t worlds) {
  mean.resize(one.size());
  for (size_t i = 0; i < one.size(); ++i) {
    for (const auto& quantity : kQuantities) {
      mean[i].*quantity.value += one[i].*quantity.value / static_cast<double>(worlds);
    }
  }
}

DriftSummary summarize(const Drift& drift) {
  require(drift.measured(), "drift: nothing was measured");
  return {change(drift, &ChunkLook::brightness), change(drift, &ChunkLook::contrast),
          change(drift, &ChunkLook::sharpness), change(drift, &ChunkLook::tile_grid)};
}

nlohmann::ordered_json to_json(const Drift& drift) {
  const DriftSummary end = summarize(drift);
  nlohmann::ordered_json json = {{"latents", drift.latents},
                                 {"trained_latents", drift.trained_latents},
                                 {"chunk_frames", drift.chunk_frames},
                                 {"worlds", drift.worlds},
                                 {"values_not_finite", drift.not_finite},
                                 {"seconds", drift.seconds},
                                 {"end_over_start",
                                  {{"brightness", end.brightness},
                                   {"contrast", end.contrast},
                                   {"sharpness", end.sharpness},
                                   {"tile_grid", end.tile_grid}}}};
  for (const auto& [name, looks] : {std::pair{"model", &drift.model}, {"truth", &drift.truth}}) {
    for (const auto& quantity : kQuantities) {
      auto& values = json["chunks"][name][quantity.key];
      for (const auto& look : *looks) {
        values.push_back(look.*quantity.value);
      }
    }
  }
  return json;
}

std::vector<std::pair<std::string, std::string>> drift_figures(const Drift& drift) {
  std::vector<std::pair<std::string, std::string>> figures;
  for (const auto& quantity : kQuantities) {
    LinePlot plot{quantity.title, "latent", quantity.unit, {}};
    for (const auto& [name, looks] :
         {std::pair{"model", &drift.model}, {"exact, through the codec", &drift.truth}}) {
      Series series{name, {}, {}};
      for (size_t i = 0; i < looks->size(); ++i) {
        series.x.push_back(static_cast<double>(static_cast<int64_t>(i) * drift.chunk_frames));
        series.y.push_back((*looks)[i].*quantity.value);
      }
      plot.series.push_back(series);
    }
    figures.emplace_back(to_svg(plot),
                         fmt::format("Per chunk, mean over {} worlds.", drift.worlds));
  }
  return figures;
}

std::string in_words(const Drift& drift) {
  const DriftSummary end = summarize(drift);
  return fmt::format(
      "{} latents ({:.0f} times the training length of {}) were streamed without a break in {} "
      "worlds, {}. From the first chunk to the last quarter, beside the exact video through the "
      "codec: brightness x{:.2f}, contrast x{:.2f}, sharpness x{:.2f}, token grid x{:.2f} (1 = "
      "unchanged).",
      drift.latents,
      static_cast<double>(drift.latents) /
          static_cast<double>(std::max<int64_t>(drift.trained_latents, 1)),
      drift.trained_latents, drift.worlds,
      drift.not_finite == 0 ? "every value finite"
                            : fmt::format("{} values not finite", drift.not_finite),
      end.brightness, end.contrast, end.sharpness, end.tile_grid);
}

}  // namespace minwm::eval
