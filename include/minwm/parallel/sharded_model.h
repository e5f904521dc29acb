#pragma once
// FSDP-style sharding of any model given as units: every rank keeps an equal slice of each unit's
// flattened parameters, gathers a unit for the moment it runs and reduces its gradients to slices
// again. Models do not know (they run units through nn::UnitRunner). Source: parallel.md section 3.
//
//   auto model = models::make_hollow_backbone("wan-1.3b");
//   auto sharded = std::make_shared<parallel::ShardedModel>("model", *model, model->units(), mesh,
//                                                           options);
//   model->set_unit_runner(sharded);
//   sharded->load(...);  // this rank's slices
//   sharded->begin_step();
//   for each micro-batch {
//     if (last) sharded->reduce_in_backward();
//     loss.backward();
//     sharded->end_backward();
//   }
//   sharded->finish_gradients();              // pieces()[i].gradient holds the sum over all ranks
//   … optimizer on pieces … ; sharded->weights_changed();

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/comm/mesh.h"
#include "minwm/nn/unit_runner.h"

namespace minwm::parallel {

struct ShardOptions {
  /// Type in which the units' matrices (parameters with two axes) travel and are used. Everything
  /// else (vectors, the root's parameters) travels in float32, so that a sharded forward is bit for
  /// bit the unsharded one.
  at::ScalarType compute = at::kFloat;
  /// False: no gradients, and slices of matrices are kept in the compute type.
  bool trained = true;
  /// Slices are float32 even if not trained: for a running average of trained weights.
  bool masters = false;
  /// Backward runs a unit again from its inputs; false keeps activations (but not weights).
  bool recompute = true;
  /// Units gathered ahead of their use; 0 = none.
  int64_t prefetch = 1;
  /// Reduce every micro-batch's gradients at once (least memory), or add them up unsharded and
  /// reduce once per step (one full float32 gradient more, less traffic).
  bool reduce_each = true;
  c10::Device device = c10::kCPU;  ///< where units run
  c10::Device home = c10::kCPU;    ///< where slices, their gradients and moments live
};

/// This rank's part of one parameter.
struct Piece {
  std::string name;            ///< of the parameter in the model
  std::vector<int64_t> shape;  ///< of the whole parameter
  int64_t begin = 0;           ///< first element in row-major order; values.numel() elements
  at::Tensor values;           ///< 1-D view of the master slice (float32; compute type if frozen)
  at::Tensor gradient;  ///< 1-D float32 view of the same elements' gradient; undefined if frozen
};

/// Every backward that goes through a unit adds to the gradients of its parameters, whatever it was
/// asked for; there are no second derivatives. All calls come in the same order on all ranks.
class ShardedModel : public nn::UnitRunner, public std::enable_shared_from_this<ShardedModel> {
 public:
  /// Takes the parameters of `root` and its `units` over (they become views of gathered buffers);
  /// their present values are kept unless they are hollow. Equal on all ranks of the mesh. `name`
  /// is for messages.
  /// @throws Error if a parameter belongs to two units.
  ShardedModel(std::string name, torch::nn::Module& root,
               const std::vector<std::shared_ptr<torch::nn::Module>>& units, const comm::Mesh& mesh,
               const ShardOptions& options);
  ~ShardedModel() override;

  std::shared_ptr<void> begin() override;
  nn::Tensors run(size_t index, const nn::UnitFunction& function,
                  const nn::Tensors& inputs) override;
  bool recomputes() const override;

  const std::string& name() const;
  const ShardOptions& options() const;
  /// In the model's order of parameters; those of which this rank holds nothing have no values.
  const std::vector<Piece>& pieces() const;
  /// Fills the slices: `read(name, begin, count)` gives those elements of a parameter, 1-D.
  void load(
      const std::function<at::Tensor(const std::string& name, int64_t begin, int64_t count)>& read);
  /// After the pieces' values were changed (optimizer, swap of averages).
  void weights_changed();
  /// A whole parameter on every rank (collective). For export, tests and digests.
  at::Tensor gather_parameter(const std::string& name) const;

  /// Gradients to zero.
  void begin_step();
  /// With reduce_each = false: the next backward is the step's last.
  void reduce_in_backward();
  /// After every backward(), of frozen models too if their forward was recorded: gives back what a
  /// graph kept gathered (the root, units whose inputs want no gradient) and reduces what is left.
  /// No graph recorded before may go through backward afterwards.
  void end_backward();
  /// Sum over all data and context ranks in every piece's gradient (collective over `gradients`,
  /// then `replicate`). @throws Error (assert_idle) if anything is still gathered or under way.
  void finish_gradients();
  /// Whether a parameter got a gradient in this step (the same on all ranks).
  bool touched(const std::string& name) const;
  /// @throws Error naming the unit that is gathered, or whose collective is pending.
  void assert_idle() const;

  /// Bytes of this rank's slices, gradients and of the largest gathered state so far.
  struct Bytes {
    int64_t slices = 0, gradients = 0, gathered_peak = 0;
  };
  Bytes bytes() const;
  /// Gathers and reductions started so far (one per unit and type, see `compute`).
  struct Calls {
    int64_t gathers = 0, reductions = 0;
  };
  Calls calls() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::parallel
