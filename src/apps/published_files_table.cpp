// The manifest. Sizes and hashes: spec encoders 0 and 3; bytes of tensors: parameters times the
// smallest type they are published in (specs wan-dit 2, hy-mmdit 3, encoders, vae).

#include "published_files.h"

namespace minwm::apps {
namespace {

constexpr std::string_view kWan13 = "Wan-AI/Wan2.1-T2V-1.3B", kWan14 = "Wan-AI/Wan2.1-T2V-14B",
                           kWan14Image = "Wan-AI/Wan2.1-I2V-14B-480P",
                           kHunyuan = "tencent/HunyuanVideo-1.5",
                           kQwen = "Qwen/Qwen2.5-VL-7B-Instruct",
                           kGlyph = "AI-ModelScope/Glyph-SDXL-v2 (ModelScope)",
                           kRedux = "black-forest-labs/FLUX.1-Redux-dev (gated)",
                           kMinwm = "MIN-Lab/minWM", kWorldPlay = "tencent/HY-WorldPlay",
                           kTiny = "madebyollin/taehv (GitHub)";

// Parameters of networks whose files' sizes are not known.
constexpr int64_t kWan13Parameters = 1'418'996'800, kWan13Camera = 1'489'821'760,
                  kHyParameters = 8'326'608'160, kWanVae = 126'892'531, kHyVae = 1'260'634'115,
                  kTinyWan = 11'315'539, kTinyHy = 11'372'012;
constexpr int64_t kHalf = 2, kFloat = 4;

constexpr PublishedFile kFiles[] = {
    {"Wan2.1-T2V-1.3B/config.json", kWan13, "wan-1.3b"},
    {"Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors", kWan13, "wan-1.3b", false, 0,
     kWan13Parameters* kFloat},
    {"Wan2.1-T2V-14B/config.json", kWan14, "wan-14b"},
    {"Wan2.1-T2V-14B/diffusion_pytorch_model.safetensors.index.json", kWan14, "wan-14b"},
    {"Wan2.1-I2V-14B-480P/config.json", kWan14Image, "wan-14b-i2v"},
    {"Wan2.1-I2V-14B-480P/diffusion_pytorch_model.safetensors.index.json", kWan14Image,
     "wan-14b-i2v"},
    {"Wan2.1-I2V-14B-480P/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", kWan14Image,
     "wan-14b-i2v"},
    {"Wan2.1-T2V-1.3B/Wan2.1_VAE.pth", kWan13, "wan-1.3b,wan-14b,wan-14b-i2v", false, 0,
     kWanVae* kFloat},
    {"Wan2.1-T2V-1.3B/models_t5_umt5-xxl-enc-bf16.pth", kWan13, "wan-1.3b,wan-14b,wan-14b-i2v",
     false, 11'361'920'418, 0, "7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d"},
    {"Wan2.1-T2V-1.3B/google/umt5-xxl/spiece.model", kWan13, "wan-1.3b,wan-14b,wan-14b-i2v", false,
     4'548'313, 0, "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458"},
    {"Wan2.1-T2V-1.3B/google/umt5-xxl/tokenizer.json", kWan13, "wan-1.3b,wan-14b,wan-14b-i2v",
     false, 16'837'417, 0, "6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b"},
    {"Wan2.1-T2V-1.3B/google/umt5-xxl/special_tokens_map.json", kWan13,
     "wan-1.3b,wan-14b,wan-14b-i2v", false, 6'623},
    {"Wan2.1-T2V-1.3B/google/umt5-xxl/tokenizer_config.json", kWan13,
     "wan-1.3b,wan-14b,wan-14b-i2v", false, 61'728},
    {"Wan21/Action2V/bidirectional/model.pt", kMinwm, "wan-1.3b", true, 0, kWan13Camera* kHalf},
    {"Wan21/Action2V/ar_diffusion_tf/model.pt", kMinwm, "wan-1.3b", true, 0, kWan13Camera* kHalf},
    {"Wan21/Action2V/causal_ode/model.pt", kMinwm, "wan-1.3b", true, 0, kWan13Camera* kHalf},
    {"Wan21/Action2V/causal_cd/model.pt", kMinwm, "wan-1.3b", true, 0, kWan13Camera* kHalf},
    {"Wan21/Action2V/dmd/model.pt", kMinwm, "wan-1.3b", true, 0, kWan13Camera* kHalf},
    {"taehv/taew2_1.pth", kTiny, "wan-1.3b,wan-14b,wan-14b-i2v", true, 0, kTinyWan* kHalf},

    {"HunyuanVideo-1.5/transformer/480p_i2v/config.json", kHunyuan, "hy-8b"},
    {"HunyuanVideo-1.5/transformer/480p_i2v/diffusion_pytorch_model.safetensors", kHunyuan, "hy-8b",
     false, 0, kHyParameters* kHalf},
    {"HunyuanVideo-1.5/vae/config.json", kHunyuan, "hy-8b"},
    {"HunyuanVideo-1.5/vae/diffusion_pytorch_model.safetensors", kHunyuan, "hy-8b", false, 0,
     kHyVae* kHalf},
    {"HunyuanVideo-1.5/text_encoder/llm/vocab.json", kQwen, "hy-8b", false, 2'776'833, 0,
     "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910"},
    {"HunyuanVideo-1.5/text_encoder/llm/merges.txt", kQwen, "hy-8b", false, 1'671'853, 0,
     "8831e4f1a044471340f7c0a83d7bd71306a5b867e95fd870f74d0c5308a904d5"},
    {"HunyuanVideo-1.5/text_encoder/llm/tokenizer.json", kQwen, "hy-8b"},
    {"HunyuanVideo-1.5/text_encoder/llm/tokenizer_config.json", kQwen, "hy-8b"},
    {"HunyuanVideo-1.5/text_encoder/llm/model.safetensors.index.json", kQwen, "hy-8b"},
    {"HunyuanVideo-1.5/text_encoder/Glyph-SDXL-v2/assets/color_idx.json", kGlyph, "hy-8b"},
    {"HunyuanVideo-1.5/text_encoder/Glyph-SDXL-v2/assets/multilingual_10-lang_idx.json", kGlyph,
     "hy-8b"},
    {"HunyuanVideo-1.5/text_encoder/Glyph-SDXL-v2/checkpoints/byt5_model.pt", kGlyph, "hy-8b"},
    {"HunyuanVideo-1.5/vision_encoder/siglip/image_encoder/config.json", kRedux, "hy-8b"},
    {"HunyuanVideo-1.5/vision_encoder/siglip/image_encoder/model.safetensors", kRedux, "hy-8b"},
    {"HunyuanVideo-1.5/vision_encoder/siglip/feature_extractor/preprocessor_config.json", kRedux,
     "hy-8b"},
    {"HunyuanVideo-1.5/transformer/480p_t2v/diffusion_pytorch_model.safetensors", kHunyuan, "hy-8b",
     true, 0, kHyParameters* kHalf},
    {"HY15/Action2V/bidirectional/diffusion_pytorch_model.safetensors", kMinwm, "hy-8b", true, 0,
     kHyParameters* kHalf},
    {"HY15/Action2V/ar_diffusion_tf/diffusion_pytorch_model.safetensors", kMinwm, "hy-8b", true, 0,
     kHyParameters* kHalf},
    {"HY15/Action2V/causal_ode/diffusion_pytorch_model.safetensors", kMinwm, "hy-8b", true, 0,
     kHyParameters* kHalf},
    {"HY15/Action2V/causal_cd/diffusion_pytorch_model.safetensors", kMinwm, "hy-8b", true, 0,
     kHyParameters* kHalf},
    {"HY15/Action2V/dmd/diffusion_pytorch_model.safetensors", kMinwm, "hy-8b", true, 0,
     kHyParameters* kHalf},
    {"HY-WorldPlay/bidirectional_model/diffusion_pytorch_model.safetensors", kWorldPlay,
     "hy-8b-worldplay", true, 0, kHyParameters* kHalf},
    {"HY-WorldPlay/ar_model/diffusion_pytorch_model.safetensors", kWorldPlay, "hy-8b-worldplay",
     true, 0, kHyParameters* kHalf},
    {"taehv/taehv1_5.pth", kTiny, "hy-8b", true, 0, kTinyHy* kHalf},
};

}  // namespace

std::vector<PublishedFile> published_files() {
  return {std::begin(kFiles), std::end(kFiles)};
}

}  // namespace minwm::apps
