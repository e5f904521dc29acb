// A training step of a Wan model whose weights are spread over ranks: memory, traffic and time.
//
//   launch/mpirun-local -n 4 parallel_bench                    # 309 M parameters
//   launch/mpirun-local -n 2 parallel_bench --width 64 --layers 2
//
// Rank 0 prints one JSON line per setting of --prefetch. Figures are the largest over ranks.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>

#include <malloc.h>

#include <torch/torch.h>

#include "minwm/comm/mesh.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/random.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/nn/parameters.h"
#include "minwm/parallel/sharded_model.h"
#include "tests/parallel/counting_allocator.h"

namespace {

using namespace minwm;
using testing::CountedBytes;

struct BenchOptions {
  int64_t width = 1024, layers = 18, heads = 8;
  int64_t frames = 2, side = 16, batch = 1;
  int64_t steps = 3;
  bool bfloat16 = false, recompute = true;
  std::vector<int64_t> prefetch = {1, 0};
  comm::MeshOptions mesh{.replicate = 1, .shard = -1};

  void declare(Options& options) {
    options.add("width", &width, "width of the model; its feed-forward is four times that");
    options.add("layers", &layers, "transformer blocks");
    options.add("heads", &heads, "attention heads");
    options.add("frames", &frames, "latent frames of a sample");
    options.add("side", &side, "latent height and width; four latents are one token");
    options.add("batch", &batch, "samples per rank");
    options.add("steps", &steps, "training steps, the first of which is not timed");
    options.add("bfloat16", &bfloat16, "matrices travel and multiply in bfloat16");
    options.add("recompute", &recompute, "backward runs blocks again");
    options.add("prefetch", &prefetch, "settings to measure, one after the other");
    mesh.declare(options);
  }
};

models::WanConfig config_of(const BenchOptions& options) {
  models::WanConfig config;
  config.dim = options.width;
  config.ffn_dim = 4 * options.width;
  config.num_layers = options.layers;
  config.num_heads = options.heads;
  config.text_dim = config.freq_dim = 256;
  config.text_len = 16;
  return config;
}

/// The most memory this process ever had, in bytes.
int64_t resident_peak() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) {
      return std::stoll(line.substr(6)) * 1024;
    }
  }
  return 0;
}

models::ForwardInput make_input(const BenchOptions& options, const models::WanConfig& config) {
  models::ForwardInput input;
  input.latents = random_normal(
      {options.batch, options.frames, config.in_dim, options.side, options.side}, {1, "latents"});
  input.timestep = at::full({options.batch, options.frames}, 500.0);
  input.conditions.text = random_normal({options.batch, 16, config.text_dim}, {1, "text"});
  return input;
}

struct Moments {
  at::Tensor first, second;
};

/// AdamW on this rank's pieces.
void update(const parallel::ShardedModel& model, std::vector<Moments>& moments) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < moments.size(); ++i) {
    const auto& piece = model.pieces()[i];
    at::Tensor values = piece.values;
    moments[i].first.lerp_(piece.gradient, 0.1);
    moments[i].second.mul_(0.99).addcmul_(piece.gradient, piece.gradient, 0.01);
    values.addcdiv_(moments[i].first, moments[i].second.sqrt().add_(1e-8), -1e-5);
  }
}

struct Setup {
  std::shared_ptr<models::WanBackbone> model;
  std::shared_ptr<parallel::ShardedModel> sharded;
  std::vector<Moments> moments;
  int64_t parameters = 0, in_units = 0;  // elements
};

Setup build(const BenchOptions& options, const comm::Mesh& mesh, int64_t prefetch) {
  Setup setup;
  {
    const nn::HollowParameters hollow;
    setup.model = std::make_shared<models::WanBackbone>(config_of(options), 1);
  }
  const auto compute = options.bfloat16 ? at::kBFloat16 : at::kFloat;
  setup.model->set_compute_dtype(compute);
  for (const auto& parameter : setup.model->parameters()) {
    setup.parameters += parameter.numel();
  }
  for (const auto& unit : setup.model->units()) {
    for (const auto& parameter : unit->parameters()) {
      setup.in_units += parameter.numel();
    }
  }
  setup.sharded = std::make_shared<parallel::ShardedModel>(
      "wan", *setup.model, setup.model->units(), mesh,
      parallel::ShardOptions{
          .compute = compute, .recompute = options.recompute, .prefetch = prefetch});
  setup.model->set_unit_runner(setup.sharded);
  setup.sharded->load([](const std::string&, int64_t begin, int64_t count) {
    return at::arange(begin, begin + count, at::kFloat).sin_().mul_(0.02);
  });
  for (const auto& piece : setup.sharded->pieces()) {
    setup.moments.push_back({at::zeros_like(piece.values), at::zeros_like(piece.values)});
  }
  return setup;
}

