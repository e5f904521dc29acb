#pragma once
// What of a network's weights a rank trains, and how its gradients become those of the global
// batch. All the training loop knows of how a network is spread over ranks.
//
//   weights.begin_step();
//   for each micro-batch: { if (last) weights.reduce_in_backward(); (loss * share).backward();
//                           weights.end_backward(); }
//   weights.finish_gradients();
//   … change the values … weights.changed();

#include <memory>
#include <vector>

#include <torch/torch.h>

#include "minwm/comm/mesh.h"
#include "minwm/models/backbone.h"
#include "minwm/train/optimizer.h"

namespace minwm::train {

class TrainedWeights {
 public:
  virtual ~TrainedWeights() = default;
  /// This rank's values, each with its gradient once finish_gradients() was called: whole
  /// parameters, or 1-D pieces of them (which may be empty). A parameter that got no gradient in a
  /// step has none.
  virtual const NamedParameters& parameters() const = 0;
  /// For each of parameters(): what it is a piece of.
  virtual const std::vector<Place>& places() const = 0;
  /// False: every rank has all of every parameter.
  virtual bool sharded() const = 0;
  /// Whether this rank writes its pieces into checkpoints (one of several replicas does).
  virtual bool writes() const = 0;

  /// Sets all gradients to zero.
  virtual void begin_step() = 0;
  /// The next backward is the step's last: what it completes may be reduced at once.
  virtual void reduce_in_backward() = 0;
  virtual void end_backward() = 0;
  /// Gradients of all ranks summed (collective).
  virtual void finish_gradients() = 0;
  /// After values were changed.
  virtual void changed() = 0;
  /// Ranks that share an optimizer's work: those with the pieces of one copy, or, where every rank
  /// has all, those with equal gradients. Null if there is one.
  virtual std::shared_ptr<comm::Communicator> helpers() const = 0;
};

/// By what runs the model's units: a ShardedModel, or every rank has all weights.
std::unique_ptr<TrainedWeights> make_trained_weights(models::Backbone& model,
                                                     const comm::Mesh& mesh);

/// The values of a network that is not trained (an average), as parameters() gives them.
NamedParameters held_values(models::Backbone& model);

}  // namespace minwm::train
