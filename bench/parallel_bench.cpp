// A training step of a model whose weights are spread over ranks: memory, traffic and time.
//
//   launch/mpirun-local -n 4 parallel_bench                    # a Wan model of 309 M parameters
//   launch/mpirun-local -n 2 parallel_bench --width 64 --layers 2
//   launch/mpirun-local -n 4 parallel_bench --model hy-8b@2 --cameras true --chunk_frames 2
//
// Rank 0 prints one JSON line per setting of --prefetch: what was measured, the largest over ranks,
// and what `minwm plan` says of the same step.

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
#include "minwm/models/state.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/nn/parameters.h"
#include "minwm/parallel/context.h"
#include "minwm/parallel/planning.h"
#include "minwm/parallel/sharded_model.h"
#include "minwm/train/trained_weights.h"
#include "src/apps/model_shapes.h"
#include "tests/parallel/counting_allocator.h"

namespace {

using namespace minwm;
using testing::CountedBytes;

struct BenchOptions {
  std::string model;
  int64_t width = 1024, layers = 18, heads = 8;
  int64_t frames = 2, side = 16, batch = 1, text_rows = 16, chunk_frames = 0;
  int64_t steps = 3;
  bool bfloat16 = false, recompute = true, cameras = false;
  std::vector<int64_t> prefetch = {1, 0};
  comm::MeshOptions mesh{.replicate = 1, .shard = -1};

