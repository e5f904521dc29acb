#pragma once
// A model whose tokens, and perhaps weights, are spread over ranks against the same model on one.

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "context_meshes.h"
#include "minwm/models/backbone.h"
#include "minwm/parallel/sharded_model.h"

namespace minwm::parallel::testing {

/// The same model whenever it is called.
using MakeModel = std::function<std::shared_ptr<models::Backbone>()>;
/// Gives values that are alike on all ranks, and has called backward if there is a loss.
using Compute = std::function<std::vector<at::Tensor>(models::Backbone&)>;

/// What a computation came to: its values, and gradients of parameters (summed over ranks).
struct Outcome {
  std::vector<at::Tensor> values;
  std::map<std::string, at::Tensor> gradients;
};

inline Outcome run_on(const NamedContext* ranks, const MakeModel& make, bool recompute,
                      const Compute& compute) {
  const auto model = make();
  model->set_activation_checkpointing(recompute);
  if (ranks != nullptr) {
    model->set_context(ranks->context);
  }
  Outcome outcome;
  outcome.values = compute(*model);
  for (const auto& item : model->named_parameters()) {
    const at::Tensor& parameter = item.value();
    const at::Tensor gradient =
        parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
    outcome.gradients[item.key()] = ranks != nullptr ? summed(*ranks, gradient) : gradient;
  }
  return outcome;
}

/// The same with the weights spread over the same ranks, gathered unit by unit.
inline Outcome run_sharded_on(const NamedContext& ranks, const MakeModel& make, bool recompute,
                              const Compute& compute) {
  const auto model = make();
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& item : model->named_parameters()) {
    shapes[item.key()] = item.value().sizes().vec();
  }
  ShardOptions options;
  options.recompute = recompute;
  const auto sharded =
      std::make_shared<ShardedModel>("model", *model, model->units(), ranks.mesh, options);
  model->set_unit_runner(sharded);
  model->set_context(ranks.context);
  sharded->begin_step();
  sharded->reduce_in_backward();
  Outcome outcome;
  outcome.values = compute(*model);
  sharded->end_backward();
  sharded->finish_gradients();
  for (const auto& [name, shape] : shapes) {
    at::Tensor whole = at::zeros(shape).flatten();
    for (const auto& piece : sharded->pieces()) {
      if (piece.name == name) {
        whole.narrow(0, piece.begin, piece.values.numel()).copy_(piece.gradient);
      }
    }
    outcome.gradients[name] = summed(ranks, whole).view(shape);
  }
  return outcome;
}

struct Difference {
  /// Of a value relative to its largest entry, of gradients to the largest of all (some are zero
  /// but for rounding).
  double largest = 0;
  /// Of a parameter's gradient relative to its own norm, norms below 1e-3 of the largest
  /// parameter's taken for that: what is small in the whole may still be wrong.
  double by_tensor = 0;
  std::string tensor;
};

inline Difference difference(const NamedContext& ranks, const Outcome& ours,
                             const Outcome& reference) {
  Difference found;
  for (size_t i = 0; i < ours.values.size(); ++i) {
    found.largest = std::max(
        found.largest, distance(ranks, ours.values[i], reference.values[i], reference.values[i]));
  }
  double floor = 0;
  std::vector<at::Tensor> mine, theirs;
  for (const auto& [name, gradient] : reference.gradients) {
    floor = std::max(floor, 1e-3 * gradient.norm().item<double>());
    mine.push_back(ours.gradients.at(name).flatten());
    theirs.push_back(gradient.flatten());
  }
  if (floor == 0) {
    return found;  // no loss
  }
  const at::Tensor whole = at::cat(theirs);
  found.largest = std::max(found.largest, distance(ranks, at::cat(mine), whole, whole));
  for (const auto& [name, gradient] : reference.gradients) {
    const double error = (ours.gradients.at(name) - gradient).norm().item<double>() /
                         std::max(floor, gradient.norm().item<double>());
    if (error > found.by_tensor) {
      found.by_tensor = error;
      found.tensor = name;
    }
  }
  return found;
}

constexpr double kTolerance = 1e-5, kToleranceByTensor = 1e-4;

inline void expect_small(const Difference& found, const std::string& where) {
  EXPECT_LE(found.largest, kTolerance) << where;
  EXPECT_LE(found.by_tensor, kToleranceByTensor) << where << ", " << found.tensor;
  if (minwm::testing::world().rank() == 0) {
    std::printf("  %s: %.1e of max, %.1e by tensor\n", where.c_str(), found.largest,
                found.by_tensor);
  }
}

inline void expect_as_on_one_rank(const MakeModel& make, const Compute& compute,
                                  const std::vector<bool>& recomputes = {false, true}) {
  for (const bool recompute : recomputes) {
    const Outcome reference = run_on(nullptr, make, recompute, compute);
    for (const auto& ranks : contexts()) {
      expect_small(difference(ranks, run_on(&ranks, make, recompute, compute), reference),
                   ranks.name + (recompute ? ", recomputed" : ""));
    }
  }
}

inline void expect_sharding_changes_nothing(const MakeModel& make, const Compute& compute) {
  const Outcome reference = run_on(nullptr, make, false, compute);
  for (const auto& ranks : contexts()) {
    for (const bool recompute : {false, true}) {
      expect_small(difference(ranks, run_sharded_on(ranks, make, recompute, compute), reference),
                   "sharded, " + ranks.name + (recompute ? ", recomputed" : ""));
    }
  }
}

}  // namespace minwm::parallel::testing
