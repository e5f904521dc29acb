// A latent store of noise, for steps of models whose encoders are not at hand: shapes, memory and
// time are those of real clips, losses mean nothing.
//
//   minwm data fit-codec --channels 32 --output noise-codec.safetensors
//   random_store --codec noise-codec.safetensors --store noise.h5 --text_dim 3584 --text_rows 64

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/random.h"
#include "minwm/data/encode.h"
#include "minwm/data/latent_store.h"
#include "minwm/models/codec/codec.h"

namespace {

using namespace minwm;

struct StoreOptions {
  std::string codec, store;
  int64_t clips = 8, frames = 4, height = 64, width = 64, text_rows = 64, text_dim = 3584;

  void declare(Options& options) {
    options.add("codec", &codec, "codec file whose latents these are said to be");
    options.add("store", &store, "latent store (HDF5) to write");
    options.add("clips", &clips, "samples");
    options.add("frames", &frames, "latent frames of a clip");
    options.add("height", &height, "pixels");
    options.add("width", &width, "pixels");
    options.add("text_rows", &text_rows, "rows of text states");
    options.add("text_dim", &text_dim, "their width: 3584 for hy-8b, 4096 for wan-1.3b");
  }
};

data::Clip noise_clip(int64_t number, const data::StoreLayout& layout) {
  const auto seed = static_cast<uint64_t>(number);
  data::Clip clip;
  clip.sample_id = clip.source = fmt::format("noise-{:05}", number);
  clip.latents = random_normal({layout.frames, layout.channels, layout.height, layout.width},
                               {seed, "noise.latents"});
  clip.text = random_normal({layout.text_tokens, layout.text_dim}, {seed, "noise.text"});
  clip.world_to_camera = at::eye(4).repeat({layout.frames, 1, 1});
  clip.world_to_camera.select(1, 2).select(1, 3).copy_(-0.1 *
                                                       at::arange(layout.frames, at::kFloat));
  clip.intrinsics = at::eye(3);
  clip.intrinsics.select(1, 2).narrow(0, 0, 2).fill_(0.5);
  return clip;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    StoreOptions options;
    Options parser("random_store", "Writes a latent store of noise.");
    options.declare(parser);
    if (!parser.parse(argc, argv)) {
      return kExitDone;
    }
    const auto codec = models::open_codec(options.codec);
    auto layout = data::store_layout(*codec, options.frames, options.height, options.width,
                                     R"({"noise": true})");
    layout.text_tokens = options.text_rows;
    layout.text_dim = options.text_dim;
    data::LatentStoreWriter writer(options.store, layout, options.clips, comm::self_communicator());
    for (int64_t i = 0; i < options.clips; ++i) {
      if (!writer.complete(i)) {
        writer.write(i, noise_clip(i, layout));
      }
    }
    writer.close();
  } catch (const std::exception& error) {
    fmt::print(stderr, "random_store: {}\n", error.what());
    return kExitBadInput;
  }
  return kExitDone;
}