  void declare(Options& options) {
    options.add("model", &model,
                "preset, or PRESET@BLOCKS; empty = a Wan model of the sizes below");
    options.add("width", &width, "width of the model; its feed-forward is four times that");
    options.add("layers", &layers, "transformer blocks");
    options.add("heads", &heads, "attention heads");
    options.add("frames", &frames, "latent frames of a sample");
    options.add("side", &side, "latent height and width; a Wan token is four latents");
    options.add("text_rows", &text_rows, "rows of text");
    options.add("chunk_frames", &chunk_frames,
                "teacher forcing in chunks of so many frames; 0 = bidirectional");
    options.add("batch", &batch, "samples per rank");
    options.add("steps", &steps, "training steps, the first of which is not timed");
    options.add("bfloat16", &bfloat16, "matrices travel and multiply in bfloat16");
    options.add("recompute", &recompute, "backward runs blocks again");
    options.add("cameras", &cameras, "attention goes through cameras as well");
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
  config.text_len = options.text_rows;
  return config;
}

std::shared_ptr<models::Backbone> hollow_model(const BenchOptions& options) {
  if (!options.model.empty()) {
    return models::make_hollow_backbone(options.model);
  }
  const nn::HollowParameters hollow;
  return std::make_shared<models::WanBackbone>(config_of(options), 1);
}

/// The same step as `minwm plan` knows it.
parallel::StepShape step_of(const BenchOptions& options, models::Backbone& model,
                            const comm::Mesh& mesh, int64_t prefetch) {
  parallel::StepShape step;
  step.model = apps::shape_of(options.model.empty() ? "bench" : options.model, model);
  step.model.camera = options.cameras;
  step.model.text_rows = options.text_rows;
  step.device = parallel::device_kind("cpu");
  step.device.compute_bytes = options.bfloat16 ? 2 : 4;
  step.frames = options.frames;
  const auto patch = model.patch();
  step.frame_tokens = options.side / patch[0] * (options.side / patch[1]);
  if (options.chunk_frames > 0) {
    step.stage = "teacher-forcing";
    step.chunk_frames = options.chunk_frames;
  }
  step.global_batch = options.batch * mesh.data_size();
  step.micro_batch = options.batch;
  step.recompute = options.recompute;
  step.prefetch = prefetch;
  return step;
}

parallel::MeshShape shape_of(const comm::Mesh& mesh) {
  return {mesh.replicate->size(), mesh.copy_size() / mesh.context->size(), mesh.context->size(),
          mesh.ulysses->size()};
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

models::ForwardInput make_input(const BenchOptions& options, const models::Backbone& model) {
  const int64_t batch = options.batch, frames = options.frames;
  const auto latents = [&](const char* purpose) {
    return random_normal({batch, frames, model.latent_channels(), options.side, options.side},
                         {1, purpose});
  };
  models::ForwardInput input;
  input.latents = latents("latents");
  input.timestep = at::full({batch, frames}, 500.0);
  if (options.chunk_frames > 0) {
    input.clean_latents = latents("clean");
    input.chunk_frames = options.chunk_frames;
  }
  input.conditions.text = random_normal({batch, options.text_rows, model.text_dim()}, {1, "text"});
  if (options.cameras) {
    input.conditions.cameras = {at::eye(4).repeat({batch, frames, 1, 1}),
                                at::eye(3).repeat({batch, frames, 1, 1})};
  }
  if (model.reads_actions()) {
    input.conditions.actions = at::zeros({batch, frames}, at::kLong);
  }
  return input;
}

struct Moments {
  at::Tensor first, second;
};

struct Setup {
  std::shared_ptr<models::Backbone> model;
  std::unique_ptr<train::TrainedWeights> weights;
  std::vector<Moments> moments;
  int64_t parameters = 0, in_units = 0;  // elements
};

/// AdamW on what this rank has.
void update(Setup& setup) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < setup.moments.size(); ++i) {
    at::Tensor values = setup.weights->parameters()[i].second;
    const at::Tensor gradient = values.grad();
    auto& [first, second] = setup.moments[i];
    if (gradient.defined()) {
      first.lerp_(gradient, 0.1);
      second.mul_(0.99).addcmul_(gradient, gradient, 0.01);
      values.addcdiv_(first, second.sqrt().add_(1e-8), -1e-5);
    }
  }
}

/// As `minwm train` does it: weights spread over the ranks of a copy, or whole.
void place_weights(const BenchOptions& options, const comm::Mesh& mesh, int64_t prefetch,
                   models::Backbone& model) {
  const auto compute = options.bfloat16 ? at::kBFloat16 : at::kFloat;
  model.set_compute_dtype(compute);
  model.set_activation_checkpointing(options.recompute);
  if (mesh.copy_size() > 1) {
    model.set_unit_runner(std::make_shared<parallel::ShardedModel>(
        "bench", model, model.units(), mesh,
        parallel::ShardOptions{
            .compute = compute, .recompute = options.recompute, .prefetch = prefetch}));
  } else {
    at::NoGradGuard no_grad;
    for (auto& parameter : model.parameters()) {
      parameter.set_data(at::zeros(parameter.sizes()));
    }
  }
  if (mesh.context->size() > 1) {
    model.set_context(std::make_shared<const parallel::Context>(mesh));
  }
  models::ParameterSource source;
  source.where = "parallel_bench";
  for (const auto& item : model.named_parameters()) {
    source.shapes[item.key()] = item.value().sizes().vec();
  }
  source.read = [](const std::string&, int64_t begin, int64_t count) {
    return at::arange(begin, begin + count, at::kFloat).sin_().mul_(0.02);
  };
  models::load_parameters(model, source);
}

Setup build(const BenchOptions& options, const comm::Mesh& mesh, int64_t prefetch) {
  Setup setup;
  setup.model = hollow_model(options);
  for (const auto& parameter : setup.model->parameters()) {
    setup.parameters += parameter.numel();
  }
  for (const auto& unit : setup.model->units()) {
    for (const auto& parameter : unit->parameters()) {
      setup.in_units += parameter.numel();
    }
  }
  place_weights(options, mesh, prefetch, *setup.model);
  setup.weights = train::make_trained_weights(*setup.model, mesh);
  for (const auto& [name, values] : setup.weights->parameters()) {
    setup.moments.push_back({at::zeros_like(values), at::zeros_like(values)});
  }
  return setup;
}

void training_step(Setup& setup, const models::ForwardInput& input) {
  setup.weights->begin_step();
  setup.weights->reduce_in_backward();
  setup.model->forward(input).square().mean().backward();
  setup.weights->end_backward();
  setup.weights->finish_gradients();
  update(setup);
  setup.weights->changed();
}

/// Bytes that this rank has sent so far.
struct Sent {
  double weights = 0, context = 0;
  explicit Sent(const comm::Mesh& mesh)
      : weights(static_cast<double>(mesh.parameters->bytes_sent() + mesh.gradients->bytes_sent() +
                                    mesh.replicate->bytes_sent())),
        context(static_cast<double>(mesh.ulysses->bytes_sent() + mesh.ring->bytes_sent())) {}
};

/// Bytes by the formula of parallel.md 3.7: units twice, the root once; the sums in float32; the
/// slices once more between replicas.
double formula(const BenchOptions& options, const comm::Mesh& mesh, const Setup& setup) {
  const auto others = [](double ranks) { return (ranks - 1) / ranks; };
  const double width = options.bfloat16 ? 2 : 4;
  const auto all = static_cast<double>(setup.parameters);
  const auto units = static_cast<double>(setup.in_units);
  const auto ranks = static_cast<double>(mesh.copy_size());
  return (2 * width * units + 4 * (all - units) + 4 * all) * others(ranks) +
         2 * 4 * all / ranks * others(static_cast<double>(mesh.replicate->size()));
}

/// What the plan says, and by how much it is wrong.
std::string planned(const parallel::StepShape& step, const comm::Mesh& mesh, double steady,
                    double peak, double sent) {
  const auto memory = plan_memory(step, shape_of(mesh));
  const auto planned_steady = static_cast<double>(memory.steady()),
             planned_peak = static_cast<double>(memory.total()),
             planned_sent = plan_wire(step, shape_of(mesh)).total();
  const auto off = [](double plan, double measured) {
    return measured > 0 ? plan / measured - 1 : 0;
  };
  return fmt::format(
      R"("planned_steady_mib": {:.1f}, "planned_peak_mib": {:.1f}, "planned_sent_mib": {:.2f}, )"
      R"("steady_error": {:.4f}, "peak_error": {:.4f}, "sent_error": {:.4f})",
      planned_steady / 0x1p20, planned_peak / 0x1p20, planned_sent / 0x1p20,
      off(planned_steady, steady), off(planned_peak, peak), off(planned_sent, sent));
}

void measure(const BenchOptions& options, const comm::Mesh& mesh, int64_t prefetch) {
  const CountedBytes bytes;
  Setup setup = build(options, mesh, prefetch);
  const auto input = make_input(options, *setup.model);
  const int64_t held = CountedBytes::now();
  CountedBytes::restart();
  std::vector<double> seconds;
  Sent before(mesh);
  for (int64_t step = 0; step < options.steps; ++step) {
    mesh.world->barrier("step");
    before = Sent(mesh);
    const auto start = std::chrono::steady_clock::now();
    training_step(setup, input);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const Sent after(mesh);
  std::sort(seconds.begin() + 1, seconds.end());
  const auto most = [&](double value) { return mesh.world->all_reduce_max(value, "figure"); };
  const double steady = most(static_cast<double>(held)),
               peak = most(static_cast<double>(CountedBytes::peak())),
               resident = most(static_cast<double>(resident_peak()));
  const double sent = most(after.weights - before.weights),
               exchanged = most(after.context - before.context);
  const double fastest = most(seconds[1]), median = most(seconds[1 + (seconds.size() - 1) / 2]);
  const auto step = step_of(options, *setup.model, mesh, prefetch);
  const double tokens = static_cast<double>(step.global_batch * step.frames * step.frame_tokens);
  const double block =
      static_cast<double>(setup.in_units) / static_cast<double>(step.model.blocks) * 4;
  const double ideal = 16 * static_cast<double>(setup.parameters) / mesh.copy_size();
  if (mesh.world->rank() == 0) {
    fmt::print(
        R"({{"model": "{}", "mesh": "{}x{}x{}", "threads": {}, "prefetch": {}, "parameters": {}, )"
        R"("ideal_mib": {:.1f}, "steady_mib": {:.1f}, "peak_mib": {:.1f}, "block_mib": {:.1f}, )"
        R"("resident_peak_mib": {:.1f}, "sent_mib": {:.2f}, "formula_mib": {:.2f}, )"
        R"("context_mib": {:.2f}, "step_s": {:.3f}, "fastest_s": {:.3f}, "tokens_per_s": {:.2f}, )"
        R"({}}})"
        "\n",
        step.model.name, mesh.replicate->size(), mesh.copy_size() / mesh.context->size(),
        mesh.context->size(), at::get_num_threads(), prefetch, setup.parameters, ideal / 0x1p20,
        steady / 0x1p20, peak / 0x1p20, block / 0x1p20, resident / 0x1p20, sent / 0x1p20,
        formula(options, mesh, setup) / 0x1p20, exchanged / 0x1p20, median, fastest,
        tokens / median, planned(step, mesh, steady, peak, sent + exchanged));
    std::fflush(stdout);
  }
}

int bench(comm::World& world, int argc, char** argv) {
  // Freed blocks go back to the system at once, so that resident memory says what is in use.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  BenchOptions chosen;
  Options options("parallel_bench", "Measures a training step of a sharded model.");
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
