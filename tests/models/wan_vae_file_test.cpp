// Files of the Wan2.1 VAE: both formats, both namings, what is refused.

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/core/safetensors.h"
#include "tests/core/pt_builder.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/small_wan_vae.h"

namespace minwm::models {
namespace {

using ::minwm::testing::error_of;
using ::minwm::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using namespace minwm::models::testing;

void write(const std::filesystem::path& path, const Tensors& tensors) {
  write_safetensors(path, {tensors.begin(), tensors.end()});
}

/// As torch.save writes a dict.
void write_pth(const std::filesystem::path& path, const Tensors& tensors) {
  namespace pt = minwm::testing::pt;
  const auto shorts = [](at::IntArrayRef values) {
    return std::vector<uint16_t>(values.begin(), values.end());
  };
  pt::Zip zip;
  std::string program = "}(";
  std::vector<std::pair<std::string, std::string>> storages;
  for (const auto& [name, tensor] : tensors) {
    const std::string key = std::to_string(storages.size());
    program += pt::text(name) +
               pt::tensor(pt::storage("FloatStorage", key, static_cast<uint16_t>(tensor.numel())),
                          0, shorts(tensor.sizes()), shorts(tensor.strides()));
    storages.emplace_back(
        "vae/data/" + key,
        std::string(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()));
  }
  zip.add("vae/data.pkl", "\x80\x02" + program + "u.");
  for (const auto& [entry, bytes] : storages) {
    zip.add(entry, bytes);
  }
  std::ofstream(path, std::ios::binary) << zip.bytes();
}

void replace(std::string& name, const std::string& from, const std::string& to) {
  const size_t at = name.find(from);
  if (at != std::string::npos) {
    name.replace(at, from.size(), to);
  }
}

/// Diffusers' name of a published one, with 2 residual blocks per level (end of spec vae 3).
std::string diffusers_name(std::string name) {
  if (name.starts_with("conv")) {
    return (name[4] == '1' ? "quant_conv" : "post_quant_conv") + name.substr(5);
  }
  replace(name, "coder.conv1.", "coder.conv_in.");
  replace(name, ".head.0", ".norm_out");
  replace(name, ".head.2", ".conv_out");
  replace(name, ".middle.0", ".mid_block.resnets.0");
  replace(name, ".middle.1", ".mid_block.attentions.0");
  replace(name, ".middle.2", ".mid_block.resnets.1");
  replace(name, "encoder.downsamples.", "encoder.down_blocks.");
  const std::string up = "decoder.upsamples.";
  if (name.starts_with(up)) {
    const int n = std::stoi(name.substr(up.size()));
    replace(name, up + std::to_string(n),
            fmt::format("decoder.up_blocks.{}.", n / 4) +
                (n % 4 == 3 ? "upsamplers.0" : fmt::format("resnets.{}", n % 4)));
  }
  replace(name, "residual.0", "norm1");
  replace(name, "residual.2", "conv1");
  replace(name, "residual.3", "norm2");
  replace(name, "residual.6", "conv2");
  replace(name, "shortcut", "conv_shortcut");
  return name;
}

at::Tensor latents() {
  return random_normal({1, 3, 16, 2, 3}, {.seed = 1, .purpose = "latents"});
}

TEST(WanVaeFile, OpensByItsNamesWithTheSizesItHas) {
  const TemporaryFolder folder;
  for (const WanVaeConfig& config : {small_wan_vae(), WanVaeConfig{.dim = 3,
                                                      .dim_mult = {1, 2, 3},
                                                      .num_res_blocks = 1,
                                                      .temporal_downsample = {true, true}}}) {
    const Tensors tensors = random_wan_vae(config);
    write(folder / "vae.safetensors", tensors);
    const auto opened = open_codec(folder / "vae.safetensors");
    WanVae direct(config, tensors, "test");
    EXPECT_THAT(opened->name(), StartsWith("wan2.1-vae-"));
    EXPECT_EQ(opened->name(), direct.name());
    EXPECT_EQ(opened->latent_channels(), 16);
    EXPECT_EQ(opened->spatial_factor(), config.spatial_factor());
    EXPECT_TRUE(at::equal(opened->decode(latents()), direct.decode(latents())));
    const at::Tensor pixels = opened->decode(latents()).clamp(-1, 1);
    EXPECT_TRUE(at::equal(opened->encode(pixels), direct.encode(pixels)));
  }
}

TEST(WanVaeFile, APyTorchFileIsTheSameCodec) {
  const TemporaryFolder folder;
  const Tensors tensors = random_wan_vae(small_wan_vae());
  write_pth(folder / "vae.pth", tensors);
  const auto opened = open_codec(folder / "vae.pth");
  WanVae direct = small_wan_codec();
  EXPECT_EQ(opened->name(), direct.name());
  EXPECT_TRUE(at::equal(opened->decode(latents()), direct.decode(latents())));
}

TEST(WanVaeFile, DiffusersNamesAreTheSameCodec) {
  const TemporaryFolder folder;
  Tensors renamed;
  for (const auto& [name, tensor] : random_wan_vae(small_wan_vae())) {
    renamed[diffusers_name(name)] = tensor;
  }
  ASSERT_EQ(renamed.size(), 194U);
  ASSERT_TRUE(renamed.contains("decoder.up_blocks.1.upsamplers.0.time_conv.weight"));
  ASSERT_TRUE(renamed.contains("encoder.mid_block.attentions.0.to_qkv.weight"));
  write(folder / "diffusion_pytorch_model.safetensors", renamed);
  WanVae direct = small_wan_codec();
  for (const auto& path : {folder / "diffusion_pytorch_model.safetensors", folder.path()}) {
    const auto opened = open_codec(path);
    EXPECT_EQ(opened->name(), direct.name());
    EXPECT_TRUE(at::equal(opened->decode(latents()), direct.decode(latents())));
  }
}

TEST(WanVaeFile, ItsNameIsThatOfWhatEncodes) {
  Tensors tensors = random_wan_vae(small_wan_vae());
  const std::string name = small_wan_codec().name();
  tensors["decoder.conv1.bias"] = tensors["decoder.conv1.bias"] + 1;
  EXPECT_EQ(WanVae(small_wan_vae(), tensors, "test").name(), name);
  tensors["encoder.conv1.bias"] = tensors["encoder.conv1.bias"] + 1;
  EXPECT_NE(WanVae(small_wan_vae(), tensors, "test").name(), name);
}

TEST(WanVaeFile, RefusesWhatDoesNotFitNamingFileAndTensor) {
  const TemporaryFolder folder;
  const auto path = folder / "vae.safetensors";
  const auto refused = [&](const auto& change) {
    Tensors tensors = random_wan_vae(small_wan_vae());
    change(tensors);
    write(path, tensors);
    const std::string message = error_of([&] { open_codec(path); });
    EXPECT_THAT(message, AllOf(HasSubstr(path.string()), Not(HasSubstr("\n"))));
    return message;
  };
  EXPECT_THAT(refused([](auto& t) { t.erase("decoder.head.2.bias"); }),
              HasSubstr("lacks the parameter 'decoder.head.2.bias'"));
  EXPECT_THAT(refused([](auto& t) { t.erase("conv2.weight"); }),
              HasSubstr("tensor conv2.weight is missing"));
  EXPECT_THAT(refused([](auto& t) { t["discriminator.weight"] = at::zeros({3}); }),
              HasSubstr("'discriminator.weight' that the model does not know"));
  EXPECT_THAT(refused([](auto& t) { t["encoder.conv1.bias"] = at::zeros({5}); }),
              AllOf(HasSubstr("'encoder.conv1.bias' has shape [5]"), HasSubstr("expected [4]")));
  EXPECT_THAT(refused([](auto& t) { t.erase("encoder.downsamples.1.residual.2.weight"); }),
              HasSubstr("tensor encoder.downsamples.1.residual.2.weight is missing"));
  EXPECT_THAT(refused([](auto& t) { t["conv1.bias"].fill_(NAN); }),
              HasSubstr("tensor conv1.bias is not finite"));
  EXPECT_THAT(refused([](auto& t) { t["conv1.bias"] = at::zeros({32}, at::kInt); }),
              HasSubstr("tensor conv1.bias is Int"));
  EXPECT_THAT(refused([](auto& t) {
                WanVaeConfig config = small_wan_vae();
                config.z_dim = 8;
                t = random_wan_vae(config);
              }),
              HasSubstr("8 latent channels, expected 16"));
  EXPECT_THAT(refused([](auto& t) {
                WanVaeConfig config = small_wan_vae();
                config.temporal_downsample = {false, false, true};
                t = random_wan_vae(config);
              }),
              HasSubstr("a temporal stride of 2, expected 4"));
}

}  // namespace
}  // namespace minwm::models
