#include "history.h"

#include "minwm/camera/memory.h"
#include "minwm/core/error.h"

namespace minwm::stream {
namespace {

constexpr int64_t kPoints = 50000;  // as upstream compares views
constexpr int64_t kGroup = 4;       // frames that are recalled together

camera::MemoryOptions selection(const ContextMemory& options, int64_t next) {
  camera::MemoryOptions out;
  out.memory_frames = options.frames;
  out.temporal_context = options.temporal;
  out.predicted_frames = next;
  return out;
}

}  // namespace

History::History(const ContextMemory& options, uint64_t seed)
    : options_(options),
      points_(camera::points_in_ball(kPoints, camera::MemoryOptions{}.radius,
                                     {seed, "stream.memory"})) {}

int64_t History::most_frames(const ContextMemory& options) {
  const int64_t groups = (options.frames - options.temporal + kGroup - 1) / kGroup;
  return options.temporal + kGroup * std::max<int64_t>(groups, 1);
}

void History::append(const at::Tensor& latents, const FrameInputs& frames) {
  const auto host = [](const at::Tensor& x, int64_t i) {
    return x.defined() ? x.select(1, i).to(at::kCPU) : x;
  };
  for (int64_t i = 0; i < latents.size(1); ++i) {
    frames_.push_back({host(latents, i), host(frames.cameras.world_to_camera, i),
                       host(frames.cameras.intrinsics, i), host(frames.actions, i)});
  }
}

at::Tensor History::select(const at::Tensor& next_views) const {
  const auto current = static_cast<int64_t>(frames_.size());
  std::vector<at::Tensor> views;
  for (const Frame& frame : frames_) {
    views.push_back(frame.world_to_camera);
  }
  const at::Tensor all = at::cat({at::stack(views, 1), next_views.to(at::kCPU)}, 1);
  std::vector<at::Tensor> picked;
  for (const at::Tensor& clip : all.unbind(0)) {
    picked.push_back(at::tensor(
        camera::select_memory(clip, current, points_, selection(options_, next_views.size(1))),
        at::kLong));
    require(picked.back().size(0) == picked.front().size(0),
            "world stream: clips side by side look back at {} and {} frames: stream them one by "
            "one, or in chunks of {}",
            picked.front().size(0), picked.back().size(0), kGroup);
  }
  return at::stack(picked);
}

at::Tensor History::gather(at::Tensor Frame::*field, const at::Tensor& index) const {
  if (!(frames_.front().*field).defined()) {
    return {};
  }
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < index.size(0); ++b) {
    std::vector<at::Tensor> row;
    for (int64_t i = 0; i < index.size(1); ++i) {
      row.push_back((frames_[static_cast<size_t>(index[b][i].item<int64_t>())].*field)[b]);
    }
    rows.push_back(at::stack(row));
  }
  return at::stack(rows);
}

History::Recalled History::recall(const camera::Cameras& next) const {
  require(next.defined() && frames_.front().world_to_camera.defined(),
          "world stream: a context memory compares poses, and none were given");
  const at::Device device = next.world_to_camera.device();
  const at::Tensor index = select(next.world_to_camera);
  const auto on_device = [&](at::Tensor Frame::*field) {
    const at::Tensor x = gather(field, index);
    return x.defined() ? x.to(device) : x;
  };
  return {on_device(&Frame::latent),
          {index,
           {on_device(&Frame::world_to_camera), on_device(&Frame::intrinsics)},
           on_device(&Frame::action)}};
}

}  // namespace minwm::stream
