#include "minwm/data/upstream_wan.h"

#include <ATen/ATen.h>

#include "minwm/camera/poses.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "minwm/core/pt_reader.h"
#include "minwm/data/upstream_lmdb.h"

namespace minwm::data {
namespace {

void require_finite(const at::Tensor& tensor, const std::string& where) {
  require(tensor.isfinite().all().item<bool>(), "{}: numbers that are not finite", where);
}

/// Checks what both containers promise; `where` names the sample.
WanSample checked(WanSample sample, const std::string& where) {
  if (sample.states.dim() == 4) {
    sample.states = sample.states.unsqueeze(0);
  }
  require(sample.states.dim() == 5 && sample.states.numel() > 0,
          "{}: latents have {} axes, expected states, frames, channels, height, width", where,
          sample.states.dim());
  const int64_t frames = sample.states.size(1);
  require(sample.world_to_camera.sizes() == at::IntArrayRef({frames, 4, 4}) &&
              sample.intrinsics.sizes() == at::IntArrayRef({frames, 3, 3}),
          "{}: cameras for {} frames, latents for {}", where, sample.world_to_camera.size(0),
          frames);
  require_finite(sample.states, where + ": latents");
  require_finite(sample.intrinsics, where + ": intrinsics");
  camera::require_rigid(sample.world_to_camera, where.c_str());
  return sample;
}

}  // namespace

struct WanLmdb::Shard {
  explicit Shard(const std::filesystem::path& folder) : lmdb(folder) {
    rows = lmdb.shape("latents")[0];
    poses = lmdb.contains("poses_shape");
    require(poses || lmdb.contains("viewmats_shape"),
            "{}: neither 'poses_shape' nor 'viewmats_shape', so it has no cameras", lmdb.folder());
    for (const char* name :
         {"prompts", poses ? "poses" : "viewmats", poses ? "intrinsics" : "Ks"}) {
      const int64_t other = lmdb.shape(name)[0];
      require(other == rows, "{}: {} latents but {} {}", lmdb.folder(), rows, other, name);
    }
  }

  WanSample read(int64_t row) const {
    const std::string where = fmt::format("{}: row {}", lmdb.folder(), row);
    WanSample out;
    out.prompt = lmdb.text("prompts", row);
    out.states = lmdb.row("latents", row, at::kHalf).to(at::kFloat);
    if (poses) {
      const at::Tensor poses7 = lmdb.row("poses", row, at::kFloat);
      require_finite(poses7, where + ": poses");
      const camera::Cameras cameras =
          camera::cameras_from_poses7(poses7, lmdb.row("intrinsics", row, at::kFloat));
      out.world_to_camera = cameras.world_to_camera[0];
      out.intrinsics = cameras.intrinsics[0];
    } else {
      out.world_to_camera = lmdb.row("viewmats", row, at::kFloat);
      out.intrinsics = lmdb.row("Ks", row, at::kFloat);
    }
    return checked(std::move(out), where);
  }

  Lmdb lmdb;
  int64_t rows = 0;
  bool poses = false;  ///< clips, not trajectories
};

WanLmdb::WanLmdb(const std::filesystem::path& folder) {
  for (const auto& shard : lmdb_folders(folder)) {
    shards_.emplace_back(shard);
  }
}

WanLmdb::~WanLmdb() = default;

int64_t WanLmdb::size() const {
  int64_t total = 0;
  for (const Shard& shard : shards_) {
    total += shard.rows;
  }
  return total;
}

WanSample WanLmdb::read(int64_t index) const {
  int64_t row = index;
  for (const Shard& shard : shards_) {
    if (row >= 0 && row < shard.rows) {
      return shard.read(row);
    }
    row -= shard.rows;
  }
  fail("{}: {} samples, there is no sample {}", shards_[0].lmdb.folder(), size(), index);
}

WanSample read_wan_ode_pt(const std::filesystem::path& file) {
  const std::string where = file.string();
  const PtValue root = read_pt(file);
  const PtDict& dict = root.dict(where);
  const auto tensor = [&](const char* key, int64_t axes) {
    const std::string place = where + ": '" + key + "'";
    const at::Tensor& stored = dict.at(key, where).tensor(place);
    require(stored.dim() == axes || (stored.dim() == axes + 1 && stored.size(0) == 1),
            "{} has {} axes, expected {} and a batch of 1", place, stored.dim(), axes);
    return stored.dim() == axes ? stored : stored[0];
  };
  const std::string place = where + ": 'prompt'";
  const PtValue& prompt = dict.at("prompt", where);
  WanSample out;
  if (prompt.is_list()) {
    require(!prompt.list(place).empty(), "{} is an empty list", place);
    out.prompt = prompt.list(place)[0].string(place);
  } else {
    out.prompt = prompt.string(place);
  }
  out.states = tensor("latents", 5).to(at::kHalf).to(at::kFloat);
  out.world_to_camera = tensor("viewmats", 3).to(at::kFloat);
  out.intrinsics = tensor("Ks", 3).to(at::kFloat);
  return checked(std::move(out), where);
}

}  // namespace minwm::data
