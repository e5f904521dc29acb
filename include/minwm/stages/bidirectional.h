#pragma once

#include "minwm/stages/flow_loss.h"

namespace minwm::stages {

/// Phase 1: camera-controllable bidirectional fine-tuning; one noise level per clip (spec stages
/// 5).
class Bidirectional : public Stage {
 public:
  Bidirectional(std::shared_ptr<models::Backbone> model, FlowOptions options)
      : model_(std::move(model)), options_(std::move(options)) {}
  std::string name() const override { return "bidirectional"; }
  std::vector<Network> networks() const override { return {{"model", model_, nullptr}}; }
  LossOutput loss(size_t /*network*/, const data::Batch& batch,
                  const StepAddress& address) override {
    return {
        flow_loss(*model_, batch, draw_flow(batch, address, options_, false), options_, false).loss,
        {}};
  }

 private:
  std::shared_ptr<models::Backbone> model_;
  FlowOptions options_;
};

}  // namespace minwm::stages
