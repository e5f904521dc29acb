#pragma once
// Networks on a run's ranks: whole on every rank, or spread over the ranks of a copy.

#include <memory>
#include <string>
#include <vector>

#include "minwm/comm/mesh.h"
#include "minwm/models/backbone.h"
#include "minwm/models/state.h"

namespace minwm {
class Options;
}

namespace minwm::apps {

struct ShardingOptions {
  int64_t prefetch = 1;         ///< units gathered ahead
  std::string reduce = "each";  ///< gradients: each micro-batch, or the last of a step
  /// What lives in host memory: "optimizer" (slices of trained networks with gradients, moments and
  /// averages), "teacher" (slices of frozen ones).
  std::vector<std::string> offload;
  bool offloads(const std::string& what) const;
  void declare(Options& options);  ///< section "parallel"
  void check() const;
};

/// What a network is for, which decides how its slices are kept.
enum class Role {
  kTrained,   ///< float32 masters and gradients
  kAveraged,  ///< float32, no gradients: the running average of a trained one
  kFrozen,    ///< in the compute type
};

class ModelFactory {
 public:
  struct Setup {
    comm::Mesh mesh;
    c10::Device device = c10::kCPU;
    at::ScalarType compute = at::kFloat;
    bool recompute = false;
    uint64_t seed = 0;
    bool hollow = false;  ///< shapes only, for a dry run
    models::StreamSwitches switches = {};
    ShardingOptions sharding;
  };
  explicit ModelFactory(Setup setup) : setup_(std::move(setup)) {}

  /// A network of a preset with the weights of `source`, or its initial ones if that is null.
  std::shared_ptr<models::Backbone> make(const std::string& preset, Role role,
                                         const models::ParameterSource* source = nullptr) const;
  /// The same with the weights at `path` (weights_of), which may differ from the model's as far as
  /// `allowed` says; says how many do.
  std::shared_ptr<models::Backbone> make_from(const std::string& path, const std::string& preset,
                                              Role role, const models::Allowance& allowed) const;
  /// The same without weights, for one that a checkpoint fills later.
  std::shared_ptr<models::Backbone> make_empty(const std::string& preset, Role role) const;
  const Setup& setup() const { return setup_; }

 private:
  Setup setup_;
};

/// Weights of a checkpoint or run folder (averaged, where there are such), or of a safetensors file
/// with the model's names or those of diffusers (hy). The source keeps the file open. Collective
/// over the mesh: ranks that read parts of a checkpoint check all of it together first. @throws
/// Error if it is damaged, or of another model than `preset` (empty: of any).
models::ParameterSource weights_of(const std::string& path, const std::string& preset,
                                   const comm::Mesh& mesh);

}  // namespace minwm::apps
