// The tiny autoencoders (spec vae 5).

#include "minwm/models/codec/taehv.h"
#include "vae_case.h"

namespace minwm::golden {
namespace {

models::TaehvConfig tiny_config(const Case& c) {
  models::TaehvConfig config;
  const auto read = config_reader(c);
  const std::string arch = c.config.value("arch", "base");
  require(arch == "base" || arch == "super", "{}: arch {}, expected base or super", c.path, arch);
  config.arch = arch == "super" ? models::TaehvArch::kSuper : models::TaehvArch::kBase;
  read("patch_size", config.patch_size);
  read("latent_channels", config.latent_channels);
  read("encoder_width", config.encoder_width);
  read("decoder_widths", config.decoder_widths);
  read("decoder_time_upscale", config.time_upscale);
  read("decoder_space_upscale", config.space_upscale);
  require(config.frames_to_trim() == c.config.value("frames_to_trim", config.frames_to_trim()),
          "{}: frames_to_trim is not that of its time steps", c.path);
  return config;
}

models::TaehvDecoder decoder_of(const Case& c) {
  return case_network<models::TaehvDecoder>(c, tiny_config(c), "decoder.");
}

/// A stream in parts of one and of three latents, against the whole at once.
void replay_decode(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto decoder = decoder_of(c);
  const at::Tensor latent = c.in("latent");
  for (const int64_t step : {latent.size(1), int64_t{1}, int64_t{3}}) {
    models::FeatureHistory raw, history;
    std::vector<at::Tensor> frames, video;
    for (int64_t begin = 0; begin < latent.size(1); begin += step) {
      const auto part = latent.narrow(1, begin, std::min(step, latent.size(1) - begin));
      frames.push_back(decoder->raw(part, raw));
      video.push_back(decoder->decode(part, history));
    }
    report.compare("raw", at::cat(frames, 1), c.out("raw"));
    if (c.has("out/video")) {
      report.compare("video", at::cat(video, 1), c.out("video"));
    }
  }
}

void replay_decode_stream(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto decoder = decoder_of(c);
  const auto chunks = c.config.at("chunks").get<std::vector<int64_t>>();
  const auto frames = c.config.at("frames_per_chunk").get<std::vector<int64_t>>();
  models::FeatureHistory history;
  std::vector<at::Tensor> parts;
  int64_t begin = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    parts.push_back(decoder->decode(c.in("latent").narrow(1, begin, chunks[i]), history));
    report.check("frames of a part", parts.back().size(1) == frames.at(i));
    begin += chunks[i];
  }
  report.compare("video", at::cat(parts, 1), c.out("video"));
}

void replay_encode(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto encoder = case_network<models::TaehvEncoder>(c, tiny_config(c), "encoder.");
  report.compare("latent", encoder->encode(c.in("video")), c.out("latent"));
}

void replay_encode_stream(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto encoder = case_network<models::TaehvEncoder>(c, tiny_config(c), "encoder.");
  const auto emitted = c.config.at("emitted").get<std::vector<int64_t>>();
  const at::Tensor video = c.in("video");
  models::TaehvEncodeState state;
  std::vector<at::Tensor> latents;
  for (int64_t t = 0; t < video.size(1); ++t) {
    latents.push_back(encoder->encode_next(video.narrow(1, t, 1), state));
    report.check("latents of a frame",
                 latents.back().size(1) == emitted.at(static_cast<size_t>(t)));
  }
  const at::Tensor last = encoder->flush(state);
  report.check("flushed latents", (last.defined() ? last.size(1) : 0) == integer(c, "flushed"));
  if (last.defined()) {
    latents.push_back(last);
  }
  report.compare("latent", at::cat(latents, 1), c.out("latent"));
}

void replay_full(const Case& c, Report& report) {
  replay_encode(c, report);
  replay_decode(c, report);
}

const bool registered = register_kind("vae.taehv.decode", replay_decode) &&
                        register_kind("vae.taehv.decode_stream", replay_decode_stream) &&
                        register_kind("vae.taehv.encode", replay_encode) &&
                        register_kind("vae.taehv.encode_stream", replay_encode_stream) &&
                        register_kind("vae.taehv.full", replay_full);

}  // namespace
}  // namespace minwm::golden
