// The HunyuanVideo-1.5 autoencoder (spec vae 4).

#include "minwm/models/codec/hy_vae.h"
#include "vae_case.h"

namespace minwm::golden {
namespace {

using models::HyVaeAttentionScope;

models::HyVaeConfig hy_vae(const Case& c) {
  models::HyVaeConfig config;
  const auto read = config_reader(c);
  read("in_channels", config.in_channels);
  read("out_channels", config.out_channels);
  read("latent_channels", config.latent_channels);
  read("block_out_channels", config.block_out_channels);
  read("layers_per_block", config.layers_per_block);
  read("ffactor_spatial", config.ffactor_spatial);
  read("ffactor_temporal", config.ffactor_temporal);
  read("scaling_factor", config.scaling_factor);
  read("downsample_match_channel", config.downsample_match_channel);
  read("upsample_match_channel", config.upsample_match_channel);
  require(!c.config.contains("shift_factor") || c.config.at("shift_factor").is_null(),
          "{}: shift_factor is not null", c.path);
  return config;
}

models::HyVaeEncoder encoder_of(const Case& c) {
  return case_network<models::HyVaeEncoder>(c, hy_vae(c), "encoder.");
}

models::HyVaeDecoder decoder_of(const Case& c) {
  return case_network<models::HyVaeDecoder>(c, hy_vae(c), "decoder.");
}

void compare_posterior(const Case& c, Report& report, const models::HyVaePosterior& posterior) {
  report.compare("moments", posterior.moments, c.out("moments"));
  const auto compare = [&](const char* name, const at::Tensor& ours) {
    if (c.has(std::string("out/") + name)) {
      report.compare(name, ours, c.out(name));
    }
  };
  compare("mean", posterior.mean());
  compare("logvar", posterior.logvar());
  compare("std", posterior.std());
  compare("latent", posterior.mean() * hy_vae(c).scaling_factor);
}

void replay_encode(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto encoder = encoder_of(c);
  for (const int64_t latents_per_pass : {1, 2, 5}) {
    compare_posterior(c, report, encoder->encode(c.in("video"), latents_per_pass));
  }
}

void replay_encode_oneshot(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  compare_posterior(c, report, encoder_of(c)->encode_oneshot(c.in("video")));
}

void replay_decode(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto decoder = decoder_of(c);
  for (const int64_t latents_per_pass : {1, 2, 5}) {
    models::FeatureHistory history;
    report.compare("video", decoder->decode(c.in("z"), history, latents_per_pass), c.out("video"));
  }
}

void replay_decode_oneshot(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  report.compare("video", decoder_of(c)->decode_oneshot(c.in("z")), c.out("video"));
}

void replay_decode_tiled(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const models::HyVaeTiling tiling{.sample_size = integer(c, "sample_size"),
                                   .overlap = c.config.at("tile_overlap_factor").get<double>()};
  report.compare("video", decoder_of(c)->decode_tiled(c.in("z"), tiling), c.out("video"));
}

void replay_stream(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto decoder = decoder_of(c);
  const auto chunks = c.config.at("chunks").get<std::vector<int64_t>>();
  const auto frames = c.config.at("chunk_frames").get<std::vector<int64_t>>();
  for (const int64_t latents_per_pass : {1, 3}) {
    models::FeatureHistory history;
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const auto part = c.in("z").narrow(2, begin, chunks[i]);
      parts.push_back(decoder->decode(part, history, latents_per_pass));
      report.check("frames of a part", parts.back().size(2) == frames.at(i));
      begin += chunks[i];
    }
    report.compare("video", at::cat(parts, 2), c.out("video"));
  }
}

void replay_gradients(const Case& c, Report& report) {
  auto decoder = decoder_of(c);
  for (const int64_t latents_per_pass : {1, 4}) {
    decoder->zero_grad();
    at::Tensor z = c.in("z").requires_grad_();
    models::FeatureHistory history;
    const at::Tensor video = decoder->decode(z, history, latents_per_pass);
    report.compare("video", video, c.out("video"));
    (video * c.in("cotangent")).sum().backward();
    compare_gradients(c, report, *decoder, {{"in/z", z.grad()}});
  }
}

void replay_full(const Case& c, Report& report) {
  replay_encode(c, report);
  replay_decode(c, report);
}

/// A block on successive parts of one stream.
template <class Block>
void replay_parts(const Case& c, Report& report, Block block) {
  at::NoGradGuard no_grad;
  models::load_state(*block, parameters(c), c.path);
  models::FeatureHistory history;
  for (size_t i = 0; i < c.config.at("chunks").size(); ++i) {
    models::HistoryPass pass(history);
    const std::string number = std::to_string(i);
    report.compare("y" + number, block->forward(c.in("x" + number), pass), c.out("y" + number));
    pass.commit();
  }
}

void replay_downsample(const Case& c, Report& report) {
  replay_parts(c, report,
               models::HyVaeDownsample(integer(c, "in_channels"), integer(c, "out_channels"),
                                       c.config.at("temporal").get<bool>()));
}

void replay_upsample(const Case& c, Report& report) {
  replay_parts(c, report,
               models::HyVaeUpsample(integer(c, "in_channels"), integer(c, "out_channels"),
                                     c.config.at("temporal").get<bool>()));
}

void replay_resblock(const Case& c, Report& report) {
  replay_parts(c, report,
               models::HyVaeResBlock(integer(c, "in_channels"), integer(c, "out_channels")));
}

void replay_attention(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  models::HyVaeAttention block(integer(c, "channels"));
  models::load_state(*block, parameters(c), c.path);
  report.compare("y", block->forward(c.in("x"), HyVaeAttentionScope::kCausal), c.out("y"));
}

const bool registered = register_kind("vae.hy15.encode", replay_encode) &&
                        register_kind("vae.hy15.encode_oneshot", replay_encode_oneshot) &&
                        register_kind("vae.hy15.decode", replay_decode) &&
                        register_kind("vae.hy15.decode_oneshot", replay_decode_oneshot) &&
                        register_kind("vae.hy15.decode_tiled", replay_decode_tiled) &&
                        register_kind("vae.hy15.decode_stream", replay_stream) &&
                        register_kind("vae.hy15.decode_grad", replay_gradients) &&
                        register_kind("vae.hy15.full", replay_full) &&
                        register_kind("vae.hy15.downsample", replay_downsample) &&
                        register_kind("vae.hy15.upsample", replay_upsample) &&
                        register_kind("vae.hy15.resblock", replay_resblock) &&
                        register_kind("vae.hy15.attention", replay_attention);

}  // namespace
}  // namespace minwm::golden
