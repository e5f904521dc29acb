// The update rules. Both keep their moments by parameter name, so a checkpoint does not depend on
// order.

#include "matrix_exchange.h"
#include "minwm/core/error.h"
#include "minwm/train/optimizer.h"

namespace minwm::train {
namespace {

struct Slot {
  std::string name;
  at::Tensor parameter, first, second;  // second: AdamW only
  std::vector<int64_t> shape;           // Muon only: of the whole parameter
  int64_t rows() const { return shape[0]; }
  int64_t columns() const { return c10::multiply_integers(shape.begin() + 1, shape.end()); }
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
      slots_.push_back({name, p, at::zeros_like(p), at::zeros_like(p), {}});
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
  Muon(const OptimizerOptions& options, const NamedParameters& parameters, const Spread& spread)
      : options_(options) {
    NamedParameters rest;
    std::vector<MatrixExchange::Piece> pieces;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& [name, p] = parameters[i];
      Slot slot{name, p, {}, {}, spread.places.empty() ? p.sizes().vec() : spread.places[i].shape};
      // Modulations are [1, n, E]: vectors that happen to have axes.
      const bool matrix = slot.shape.size() >= 2 && slot.rows() >= options.muon_min_side &&
                          slot.columns() >= options.muon_min_side;
      if (!matrix) {
        rest.emplace_back(name, p);
        continue;
      }
      slot.first = at::zeros_like(p);
      if (!spread.places.empty()) {
        pieces.push_back({slot.rows() * slot.columns(), spread.places[i].begin, p.numel()});
      }
      slots_.push_back(std::move(slot));
    }
    vectors_ = std::make_unique<AdamW>(options, rest, options.muon_one_dim_rule);
    if (!spread.places.empty()) {
      exchange_ = std::make_unique<MatrixExchange>(
          std::move(pieces), spread.ranks,
          slots_.empty() ? at::TensorOptions(at::kFloat) : slots_.front().parameter.options());
    } else {
      ranks_ = spread.ranks;
    }
  }

  void step(double lr) override {
    at::NoGradGuard no_grad;
    for (auto& slot : slots_) {
      if (slot.parameter.grad().defined()) {
        slot.first.mul_(options_.muon_momentum).add_(slot.parameter.grad());
      }
    }
    exchange_ ? step_pieces(lr) : step_whole(lr);
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

  void step_whole(double lr) {
    // Matrices of one shape go through Newton-Schulz together.
    std::map<std::pair<int64_t, int64_t>, Group> groups;
    for (auto& slot : slots_) {
      if (slot.parameter.grad().defined()) {
        groups[{slot.rows(), slot.columns()}].slots.push_back(&slot);
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

  /// Matrices whose pieces are on several ranks: each is orthogonalised where it is brought
  /// together.
  void step_pieces(double lr) {
    std::vector<at::Tensor> pieces;
    for (const auto& slot : slots_) {
      const at::Tensor& gradient = slot.parameter.grad();
      pieces.push_back(gradient.defined() ? gradient + options_.muon_momentum * slot.first
                                          : at::Tensor());
    }
    auto owned = exchange_->bring_together(pieces);
    std::map<std::pair<int64_t, int64_t>, std::vector<size_t>> shapes;
    for (const auto& [index, matrix] : owned) {
      shapes[{slots_[index].rows(), slots_[index].columns()}].push_back(index);
    }
    for (const auto& [shape, indices] : shapes) {
      std::vector<at::Tensor> matrices;
      for (const size_t index : indices) {
        matrices.push_back(owned[index].view({shape.first, shape.second}));
      }
      const at::Tensor updates = newton_schulz(at::stack(matrices), options_.muon_bf16);
      for (size_t i = 0; i < indices.size(); ++i) {
        owned[indices[i]] = updates[static_cast<int64_t>(i)].reshape(-1);
      }
    }
    const auto updates = exchange_->hand_back(owned, pieces);
    vectors_->step(lr);
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (updates[i].defined()) {
        move(slots_[i], updates[i], lr);
      }
    }
  }

  void move(Slot& slot, const at::Tensor& update, double lr) const {
    // The first two axes of the original shape, not of the flattened matrix.
    const double scale =
        0.2 * std::sqrt(static_cast<double>(std::max(slot.shape[0], slot.shape[1])));
    slot.parameter.mul_(1 - lr * options_.weight_decay).add_(update, -lr * scale);
  }

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
    for (int64_t i = first; i < first + mine; ++i) {
      const Slot& slot = *group.slots[static_cast<size_t>(i)];
      at::Tensor target = looked_ahead[i - first];
      at::add_out(target, slot.parameter.grad().view({rows, cols}), slot.first.view({rows, cols}),
                  options_.muon_momentum);
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
      Slot& slot = *group.slots[i];
      move(slot, group.update[static_cast<int64_t>(i)].view(slot.parameter.sizes()), lr);
    }
  }

  OptimizerOptions options_;
  std::shared_ptr<comm::Communicator> ranks_;  // with copies of everything
  std::unique_ptr<MatrixExchange> exchange_;   // where matrices are in pieces
  std::vector<Slot> slots_;
  std::unique_ptr<AdamW> vectors_;
};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          NamedParameters parameters, const Spread& spread) {
  if (options.name == "adamw") {
    return std::make_unique<AdamW>(options, parameters, false);
  }
  require(options.name == "muon", "optimizer '{}': expected adamw or muon", options.name);
  return std::make_unique<Muon>(options, parameters, spread);
}

}  // namespace minwm::train
