#include "minwm/train/gap_evaluation.h"

#include <spdlog/spdlog.h>

#include "minwm/core/error.h"
#include "minwm/data/latent_store.h"
#include "minwm/models/codec/codec.h"

namespace minwm::train {
namespace {

/// The next judged clip after `place` that moves differently: its cameras are the wrong ones.
at::Tensor other_cameras(const data::LatentStore& store, const std::vector<int64_t>& chosen,
                         size_t place, const data::Clip& clip, const std::string& path) {
  for (size_t step = 1; step < chosen.size(); ++step) {
    const auto other = store.read(chosen[(place + step) % chosen.size()]);
    if (!at::allclose(other.world_to_camera, clip.world_to_camera, 0, 1e-4)) {
      return other.world_to_camera;
    }
  }
  fail("{}: its clips all follow one trajectory: there are no wrong cameras to judge with", path);
}

std::vector<stages::GapClip> read_share(const GapEvaluationOptions& options,
                                        const models::Backbone& model, const models::Codec& codec,
                                        const comm::Mesh& mesh) {
  const data::LatentStore store(options.store);
  const auto& layout = store.layout();
  require(layout.channels == model.latent_channels() && layout.text_dim == model.text_dim(),
          "{}: {} latent channels and text of width {}; the model takes {} and {}", options.store,
          layout.channels, layout.text_dim, model.latent_channels(), model.text_dim());
  require(layout.codec == codec.name(), "{}: was encoded by codec '{}', {} is '{}'", options.store,
          layout.codec, options.codec, codec.name());
  const int64_t count = std::min(options.clips, store.size());
  require(count >= 2, "{}: holds {} clips, the camera gap needs 2", options.store, store.size());
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < count; ++i) {
    chosen.push_back(i * store.size() / count);
  }
  // Ranks that share weights or tokens run the same number of forwards: the last round is filled
  // up.
  const auto ranks = static_cast<size_t>(mesh.data_size());
  const bool in_step = mesh.copy_size() > 1;
  const size_t places = in_step ? (chosen.size() + ranks - 1) / ranks * ranks : chosen.size();
  std::vector<stages::GapClip> share;
  for (auto place = static_cast<size_t>(mesh.data_rank()); place < places; place += ranks) {
    const size_t i = place % chosen.size();
    data::Clip clip = store.read(chosen[i]);
    at::Tensor other = model.reads_cameras() ? other_cameras(store, chosen, i, clip, options.store)
                                             : clip.world_to_camera;
    share.push_back(
        {std::move(clip), std::move(other), static_cast<int64_t>(i), place < chosen.size()});
  }
  return share;
}

}  // namespace

std::function<std::map<std::string, double>()> make_gap_evaluation(
    const GapEvaluationOptions& options, std::shared_ptr<models::Backbone> model,
    const comm::Mesh& mesh) {
  auto codec = models::open_codec(options.codec);
  auto clips = read_share(options, *model, *codec, mesh);
  if (!model->reads_cameras() && mesh.world->rank() == 0) {
    spdlog::info(
        "the model reads no cameras: evaluations give the PSNR of its predictions "
        "(gap_right), no camera gap");
  }
  return [clips = std::move(clips), codec = std::move(codec), gap = options.gap,
          model = std::move(model), world = mesh.world] {
    const auto own = stages::camera_gap_errors(*model, *codec, clips, gap);
    // Context ranks judge the same clips: all sums grow alike, and only their ratios count.
    stages::GapErrors all;
    all.right = world->all_reduce_sum(own.right, "camera gap");
    all.wrong = world->all_reduce_sum(own.wrong, "camera gap");
    all.copy = world->all_reduce_sum(own.copy, "camera gap");
    all.values = world->all_reduce_sum(own.values, "camera gap");
    const auto result = stages::camera_gap(all);
    std::map<std::string, double> numbers = {{"gap_right", result.right},
                                             {"gap_copy", result.copy}};
    if (model->reads_cameras()) {
      numbers["camera_gap"] = result.gap;
      numbers["gap_wrong"] = result.wrong;
    }
    return numbers;
  };
}

}  // namespace minwm::train