void training_step(Setup& setup, const models::ForwardInput& input) {
  setup.sharded->begin_step();
  setup.model->forward(input).square().mean().backward();
  setup.sharded->end_backward();
  setup.sharded->finish_gradients();
  update(*setup.sharded, setup.moments);
  setup.sharded->weights_changed();
}

void measure(const BenchOptions& options, const comm::Mesh& mesh, int64_t prefetch) {
  const CountedBytes bytes;
  Setup setup = build(options, mesh, prefetch);
  const auto input = make_input(options, config_of(options));
  const int64_t steady = CountedBytes::now();
  CountedBytes::restart();
  std::vector<double> seconds;
  const auto sent = [&] {
    return mesh.parameters->bytes_sent() + mesh.gradients->bytes_sent() +
           mesh.replicate->bytes_sent();
  };
  int64_t before = 0;
  for (int64_t step = 0; step < options.steps; ++step) {
    mesh.world->barrier("step");
    before = sent();
    const auto start = std::chrono::steady_clock::now();
    training_step(setup, input);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const double sent_bytes = static_cast<double>(sent() - before);
  std::sort(seconds.begin() + 1, seconds.end());
  const auto most = [&](double value) { return mesh.world->all_reduce_max(value, "figure"); };
  const double ranks = static_cast<double>(mesh.copy_size());
  const double replicas = static_cast<double>(mesh.replicate->size());
  const double width = options.bfloat16 ? 2 : 4;
  const double all = static_cast<double>(setup.parameters);
  const double units = static_cast<double>(setup.in_units);
  // Units twice, the root once; the sums in float32; the slices once more between replicas.
  const double formula = (2 * width * units + 4 * (all - units) + 4 * all) * (ranks - 1) / ranks +
                         2 * 4 * all / ranks * (replicas - 1) / replicas;
  const double block = units / static_cast<double>(options.layers) * 4;
  const double peak = most(static_cast<double>(CountedBytes::peak()));
  const double fastest = most(seconds[1]), median = most(seconds[1 + (seconds.size() - 1) / 2]);
  const double tokens = static_cast<double>(options.batch * options.frames * options.side *
                                            options.side / 4 * mesh.data_size());
  const double most_sent = most(sent_bytes), resident = most(static_cast<double>(resident_peak()));
  const double most_steady = most(static_cast<double>(steady));
  if (mesh.world->rank() == 0) {
    fmt::print(
        R"({{"mesh": "{}x{}x{}", "threads": {}, "prefetch": {}, "parameters": {}, )"
        R"("ideal_mib": {:.1f}, "steady_mib": {:.1f}, "peak_mib": {:.1f}, "block_mib": {:.1f}, )"
        R"("resident_peak_mib": {:.1f}, "sent_mib": {:.2f}, "formula_mib": {:.2f}, )"
        R"("step_s": {:.3f}, "fastest_s": {:.3f}, "tokens_per_s": {:.2f}}})"
        "\n",
        mesh.replicate->size(), mesh.copy_size() / mesh.context->size(), mesh.context->size(),
        at::get_num_threads(), prefetch, setup.parameters, 16 * all / ranks / 0x1p20,
        most_steady / 0x1p20, peak / 0x1p20, block / 0x1p20, resident / 0x1p20, most_sent / 0x1p20,
        formula / 0x1p20, median, fastest, tokens / median);
    std::fflush(stdout);
  }
}

int bench(comm::World& world, int argc, char** argv) {
  // Freed blocks go back to the system at once, so that resident memory says what is in use.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  BenchOptions chosen;
  Options options("parallel_bench", "Measures a training step of a sharded Wan model.");
  chosen.declare(options);
  if (!options.parse(argc, argv)) {
    return kExitDone;
  }
  require(chosen.steps >= 2, "steps {}: expected 2 or more, the first is not timed", chosen.steps);
  const comm::Mesh mesh = comm::make_mesh(world.communicator(), chosen.mesh);
  for (const int64_t prefetch : chosen.prefetch) {
    measure(chosen, mesh, prefetch);
  }
  return kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("parallel_bench", argc, argv, bench);
}
