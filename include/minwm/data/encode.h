#pragma once
// From a clip folder to a latent store.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/comm/communicator.h"
#include "minwm/data/batch.h"
#include "minwm/data/latent_store.h"
#include "minwm/data/manifest.h"
#include "minwm/models/codec/codec.h"

namespace minwm::data {

/// How a video of another shape becomes width x height.
enum class Fit {
  kCrop,     ///< the middle of the right shape, scaled down by area; the focal lengths follow
  kStretch,  ///< the reference's rule: the whole picture, bilinear without antialias
};

struct EncodeOptions {
  int64_t width = 64, height = 64;  ///< pixels; multiples of the codec's spatial factor
  Fit fit = Fit::kCrop;
  int64_t latent_frames = 0;  ///< T of the store; 0 = what most clips of the folder have
};

/// The largest middle part of width x height with the shape of target_width x target_height, in
/// whole pixels and exactly centred.
struct Crop {
  int64_t left, top, width, height;
};
Crop centre_crop(int64_t width, int64_t height, int64_t target_width, int64_t target_height);

/// uint8 [F, H, W, 3] → float32 [F, 3, height, width] in [-1, 1].
at::Tensor fit_frames(const at::Tensor& frames, const EncodeOptions& options);

/// The intrinsics [3, 3] that belong to fit_frames' picture, centre 0.5 as the models take them
/// (spec data-camera-eval 4).
at::Tensor fit_intrinsics(const ManifestEntry& entry, const EncodeOptions& options);

/// The layout of a store of T = `frames` latents of this codec with caption_embedding's text
/// states.
/// @throws Error if the pixel size is not a multiple of the codec's spatial factor.
StoreLayout store_layout(const models::Codec& codec, int64_t frames, int64_t pixel_height,
                         int64_t pixel_width, const std::string& provenance);

/// A clip with its latents and the text states of its caption.
Clip to_clip(const ManifestEntry& entry, const at::Tensor& latents, const at::Tensor& intrinsics);

/// Encodes a clip folder: every rank its share, samples that are there already are kept. A clip
/// that cannot be read, is too short or is not valid is recorded in the store with the reason, and
/// the rest goes on; longer ones are cut. Collective. @throws Error if the folder is empty or the
/// store was made with other options.
void encode_folder(const std::filesystem::path& folder, models::Codec& codec,
                   const std::filesystem::path& store, const EncodeOptions& options,
                   const std::string& provenance, std::shared_ptr<comm::Communicator> communicator);

}  // namespace minwm::data
