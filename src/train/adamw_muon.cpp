// The update rules. Both keep their moments by parameter name, so a checkpoint does not depend on
// order.

#include "minwm/core/error.h"
#include "minwm/train/optimizer.h"

namespace minwm::train {
namespace {

struct Slot {
  std::string name;
  at::Tensor parameter, first, second;  // second: AdamW only
};

void read_moment(const std::map<std::string, at::Tensor>& state, const std::string& name,
                 at::Tensor& moment) {
  const auto found = state.find(name);
  require(found != state.end(), "optimizer state: lacks '{}'", name);
  require(found->second.sizes() == moment.sizes(),
          "optimizer state: '{}' has shape {}, expected {}", name, c10::str(found->second.sizes()),
          c10::str(moment.sizes()));
  moment.copy_(found->second);
}

/// AdamW; with `reference_rule` the variant that adds eps before the bias correction.
class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerOptions& options, const NamedParameters& parameters, bool reference_rule)
      : options_(options), reference_rule_(reference_rule) {
    for (const auto& [name, p] : parameters) {
      slots_.push_back({name, p, at::zeros_like(p), at::zeros_like(p)});
    }
  }

  void step(double lr) override {
    at::NoGradGuard no_grad;
    ++count_;
    std::vector<at::Tensor> p, g, m, v;
    for (auto& slot : slots_) {
      if (slot.parameter.grad().defined()) {
        p.push_back(slot.parameter);
        g.push_back(slot.parameter.grad());
        m.push_back(slot.first);
        v.push_back(slot.second);
      }
    }
    if (p.empty()) {
      return;
    }
    const double k = static_cast<double>(count_), b1 = options_.beta1, b2 = options_.beta2;
    const double correction1 = 1 - std::pow(b1, k), correction2 = std::sqrt(1 - std::pow(b2, k));
    at::_foreach_mul_(p, 1 - lr * options_.weight_decay);
    at::_foreach_lerp_(m, g, 1 - b1);
    at::_foreach_mul_(v, b2);
    at::_foreach_addcmul_(v, g, g, 1 - b2);
    auto root = at::_foreach_sqrt(v);
    if (!reference_rule_) {
      at::_foreach_div_(root, correction2);
    }
    at::_foreach_add_(root, options_.eps);
    at::_foreach_addcdiv_(p, m, root, -lr * (reference_rule_ ? correction2 : 1) / correction1);
  }

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> out{{"step", at::tensor(count_, at::kLong)}};
    for (const auto& slot : slots_) {
      out[slot.name + "/exp_avg"] = slot.first;
      out[slot.name + "/exp_avg_sq"] = slot.second;
    }
    return out;
  }

  void load_state(const std::map<std::string, at::Tensor>& state) override {
    for (auto& slot : slots_) {
      read_moment(state, slot.name + "/exp_avg", slot.first);
      read_moment(state, slot.name + "/exp_avg_sq", slot.second);
    }
    const auto count = state.find("step");
    require(count != state.end(), "optimizer state: lacks 'step'");
    count_ = count->second.item<int64_t>();
  }

 private:
  OptimizerOptions options_;
  bool reference_rule_;
  int64_t count_ = 0;
  std::vector<Slot> slots_;
};

class Muon : public Optimizer {
 public:
  Muon(const OptimizerOptions& options, const NamedParameters& parameters,
       std::shared_ptr<comm::Communicator> ranks)
      : options_(options), ranks_(std::move(ranks)) {
    NamedParameters rest;
    for (const auto& [name, p] : parameters) {
      // Modulations are [1, n, E]: vectors that happen to have axes.
      const bool matrix = p.dim() >= 2 && p.size(0) >= options.muon_min_side &&
                          p.numel() / p.size(0) >= options.muon_min_side;
      if (matrix) {
        slots_.push_back({name, p, at::zeros_like(p), {}});
      } else {
        rest.emplace_back(name, p);
      }
    }
    vectors_ = std::make_unique<AdamW>(options, rest, options.muon_one_dim_rule);
  }

