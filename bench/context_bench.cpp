// Context parallelism: launch/mpirun-local -n 2 context_bench. Bytes that a rank sends for one
// attention, next to what spec parallel 3.7 says, and the time of a forward of wan-tiny, whose
// tokens the ranks share. Rank 0 reports.

#include <benchmark/benchmark.h>

#include <torch/torch.h>

#include "minwm/comm/mesh.h"
#include "minwm/core/random.h"
#include "minwm/models/backbone.h"
#include "minwm/parallel/context.h"
#include "ranks.h"

namespace {

using namespace minwm;

constexpr int64_t kFrames = 4, kTokens = 240, kHeads = 8, kDim = 64;

/// All ranks share one sample, `ulysses` of them exchange heads.
comm::Mesh mesh_of(const std::shared_ptr<comm::Communicator>& world, int64_t ulysses) {
  comm::MeshOptions options;
  options.context = world->size();
  options.ulysses = ulysses;
  return comm::make_mesh(world, options);
}

int64_t bytes_sent(const comm::Mesh& mesh) {
  return mesh.ulysses->bytes_sent() + mesh.ring->bytes_sent();
}

/// Self-attention of this rank's rows, forward and backward.
void attention(benchmark::State& state, const comm::Mesh& mesh) {
  const parallel::Context context(mesh);
  const int64_t rows = kFrames * context.rows(kTokens).count;
  const auto plan = nn::block_causal_plan(kFrames, 1);
  const at::Tensor x =
      random_normal({1, rows, kHeads, kDim}, {1, "bench.context"}).requires_grad_(true);
  int64_t forward = 0, backward = 0;
  for (auto _ : state) {
    const int64_t before = bytes_sent(mesh);
    const auto held = context.to_heads({x, x, x}, kFrames, kTokens);
    const at::Tensor out = context.to_rows(context.attend(held[0], held[1], held[2], plan, kTokens),
                                           kFrames, kTokens, kHeads, 1);
    const int64_t between = bytes_sent(mesh);
    out.sum().backward();
    forward += between - before;
    backward += bytes_sent(mesh) - between;
  }
  const auto c = static_cast<double>(context.size());
  const bool ring = mesh.ring->size() > 1;
  const double values = static_cast<double>(kFrames * kTokens * kHeads * kDim), bytes = 4;
  const double keys = 2 * values * bytes * (c - 1) / c,
               exchange = 4 * values * bytes * (c - 1) / (c * c);
  const auto each = [&](int64_t sum) {
    return static_cast<double>(sum) / static_cast<double>(state.iterations());
  };
  state.counters["forward_B"] = each(forward);
  state.counters["forward_formula_B"] = ring ? keys : exchange;
  state.counters["backward_B"] = each(backward);
  // Keys and values once more, and their float32 gradients all the way round.
  state.counters["backward_formula_B"] = ring ? keys + 2 * values * 4 : exchange;
}

/// The bidirectional forward of two clips without a graph.
void wan_tiny(benchmark::State& state, const comm::Mesh& mesh) {
  at::NoGradGuard no_grad;
  const auto model = models::make_backbone("wan-tiny", 1);
  model->set_context(std::make_shared<parallel::Context>(mesh));
  models::ForwardInput input;
  input.latents = random_normal({2, 12, 16, 16, 16}, {1, "bench.noisy"});
  input.timestep = at::full({2, 12}, 500.0);
  input.conditions.text = random_normal({2, 6, 32}, {1, "bench.text"});
  model->forward(input);
  mesh.world->barrier("bench");
  for (auto _ : state) {
    benchmark::DoNotOptimize(model->forward(input));
  }
}

int run(comm::World& world, int argc, char** argv) {
  at::set_num_threads(1);
  const auto ranks = world.communicator();
  const auto ulysses = mesh_of(ranks, world.size()), ring = mesh_of(ranks, 1);
  // Fixed numbers of iterations: every rank makes the same calls.
  using Body = void (*)(benchmark::State&, const comm::Mesh&);
  const auto add = [](const char* name, Body body, const comm::Mesh& mesh) {
    benchmark::RegisterBenchmark(name,
                                 [body, &mesh](benchmark::State& state) { body(state, mesh); })
        ->Iterations(10)
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  };
  if (world.size() > 1) {
    add("attention/ulysses", attention, ulysses);
    add("attention/ring", attention, ring);
    add("wan_tiny/ring", wan_tiny, ring);
  }
  add("wan_tiny/ulysses", wan_tiny, ulysses);
  return bench::run_on_ranks(world, argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("context_bench", argc, argv, run);
}
