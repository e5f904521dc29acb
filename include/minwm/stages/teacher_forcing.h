#pragma once

#include "minwm/stages/flow_loss.h"

namespace minwm::stages {

/// Stage 1: autoregressive diffusion with the clean past given; one noise level per chunk (spec
/// stages 6).
class TeacherForcing : public Stage {
 public:
  TeacherForcing(std::shared_ptr<models::Backbone> model, FlowOptions options)
      : model_(std::move(model)), options_(std::move(options)) {}
  std::string name() const override { return "teacher-forcing"; }
  std::vector<Network> networks() const override { return {{"model", model_, nullptr}}; }
  LossOutput loss(size_t /*network*/, const data::Batch& batch,
                  const StepAddress& address) override {
    return {
        flow_loss(*model_, batch, draw_flow(batch, address, options_, true), options_, true).loss,
        {}};
  }

 private:
  std::shared_ptr<models::Backbone> model_;
  FlowOptions options_;
};

}  // namespace minwm::stages
