#include "minwm/data/upstream_hy.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/camera/action_labels.h"
#include "minwm/camera/poses.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/pt_reader.h"

namespace minwm::data {
namespace {

/// A .pt file's top dict, for messages that name file and entry.
class Entries {
 public:
  explicit Entries(const std::filesystem::path& file) : file_(file.string()), root_(read_pt(file)) {
    root_.dict(file_);
  }

  bool has(const char* key) const {
    const PtValue* value = root_.dict(file_).find(key);
    return value != nullptr && !value->is_none();
  }
  std::string place(const char* key) const { return file_ + ": '" + key + "'"; }
  /// @throws Error unless it is a finite tensor with `axes` axes.
  at::Tensor tensor(const char* key, int64_t axes) const {
    const at::Tensor& found = root_.dict(file_).at(key, file_).tensor(place(key));
    require(found.dim() == axes, "{} has {} axes, expected {}", place(key), found.dim(), axes);
    require(found.isfinite().all().item<bool>(), "{} has numbers that are not finite", place(key));
    return found;
  }
  /// The only entry of the batch axis.
  at::Tensor batch_of_one(const char* key, int64_t axes) const {
    const at::Tensor found = tensor(key, axes + 1);
    require(found.size(0) == 1, "{} has a batch of {}, expected 1", place(key), found.size(0));
    return found[0].contiguous();
  }
  const std::string& file() const { return file_; }

 private:
  std::string file_;
  PtValue root_;
};

void read_cameras(const Entries& entries, int64_t frames, HySample& sample) {
  if (entries.has("viewmats")) {
    sample.world_to_camera = entries.batch_of_one("viewmats", 3).to(at::kFloat);
    sample.intrinsics = entries.batch_of_one("Ks", 3).to(at::kFloat);
    require(sample.world_to_camera.size(0) >= frames && sample.intrinsics.size(0) >= frames,
            "{} has {} cameras for {} latent frames", entries.file(),
            sample.world_to_camera.size(0), frames);
    sample.world_to_camera = sample.world_to_camera.narrow(0, 0, frames);
    sample.intrinsics = sample.intrinsics.narrow(0, 0, frames);
    camera::require_rigid(sample.world_to_camera, entries.place("viewmats").c_str());
  } else {
    const at::Tensor poses = entries.tensor("poses", 2), k = entries.tensor("intrinsics", 1);
    require(poses.size(1) == 7 && poses.size(0) >= frames,
            "{} is [{}, {}], expected 7 numbers for each of {} latent frames",
            entries.place("poses"), poses.size(0), poses.size(1), frames);
    require(k.size(0) == 4 && k[0].item<double>() > 0 && k[1].item<double>() > 0,
            "{} must be fx fy cx cy with positive focal lengths", entries.place("intrinsics"));
    const camera::Cameras cameras = camera::cameras_from_poses7(poses.narrow(0, 0, frames), k);
    sample.world_to_camera = cameras.world_to_camera[0];
    sample.intrinsics = cameras.intrinsics[0];
  }
  sample.labels = camera::action_labels(sample.world_to_camera);
}

}  // namespace

HySample read_hy_sample(const std::filesystem::path& file, int64_t window) {
  require(window > 0, "a window of {} latent frames, expected at least 1", window);
  const Entries entries(file);
  HySample out;
  const at::Tensor latent = entries.batch_of_one("latent", 4);
  require(latent.size(1) >= window, "{}: {} latent frames, the window has {}", entries.file(),
          latent.size(1), window);
  const int64_t frames = std::min(window, latent.size(1) / 4 * 4);
  require(frames > 0, "{}: fewer than 4 latent frames", entries.file());
  out.latent = latent.narrow(1, 0, frames).contiguous();
  out.image_cond = entries.batch_of_one("image_cond", 4);
  out.prompt_embed = entries.batch_of_one("prompt_embeds", 2);
  out.prompt_mask = entries.batch_of_one("prompt_mask", 1);
  out.vision_states = entries.batch_of_one("vision_states", 2);
  out.byt5_states = entries.batch_of_one("byt5_text_states", 2);
  out.byt5_mask = entries.batch_of_one("byt5_text_mask", 1);
  if (entries.has("ode_trajectory")) {
    out.ode_trajectory = entries.batch_of_one("ode_trajectory", 5);
  }
  read_cameras(entries, frames, out);
  return out;
}

HyNegativePrompt read_hy_negative_prompt(const std::filesystem::path& folder) {
  const Entries prompt(folder / "hunyuan_neg_prompt.pt"),
      byt5(folder / "hunyuan_neg_byt5_prompt.pt");
  return {prompt.batch_of_one("negative_prompt_embeds", 2),
          prompt.batch_of_one("negative_prompt_mask", 1), byt5.batch_of_one("byt5_text_states", 2),
          byt5.batch_of_one("byt5_text_mask", 1)};
}

std::vector<std::filesystem::path> read_hy_index(const std::filesystem::path& index) {
  const std::string where = index.string();
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(read_file(index));
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not valid JSON: {}", where, error.what());
  }
  require(json.is_array(), "{}: expected a list of {{\"latent_path\": …}}", where);
  std::vector<std::filesystem::path> out;
  for (size_t i = 0; i < json.size(); ++i) {
    require(json[i].is_object() && json[i].contains("latent_path") &&
                json[i]["latent_path"].is_string(),
            "{}: entry {} has no text 'latent_path'", where, i);
    out.push_back(index.parent_path() / json[i]["latent_path"].get<std::string>());
  }
  return out;
}

}  // namespace minwm::data
