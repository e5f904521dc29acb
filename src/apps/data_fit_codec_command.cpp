// minwm data fit-codec: fits the analytic codec to procedural worlds, or a new decoder to a codec.

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/core/random.h"
#include "minwm/data/synth.h"
#include "minwm/data/video.h"
#include "minwm/data/world.h"
#include "minwm/eval/video_metrics.h"
#include "minwm/models/codec/analytic.h"
#include "writable.h"

namespace minwm::apps {
namespace {

constexpr int64_t kFitLatents = 6;    ///< 21 video frames
constexpr int64_t kCheckLatents = 8;  ///< 29 video frames

struct FitOptions {
  std::string output, refit, decoder = "neighbourhood";
  int64_t worlds = 200, first_seed = 800000, check_worlds = 24;
  models::AnalyticCodecOptions codec;
  models::NeighbourhoodOptions neighbourhood;
  data::WorldStyle style;

  void declare(Options& options) {
    options.add("output", &output, "safetensors file to write");
    options.add("refit", &refit,
                "codec file to give a new decoder: the latents, and so the stores and models made "
                "with it, stay valid; --patch, --channels and --whitening are those of the file");
    options.add_choice("decoder", &decoder, {"neighbourhood", "block"},
                       "what a block of pixels is decoded from: its own latent vector and those "
                       "around it, or its own alone");
    options.add("decoder_reach", &neighbourhood.reach,
                "neighbourhood decoder: blocks on every side, 1 = 3 x 3");
    options.add("decoder_noise", &neighbourhood.noise,
                "neighbourhood decoder: standard deviation of the noise that latents are taken to "
                "have, in latent units; more makes smoother pictures of what a model generates");
    options.add("decoder_ridge", &neighbourhood.ridge,
                "neighbourhood decoder: pull towards the block alone, in blocks seen");
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

double psnr(const at::Tensor& a, const at::Tensor& b) {
  const double error = (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().item<double>();
  return 10 * std::log10(255.0 * 255.0 / std::max(error, 1e-10));
}

/// Standard deviations of the noise put on latents, in their units: what a model generates is not
/// exact.
constexpr std::array<double, 3> kNoises = {0, .1, .2};

/// Means over clips of worlds the codec was not fitted to.
struct Quality {
  std::array<double, kNoises.size()> psnr = {};  ///< dB, by kNoises
  /// Difference across block borders over that inside, over the exact video's; by kNoises.
  std::array<double, kNoises.size()> edges = {};
  double first_frame = 0;  ///< dB, exact latents
};

/// Adds what `codec` makes of clip `index` to `sum`.
void add_quality(models::Codec& codec, const at::Tensor& frames, int64_t index, Quality& sum) {
  const at::Tensor pixels = data::to_pixels(frames, frames.size(1), frames.size(2)).unsqueeze(0);
  const at::Tensor latents = codec.encode(pixels);
  const at::Tensor noise = random_normal(
      latents.sizes(), {.purpose = "codec.check", .sample = static_cast<uint64_t>(index)});
  const int64_t period = codec.spatial_factor();
  const double edges = eval::tile_grid(frames, period);
  for (size_t n = 0; n < kNoises.size(); ++n) {
    const at::Tensor decoded =
        models::to_uint8(codec.decode(latents + kNoises[n] * noise))[0].permute({0, 2, 3, 1});
    sum.psnr[n] += psnr(decoded, frames);
    sum.edges[n] += eval::tile_grid(decoded, period) / edges;
    sum.first_frame += n == 0 ? psnr(decoded[0], frames[0]) : 0;
  }
}

void print_row(const std::string& decoder, const Quality& sum, int64_t clips) {
  fmt::print("{:<14}", decoder);
  const auto n = static_cast<double>(clips);
  for (const double value :
       {sum.psnr[0], sum.psnr[1], sum.psnr[2], sum.edges[0], sum.edges[1], sum.edges[2]}) {
    fmt::print("{:>7.2f}", value / n);
  }
  fmt::print("\n");
}

/// Measures both decoders, if there are two, on the same clips. `block` is the codec that decodes
/// every block alone.
void report(const FitOptions& options, models::AnalyticCodec& codec, models::AnalyticCodec& block) {
  Quality sum, block_sum;
  const bool two = codec.decoder() != block.decoder();
  {
    Progress progress("check", options.check_worlds, "clips");
    for (int64_t i = 0; i < options.check_worlds; ++i) {
      const at::Tensor frames = render_clip(options, options.worlds + i, kCheckLatents);
      add_quality(codec, frames, i, sum);
      if (two) {
        add_quality(block, frames, i, block_sum);
      }
      progress.update(i + 1);
    }
  }
  const auto n = static_cast<double>(options.check_worlds);
  fmt::print("held-out PSNR {:.2f} dB (first frame {:.2f} dB) on {} clips of {} frames\n",
             sum.psnr[0] / n, sum.first_frame / n, options.check_worlds,
             models::pixel_frames(kCheckLatents));
  fmt::print("PSNR, and differences across block borders (1 = those of the exact video):\n");
  fmt::print("latent noise  ");
  for (int half = 0; half < 2; ++half) {
    for (const double noise : kNoises) {
      fmt::print("{:>7.1f}", noise);
    }
  }
  fmt::print("\n");
  if (two) {
    print_row("block", block_sum, options.check_worlds);
  }
  print_row(options.decoder, sum, options.check_worlds);
}

/// --refit: the codec of the file, which decides what describes its latents.
models::AnalyticCodec open_old(FitOptions& options, const Options& parser) {
  models::AnalyticCodec codec = models::AnalyticCodec::load(options.refit);
  require(options.decoder != "block",
          "--decoder block: a codec decodes every block alone without --refit");
  const models::AnalyticCodecOptions &given = options.codec, &old = codec.options();
  const auto same = [&](const char* key, auto wanted, auto has) {
    require(!parser.given(key) || wanted == has, "--{} {}: the codec of --refit {} has {}", key,
            wanted, options.refit, has);
  };
  same("patch", given.patch, old.patch);
  same("channels", given.channels, old.channels);
  same("whitening", given.whitening, old.whitening);
  options.codec = old;
  return codec;
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
  options.neighbourhood.check();
  std::optional<models::AnalyticCodec> old;
  if (!options.refit.empty()) {
    old = open_old(options, parser);
  }
  options.codec.check();
  require_writable(options.output);
  std::vector<at::Tensor> clips;
  {
    Progress progress("render", options.worlds, "clips");
    for (int64_t i = 0; i < options.worlds; ++i) {
      clips.push_back(render_clip(options, i, kFitLatents));
      progress.update(i + 1);
    }
  }
  models::AnalyticCodec codec = old ? *old : models::AnalyticCodec::fit(clips, options.codec);
  models::AnalyticCodec block = codec.without_neighbourhood();
  if (options.decoder == "neighbourhood") {
    codec.fit_decoder(clips, options.neighbourhood);
  }
  codec.save(options.output);
  fmt::print("{}: {}, decoder {}\n", options.output, codec.name(), codec.decoder());
  if (options.check_worlds > 0) {
    report(options, codec, block);
  }
  return kExitDone;
}

const bool registered =
    register_command("data fit-codec", "fits the analytic video codec to worlds", fit_codec);

}  // namespace
}  // namespace minwm::apps
