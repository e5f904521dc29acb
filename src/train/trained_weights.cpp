#include "minwm/train/trained_weights.h"

#include "minwm/models/state.h"
#include "minwm/train/data_parallel.h"

namespace minwm::train {
namespace {

/// Weights spread over the ranks of one copy.
class ShardedWeights : public TrainedWeights {
 public:
  ShardedWeights(std::shared_ptr<parallel::ShardedModel> model, const comm::Mesh& mesh)
      : model_(std::move(model)), mesh_(mesh) {
    for (const auto& piece : model_->pieces()) {
      parameters_.emplace_back(piece.name, piece.values);
      places_.push_back({piece.shape, piece.begin});
    }
  }

  const NamedParameters& parameters() const override { return parameters_; }
  const std::vector<Place>& places() const override { return places_; }
  bool sharded() const override { return true; }
  bool writes() const override { return mesh_.replicate->rank() == 0; }
  void begin_step() override { model_->begin_step(); }
  void reduce_in_backward() override { model_->reduce_in_backward(); }
  void end_backward() override { model_->end_backward(); }
  void finish_gradients() override {
    model_->finish_gradients();
    const auto& pieces = model_->pieces();
    for (size_t i = 0; i < pieces.size(); ++i) {
      at::Tensor gradient = model_->touched(pieces[i].name) ? pieces[i].gradient : at::Tensor();
      parameters_[i].second.mutable_grad() = gradient;
    }
  }
  void changed() override { model_->weights_changed(); }
  std::shared_ptr<comm::Communicator> helpers() const override { return mesh_.gradients; }

 private:
  std::shared_ptr<parallel::ShardedModel> model_;
  comm::Mesh mesh_;
  NamedParameters parameters_;
  std::vector<Place> places_;
};

}  // namespace

std::unique_ptr<TrainedWeights> make_trained_weights(models::Backbone& model,
                                                     const comm::Mesh& mesh) {
  if (auto sharded = models::sharded_runner(model)) {
    return std::make_unique<ShardedWeights>(std::move(sharded), mesh);
  }
  return std::make_unique<DataParallel>(mesh, named_parameters(model));
}

NamedParameters held_values(models::Backbone& model) {
  const auto sharded = models::sharded_runner(model);
  if (!sharded) {
    return named_parameters(model);
  }
  NamedParameters values;
  for (const auto& piece : sharded->pieces()) {
    values.emplace_back(piece.name, piece.values);
  }
  return values;
}

}  // namespace minwm::train
