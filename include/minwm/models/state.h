#pragma once
// Weights into models, strictly by name.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/backbone.h"
#include "minwm/parallel/sharded_model.h"

namespace minwm::models {

/// Copies tensors into a module's parameters by name, strictly: a missing, extra or mis-shaped
/// tensor is an Error that names it and `where` (file). Values are converted to the parameter's
/// type.
void load_state(torch::nn::Module& module, const std::map<std::string, at::Tensor>& tensors,
                const std::string& where);

/// Weights that can be read in parts, so that no rank needs more than its own.
struct ParameterSource {
  std::string where;  ///< for messages: a file
  std::map<std::string, std::vector<int64_t>> shapes;
  /// Elements [begin, begin + count) of a parameter in row-major order, 1-D.
  std::function<at::Tensor(const std::string& name, int64_t begin, int64_t count)> read;
};

/// Where a source and a model may differ; patterns are parts of parameter names.
struct Allowance {
  std::vector<std::string> missing;  ///< what the source may lack: it keeps its initial values
  std::vector<std::string> extra;    ///< what the model need not know: it is not read
  bool none() const { return missing.empty() && extra.empty(); }
};

/// A source made fit for a model as far as that is allowed, and the names this took.
struct CompletedSource {
  ParameterSource source;
  std::vector<std::string> initial, ignored;
};

/// `source` with the values of `initial` (initial_parameters) for what it lacks and may lack, and
/// without what it has too much and may have. Any other difference stays: load_parameters names it.
CompletedSource complete(const ParameterSource& source, const ParameterSource& initial,
                         const Allowance& allowed);

/// What runs the model's units if its weights are spread over ranks, else null.
std::shared_ptr<parallel::ShardedModel> sharded_runner(const Backbone& model);

/// The weights of a source into a model, as strictly as load_state: whole parameters, or a sharded
/// model's pieces.
void load_parameters(Backbone& model, const ParameterSource& source);

/// The values that the model itself starts with (Backbone::initialise). Reads whole parameters, one
/// at a time.
ParameterSource initial_parameters(const Backbone& model, uint64_t seed);

}  // namespace minwm::models
