// The Wan2.1 autoencoder and the pixel conventions (spec vae 2, 3).

#include "minwm/models/codec/pixels.h"
#include "minwm/models/codec/wan_vae.h"
#include "vae_case.h"

namespace minwm::golden {
namespace {

models::WanVaeConfig vae_config(const Case& c) {
  models::WanVaeConfig config;
  const auto read = config_reader(c);
  read("dim", config.dim);
  read("z_dim", config.z_dim);
  read("dim_mult", config.dim_mult);
  read("num_res_blocks", config.num_res_blocks);
  read("temperal_downsample", config.temporal_downsample);
  require(!c.config.contains("attn_scales") || c.config.at("attn_scales").empty(),
          "{}: attn_scales is not empty", c.path);
  return config;
}

/// The case's parameters that a network has: cases may hold those of the other half too.
std::map<std::string, at::Tensor> own_parameters(const Case& c, const torch::nn::Module& module) {
  if (uses_hash32(c)) {
    return hash32_parameters(c, module);
  }
  auto tensors = parameters(c);
  const auto known = module.named_parameters();
  std::erase_if(tensors, [&](const auto& item) {
    const bool encodes = item.first.starts_with("encoder.") || item.first.starts_with("conv1.");
    return encodes != known.contains("conv1.weight");
  });
  return tensors;
}

template <class Network>
Network network(const Case& c) {
  Network network(vae_config(c));
  models::load_state(*network, own_parameters(c, *network), c.path);
  return network;
}

models::LatentStatistics statistics(const Case& c) {
  return c.has("in/mean") ? models::LatentStatistics{c.in("mean"), c.in("std")}
                          : models::LatentStatistics::wan();
}

void replay_encode(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto encoder = network<models::WanVaeEncoder>(c);
  // Passes of one latent as the reference has them, and wider ones.
  for (const int64_t latents_per_pass : {1, 2, 5}) {
    const at::Tensor raw = encoder->encode(c.in("video"), latents_per_pass);
    if (c.has("out/mu_raw")) {
      report.compare("mu_raw", raw, c.out("mu_raw"));
    }
    report.compare("latent", statistics(c).normalise(raw), c.out("latent"));
  }
}

at::Tensor decode(const Case& c, const models::WanVaeDecoder& decoder, const at::Tensor& latent,
                  int64_t latents_per_pass) {
  models::FeatureHistory history;
  return decoder->decode(statistics(c).denormalise(latent), history, latents_per_pass);
}

void replay_decode(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto decoder = network<models::WanVaeDecoder>(c);
  for (const int64_t latents_per_pass : {1, 2, 5}) {
    report.compare("video", decode(c, decoder, c.in("latent"), latents_per_pass), c.out("video"));
  }
}

void replay_stream(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto decoder = network<models::WanVaeDecoder>(c);
  const at::Tensor z = statistics(c).denormalise(c.in("latent"));
  const auto chunks = c.config.at("chunks").get<std::vector<int64_t>>();
  const auto frames = c.config.at("chunk_frames").get<std::vector<int64_t>>();
  for (const int64_t latents_per_pass : {1, 3}) {
    models::FeatureHistory history;
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      parts.push_back(decoder->decode(z.narrow(2, begin, chunks[i]), history, latents_per_pass));
      report.check("frames of a part", parts.back().size(2) == frames.at(i));
      begin += chunks[i];
    }
    report.compare("video", at::cat(parts, 2), c.out("video"));
  }
}

void replay_gradients(const Case& c, Report& report) {
  auto decoder = network<models::WanVaeDecoder>(c);
  for (const int64_t latents_per_pass : {1, 4}) {
    decoder->zero_grad();
    at::Tensor latent = c.in("latent").requires_grad_();
    const at::Tensor video = decode(c, decoder, latent, latents_per_pass);
    report.compare("video", video, c.out("video"));
    (video * c.in("cotangent")).sum().backward();
    compare_gradients(c, report, *decoder, {{"in/latent", latent.grad()}});
  }
}

void replay_wrapper(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  models::WanVae codec(vae_config(c), parameters(c), c.path);
  report.compare("latent", codec.encode(swap_layout(c.in("video"))), c.out("latent"));
  report.compare("pixel", codec.decode(c.in("latent")).clamp(-1, 1), c.out("pixel"));
}

void replay_full(const Case& c, Report& report) {
  replay_encode(c, report);
  replay_decode(c, report);
}

/// A block on successive parts of one stream.
void replay_parts(const Case& c, Report& report, models::WanVaeBlock& block) {
  at::NoGradGuard no_grad;
  models::load_state(block, parameters(c), c.path);
  models::FeatureHistory history;
  for (size_t i = 0; i < c.config.at("chunks").size(); ++i) {
    models::HistoryPass pass(history);
    const std::string number = std::to_string(i);
    report.compare("y" + number, block.forward(c.in("x" + number), pass), c.out("y" + number));
    pass.commit();
  }
}

void replay_resample(const Case& c, Report& report) {
  const auto mode = c.config.at("mode").get<std::string>();
  models::WanVaeResample block(
      integer(c, "dim"),
      mode.starts_with("up") ? models::WanVaeSampling::kUp : models::WanVaeSampling::kDown,
      mode.ends_with("3d"));
  replay_parts(c, report, block);
}

void replay_resblock(const Case& c, Report& report) {
  models::WanVaeResBlock block(integer(c, "in_dim"), integer(c, "out_dim"));
  replay_parts(c, report, block);
}

void replay_attention(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  models::WanVaeAttention block(integer(c, "dim"));
  models::load_state(block, parameters(c), c.path);
  models::FeatureHistory history;
  models::HistoryPass pass(history);
  report.compare("y", block.forward(c.in("x"), pass), c.out("y"));
}

void replay_load(const Case& c, Report& report) {
  const at::Tensor frames =
      models::load_pixels(c.in("frames_u8"), integer(c, "target_h"), integer(c, "target_w"));
  report.compare("video", frames.transpose(0, 1), c.out("video"));
}

void replay_out(const Case& c, Report& report) {
  using models::PixelRounding;
  const at::Tensor video = c.in("video")[0].permute({1, 2, 3, 0});  // [T, H, W, 3]
  const auto frames = [&](PixelRounding rounding) { return models::to_uint8(video, rounding); };
  report.equal("u8_wan", frames(PixelRounding::kTruncateWan), c.out("u8_wan"));
  report.equal("u8_hy", frames(PixelRounding::kTruncateHy), c.out("u8_hy"));
  report.equal("u8_round", frames(PixelRounding::kNearest), c.out("u8_round"));
}

const bool registered = register_kind("vae.wan.encode", replay_encode) &&
                        register_kind("vae.wan.decode", replay_decode) &&
                        register_kind("vae.wan.decode_stream", replay_stream) &&
                        register_kind("vae.wan.decode_grad", replay_gradients) &&
                        register_kind("vae.wan.wrapper", replay_wrapper) &&
                        register_kind("vae.wan.full", replay_full) &&
                        register_kind("vae.wan.resample", replay_resample) &&
                        register_kind("vae.wan.resblock", replay_resblock) &&
                        register_kind("vae.wan.attention", replay_attention) &&
                        register_kind("vae.pixel.load", replay_load) &&
                        register_kind("vae.pixel.out", replay_out);

}  // namespace
}  // namespace minwm::golden