  void step(double lr) override {
    at::NoGradGuard no_grad;
    // Matrices of one shape go through Newton-Schulz together.
    std::map<std::pair<int64_t, int64_t>, Group> groups;
    for (auto& slot : slots_) {
      if (slot.parameter.grad().defined()) {
        const at::Tensor& p = slot.parameter;
        groups[{p.size(0), p.numel() / p.size(0)}].slots.push_back(&slot);
      }
    }
    for (auto& [shape, group] : groups) {
      orthogonalise(group, shape.first, shape.second);
    }
    vectors_->step(lr);
    for (auto& [shape, group] : groups) {
      apply(group, lr);
    }
  }

  std::map<std::string, at::Tensor> state() const override {
    auto out = vectors_->state();
    for (const auto& slot : slots_) {
      out[slot.name + "/momentum"] = slot.first;
    }
    return out;
  }

  void load_state(const std::map<std::string, at::Tensor>& state) override {
    vectors_->load_state(state);
    for (auto& slot : slots_) {
      read_moment(state, slot.name + "/momentum", slot.first);
    }
  }

 private:
  struct Group {
    std::vector<Slot*> slots;
    at::Tensor update;                   // [at least slots, rows, cols]
    std::unique_ptr<comm::Work> gather;  // of `update`, where ranks share the work
  };

  /// This rank's share of the group's updates; starts to gather the rest.
  void orthogonalise(Group& group, int64_t rows, int64_t cols) {
    const auto n = static_cast<int64_t>(group.slots.size());
    const int64_t ranks = ranks_ ? ranks_->size() : 1;
    const int64_t share = (n + ranks - 1) / ranks;
    const int64_t first = ranks_ ? std::min(n, ranks_->rank() * share) : 0;
    const int64_t mine = std::min(share, n - first);
    const auto options = group.slots[0]->first.options();
    const at::Tensor looked_ahead =
        at::empty({mine, rows, cols}, options);  // Nesterov: g + momentum * buffer
    for (int64_t i = 0; i < n; ++i) {
      const Slot& slot = *group.slots[static_cast<size_t>(i)];
      const at::Tensor& gradient = slot.parameter.grad();
      slot.first.mul_(options_.muon_momentum).add_(gradient);
      if (i >= first && i < first + mine) {
        at::Tensor target = looked_ahead[i - first];
        at::add_out(target, gradient.view({rows, cols}), slot.first.view({rows, cols}),
                    options_.muon_momentum);
      }
    }
    at::Tensor update;
    if (mine > 0) {
      update = newton_schulz(looked_ahead, options_.muon_bf16).contiguous();
    }
    if (ranks == 1) {
      group.update = update;
      return;
    }
    at::Tensor padded = at::zeros({share, rows, cols}, options);
    if (mine > 0) {
      padded.narrow(0, 0, mine).copy_(update);
    }
    group.update = at::empty({share * ranks, rows, cols}, padded.options());
    group.gather = ranks_->all_gather_async(padded.view(-1), group.update.view(-1), "muon update");
  }

  void apply(Group& group, double lr) {
    if (group.gather) {
      group.gather->wait();
    }
    for (size_t i = 0; i < group.slots.size(); ++i) {
      const at::Tensor& p = group.slots[i]->parameter;
      // The first two axes of the original shape, not of the flattened matrix.
      const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(p.size(0), p.size(1))));
      p.mul_(1 - lr * options_.weight_decay)
          .add_(group.update[static_cast<int64_t>(i)].view(p.sizes()), -lr * scale);
    }
  }

  OptimizerOptions options_;
  std::shared_ptr<comm::Communicator> ranks_;
  std::vector<Slot> slots_;
  std::unique_ptr<AdamW> vectors_;
};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          NamedParameters parameters,
                                          std::shared_ptr<comm::Communicator> ranks) {
  if (options.name == "adamw") {
    return std::make_unique<AdamW>(options, parameters, false);
  }
  require(options.name == "muon", "optimizer '{}': expected adamw or muon", options.name);
  return std::make_unique<Muon>(options, parameters, std::move(ranks));
}

}  // namespace minwm::train
