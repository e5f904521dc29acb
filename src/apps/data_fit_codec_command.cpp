// minwm data fit-codec: fits the analytic codec to procedural worlds.

#include <cmath>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/data/synth.h"
#include "minwm/data/video.h"
#include "minwm/data/world.h"
#include "minwm/models/codec/analytic.h"
#include "writable.h"

namespace minwm::apps {
namespace {

constexpr int64_t kFitLatents = 6;    ///< 21 video frames
constexpr int64_t kCheckLatents = 8;  ///< 29 video frames

struct FitOptions {
  std::string output;
  int64_t worlds = 200, first_seed = 800000, check_worlds = 24;
  models::AnalyticCodecOptions codec;
  data::WorldStyle style;

  void declare(Options& options) {
    options.add("output", &output, "safetensors file to write");
    options.add("worlds", &worlds, "worlds to fit to, one clip of 21 frames each");
    options.add("first_seed", &first_seed,
                "seed of the first world; keep apart from those of training and held-out worlds");
    options.add("check_worlds", &check_worlds,
                "further worlds to measure the codec on, one clip of 29 frames each");
    options.add("patch", &codec.patch, "pixels of a patch, both ways");
    options.add("channels", &codec.channels, "latent channels");
    options.add("whitening", &codec.whitening,
                "how far channels are brought to equal variance: 0 not at all, 1 fully");
    options.add("width", &style.width, "pixels");
    options.add("height", &style.height, "pixels");
    options.add_choice("style", &style.name, {"detail", "standard"}, "kind of worlds");
    options.add("samples", &style.samples, "rays per pixel, per side");
  }
};

at::Tensor render_clip(const FitOptions& options, int64_t index, int64_t latents) {
  const auto seed = static_cast<uint64_t>(options.first_seed + index);
  const auto world = data::make_world(seed, options.style);
  return data::render_trajectory(*world, data::random_trajectory(seed, 0, latents - 1));
}

struct Quality {
  double clip = 0, first_frame = 0;  ///< dB
};

double psnr(const at::Tensor& a, const at::Tensor& b) {
  const double error = (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().item<double>();
  return 10 * std::log10(255.0 * 255.0 / std::max(error, 1e-10));
}

/// Mean over the clips of worlds the codec was not fitted to.
Quality measure(const FitOptions& options, models::Codec& codec) {
  Quality sum;
  Progress progress("check", options.check_worlds, "clips");
  for (int64_t i = 0; i < options.check_worlds; ++i) {
    const at::Tensor frames = render_clip(options, options.worlds + i, kCheckLatents);
    const at::Tensor pixels =
        data::to_pixels(frames, options.style.height, options.style.width).unsqueeze(0);
    const at::Tensor decoded =
        models::to_uint8(codec.decode(codec.encode(pixels)))[0].permute({0, 2, 3, 1});
    sum.clip += psnr(decoded, frames);
    sum.first_frame += psnr(decoded[0], frames[0]);
    progress.update(i + 1);
  }
  const auto n = static_cast<double>(options.check_worlds);
  return {sum.clip / n, sum.first_frame / n};
}

int fit_codec(comm::World& world, int argc, char** argv) {
  FitOptions options;
  Options parser("minwm data fit-codec",
                 "Fits the analytic video codec to procedural worlds; no training, no download.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  require(!options.output.empty(), "--output is missing: the safetensors file to write");
  require(options.worlds >= 1, "--worlds {}: expected at least 1", options.worlds);
  require(options.check_worlds >= 0, "--check_worlds {}: expected 0 or more", options.check_worlds);
  require(options.first_seed >= 0, "--first_seed {}: expected 0 or more", options.first_seed);
  if (world.rank() > 0) {
    return kExitDone;  // seconds of work: one rank does it
  }
  require_writable(options.output);
  std::vector<at::Tensor> clips;
  {
    Progress progress("render", options.worlds, "clips");
    for (int64_t i = 0; i < options.worlds; ++i) {
      clips.push_back(render_clip(options, i, kFitLatents));
      progress.update(i + 1);
    }
  }
  models::AnalyticCodec codec = models::AnalyticCodec::fit(clips, options.codec);
  codec.save(options.output);
  fmt::print("{}: {}\n", options.output, codec.name());
  if (options.check_worlds > 0) {
    const Quality quality = measure(options, codec);
    fmt::print("held-out PSNR {:.2f} dB (first frame {:.2f} dB) on {} clips of {} frames\n",
               quality.clip, quality.first_frame, options.check_worlds,
               models::pixel_frames(kCheckLatents));
  }
  return kExitDone;
}

const bool registered =
    register_command("data fit-codec", "fits the analytic video codec to worlds", fit_codec);

}  // namespace
}  // namespace minwm::apps
