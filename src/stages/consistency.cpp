#include "minwm/stages/consistency.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/stages/noise.h"
#include "minwm/stages/text_dropout.h"

namespace minwm::stages {
namespace {

/// Timesteps of the grid, [intervals + 1] float32, the last 0.
at::Tensor grid_timesteps(const ConsistencyOptions& options) {
  diffusion::FlowMatchTable::Options table;
  table.steps = options.intervals;
  table.shift = options.shift;
  return at::cat({diffusion::FlowMatchTable(table).timesteps(), at::zeros({1})});
}

/// x0 in the type of the flow; sigma in float32.
at::Tensor clean_of(const at::Tensor& x, const at::Tensor& flow, const at::Tensor& sigma) {
  return diffusion::predict_x0(x, flow, sigma).to(flow.scalar_type());
}

/// How far the teacher steps: sigma' - sigma of each frame. Wan's reference takes the difference of
/// the timesteps that the network sees, HY's that of its rounded sigmas.
at::Tensor step_size(const at::Tensor& from, const at::Tensor& to, const LevelOptions& level) {
  return level.bfloat16_sigma
             ? sigma_of(to, level) - sigma_of(from, level)
             : (network_timestep(to, level) - network_timestep(from, level)) / 1000;
}

}  // namespace

void ConsistencyOptions::declare(Options& options) {
  options.add("consistency.intervals", &intervals, "intervals of the grid of noise levels");
  options.add("consistency.shift", &shift, "the grid is shift(u) = s u / (1 + (s - 1) u)");
  options.add("consistency.terminal", &terminal,
              "train the last interval, down to sigma 0, too; the Wan reference does not");
  options.add("consistency.guidance", &guidance, "guidance of the teacher; 1 = off");
  options.add("consistency.per_chunk", &per_chunk, "an interval per chunk, not one per clip");
  options.add("consistency.clean_first", &clean_first,
              "probability that a clip's first latent is given");
  options.add("consistency.text_dropout", &text_dropout,
              "probability that a clip's text is dropped");
  options.add("consistency.chunk_frames", &chunk_frames, "latent frames of a chunk");
  level.declare(options, "consistency");
  options.add("consistency.table_shift", &level.shift, "shift of that table");
  options.add("consistency.bfloat16_sigma", &level.bfloat16_sigma,
              "round sigma to bfloat16, as the HY reference");
}

void ConsistencyOptions::check() const {
  const int64_t least = terminal ? 1 : 2;
  require(intervals >= least, "consistency.intervals {}: expected at least {}{}", intervals, least,
          terminal ? "" : " when the last one is not trained");
  require(shift > 0, "consistency.shift {}: expected more than 0", shift);
  require(guidance >= 0, "consistency.guidance {}: expected 0 or more", guidance);
  require(clean_first >= 0 && clean_first <= 1, "consistency.clean_first {}: expected 0 … 1",
          clean_first);
  require(text_dropout >= 0 && text_dropout <= 1, "consistency.text_dropout {}: expected 0 … 1",
          text_dropout);
  require(chunk_frames > 0, "consistency.chunk_frames {}: expected at least 1", chunk_frames);
}

ConsistencyDraws draw_consistency(const data::Batch& batch, const StepAddress& address,
                                  const ConsistencyOptions& options) {
  const int64_t frames = batch.latents.size(1);
  require(frames % options.chunk_frames == 0,
          "consistency: {} latent frames are not a multiple of the chunk of {}", frames,
          options.chunk_frames);
  const int64_t shared = options.per_chunk ? options.chunk_frames : frames;
  const int64_t count = options.terminal ? options.intervals : options.intervals - 1;
  const at::Tensor u = sample_uniform(frames / shared, batch, address, "consistency.interval");
  ConsistencyDraws draws;
  draws.noise = sample_noise(batch.latents, batch, address, "consistency.noise");
  // A float32 just below 1 times the count may round up to it.
  draws.interval = (u * count).to(at::kLong).clamp_max(count - 1).repeat_interleave(shared, 1);
  if (options.clean_first > 0) {
    const at::Tensor given =
        sample_uniform(1, batch, address, "consistency.given") < options.clean_first;
    draws.interval.narrow(1, 0, 1).masked_fill_(given, -1);
  }
  draws.text_kept = draw_text_kept(batch, address, "consistency.text", options.text_dropout);
  return draws;
}

ConsistencyTerms consistency_loss(const ConsistencyModels& models, const data::Batch& batch,
                                  const ConsistencyDraws& draws,
                                  const ConsistencyOptions& options) {
  const at::Tensor grid = grid_timesteps(options).to(batch.latents.device());
  const at::Tensor noised_frames = draws.interval >= 0;
  auto level_at = [&](const at::Tensor& index) {
    return grid.take(index.clamp_min(0)) * noised_frames;
  };
  const at::Tensor from = level_at(draws.interval), to = level_at(draws.interval + 1);
  auto sigma = [&](const at::Tensor& t) { return sigma_of(t, options.level) * noised_frames; };
  ConsistencyTerms terms;
  terms.from = {network_timestep(from, options.level), sigma(from)};
  terms.to = {network_timestep(to, options.level), sigma(to)};
  // Noised at the grid's own level, even where predictions look theirs up in a table.
  const at::Tensor exact = options.level.bfloat16_sigma ? terms.from.sigma : from / 1000;
  terms.noisy = noised(batch.latents, draws.noise, exact, options.level);

  models::ForwardInput input;
  input.latents = terms.noisy;
  input.timestep = terms.from.timestep;
  input.conditions = keep_text(batch.conditions, draws.text_kept, options.negative);
  input.clean_latents = batch.latents;
  input.chunk_frames = options.chunk_frames;
  {
    at::NoGradGuard constant;
    terms.teacher = guided_flow(models.teacher, input, options.negative, options.guidance);
    const at::Tensor step = diffusion::per_frame(step_size(from, to, options.level), terms.noisy);
    terms.stepped = terms.noisy + step.to(terms.noisy.scalar_type()) * terms.teacher.flow;
    models::ForwardInput next = input;
    next.latents = terms.stepped;
    next.timestep = terms.to.timestep;
    terms.target_x0 = clean_of(terms.stepped, models.average.forward(next), terms.to.sigma);
  }
  terms.student_x0 = clean_of(terms.noisy, models.student.forward(input), terms.from.sigma);
  const at::Tensor error = (terms.student_x0.to(at::kFloat) - terms.target_x0.to(at::kFloat))
                               .square()
                               .mean({2, 3, 4});  // [B, T]
  const at::Tensor counted = noised_frames.to(at::kFloat);
  terms.loss = ((error * counted).sum(1) / counted.sum(1).clamp_min(1)).mean();
  return terms;
}

Consistency::Consistency(std::shared_ptr<models::Backbone> student,
                         std::shared_ptr<models::Backbone> teacher,
                         std::shared_ptr<models::Backbone> average, ConsistencyOptions options)
    : student_(std::move(student)),
      teacher_(std::move(teacher)),
      average_(std::move(average)),
      options_(std::move(options)) {
  options_.check();
  TORCH_INTERNAL_ASSERT(student_ && teacher_ && average_ && average_ != student_,
                        "consistency needs a student, a teacher and a separate average");
  for (const auto& constant : {teacher_, average_}) {
    for (auto& p : constant->parameters()) {
      p.requires_grad_(false);
    }
  }
}

LossOutput Consistency::loss(size_t /*network*/, const data::Batch& batch,
                             const StepAddress& address) {
  const ConsistencyDraws draws = draw_consistency(batch, address, options_);
  return {consistency_loss({*student_, *teacher_, *average_}, batch, draws, options_).loss, {}};
}

}  // namespace minwm::stages
