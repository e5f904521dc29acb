#pragma once
// Every way in which the ranks of a run can share one sample.

#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "minwm/comm/mesh.h"
#include "minwm/nn/frame_rows.h"
#include "minwm/parallel/context.h"
#include "mpi_test.h"

namespace minwm::parallel::testing {

struct NamedContext {
  std::string name;
  comm::Mesh mesh;
  std::shared_ptr<const Context> context;
};

constexpr int64_t kMostUlysses = 4;  // the tests' models have 3 to 5 heads

/// All splits of the world into ulysses x ring ranks. Made once: communicators live until the end.
inline const std::vector<NamedContext>& contexts() {
  static const std::vector<NamedContext> all = [] {
    std::vector<NamedContext> made;
    const auto world = minwm::testing::world().communicator();
    const int64_t size = world->size();
    for (int64_t ulysses = 1; ulysses <= std::min(size, kMostUlysses); ++ulysses) {
      if (size % ulysses == 0) {
        comm::MeshOptions options;
        options.context = size;
        options.ulysses = ulysses;
        options.timeout = 30;
        const auto mesh = comm::make_mesh(world, options);
        made.push_back(
            {"ulysses " + std::to_string(ulysses) + " x ring " + std::to_string(size / ulysses),
             mesh, std::make_shared<Context>(mesh)});
      }
    }
    return made;
  }();
  return all;
}

/// This rank's rows of x [B, rows of all frames, …].
inline at::Tensor own_rows(const Context& context, const at::Tensor& x, int64_t frames,
                           const nn::FrameRows& tokens) {
  std::vector<at::Tensor> parts;
  for (int64_t frame = 0; frame < frames; ++frame) {
    const Rows own = context.rows(tokens.of(frame));
    parts.push_back(x.narrow(1, tokens.before(frame) + own.begin, own.count));
  }
  return at::cat(parts, 1);
}

/// A tensor's sum over the ranks of a context.
inline at::Tensor summed(const NamedContext& ranks, const at::Tensor& x) {
  at::Tensor sum = x.detach().clone(at::MemoryFormat::Contiguous);
  ranks.mesh.context->all_reduce(sum, "test sum");
  return sum;
}

/// Largest difference on any rank, relative to the largest entry of the whole reference.
inline double distance(const NamedContext& ranks, const at::Tensor& ours,
                       const at::Tensor& reference, const at::Tensor& whole) {
  const double scale = whole.abs().max().item<double>();
  const double mine = ours.numel() == 0 ? 0 : (ours - reference).abs().max().item<double>() / scale;
  return ranks.mesh.context->all_reduce_max(mine, "test distance");
}

}  // namespace minwm::parallel::testing
