#include "minwm/train/plan.h"

#include <cstdlib>
#include <thread>

#include <spdlog/spdlog.h>

#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::train {

void TrainOptions::declare(Options& options) {
  options.add("train.steps", &steps, "optimizer steps");
  options.add("train.global_batch", &global_batch, "clips per step, all ranks together");
  options.add("train.micro_batch", &micro_batch,
              "clips per forward of a rank; 0 = all it has in a step");
  options.add_choice("train.compute", &compute, {"auto", "float32", "bfloat16"},
                     "type of matrix products and attention");
  options.add("train.threads", &threads,
              "threads per rank; 0 = OMP_NUM_THREADS, or the cores shared out");
  options.add("train.recompute", &recompute,
              "recompute blocks in backward: less memory, a third more work");
}

std::string BatchPlan::text() const {
  return fmt::format("{} clips per step = {} data rank(s) x {} micro-batch(es) of {}",
                     data_ranks * per_rank, data_ranks, accumulation, micro_batch);
}

BatchPlan plan_batch(const TrainOptions& options, int64_t data_ranks) {
  require(options.steps >= 1, "train.steps {}: expected 1 or more", options.steps);
  require(options.global_batch >= 1, "train.global_batch {}: expected 1 or more",
          options.global_batch);
  require(options.global_batch % data_ranks == 0,
          "train.global_batch {} does not divide by {} data ranks", options.global_batch,
          data_ranks);
  BatchPlan plan;
  plan.data_ranks = data_ranks;
  plan.per_rank = options.global_batch / data_ranks;
  require(options.micro_batch >= 0, "train.micro_batch {}: expected 1 or more, or 0",
          options.micro_batch);
  plan.micro_batch = options.micro_batch == 0 ? plan.per_rank : options.micro_batch;
  require(plan.per_rank % plan.micro_batch == 0,
          "train.micro_batch {}: does not divide the {} clips of a rank (train.global_batch {} on "
          "{} data ranks)",
          plan.micro_batch, plan.per_rank, options.global_batch, data_ranks);
  plan.accumulation = plan.per_rank / plan.micro_batch;
  return plan;
}

at::ScalarType compute_type(const std::string& name, const c10::Device& device) {
  if (name == "auto") {
    return has_native_bfloat16(device) ? at::kBFloat16 : at::kFloat;
  }
  require(name == "float32" || name == "bfloat16",
          "train.compute '{}': expected auto, float32 or bfloat16", name);
  if (name == "bfloat16" && !has_native_bfloat16(device)) {
    spdlog::warn("train.compute bfloat16: this CPU emulates it; float32 is faster");
  }
  return name == "float32" ? at::kFloat : at::kBFloat16;
}

int64_t thread_count(int64_t option, int64_t ranks) {
  require(option >= 0, "train.threads {}: expected 1 or more, or 0", option);
  if (option > 0) {
    return option;
  }
  if (std::getenv("OMP_NUM_THREADS") != nullptr) {
    return at::get_num_threads();
  }
  return std::max<int64_t>(1, static_cast<int64_t>(std::thread::hardware_concurrency()) / ranks);
}

}  // namespace minwm::train
