#pragma once
// What a sharded model holds: its units' flat buffers, which of them are gathered, and the
// reductions under way. Graphs keep it alive. All calls come in the same order on all ranks.

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "flat_buffer.h"

namespace minwm::parallel {

/// The parameters that are gathered and reduced together: matrices in the compute type, the rest in
/// float32.
struct FlatUnit {
  std::string name;
  std::vector<std::unique_ptr<FlatBuffer>> buffers;
  std::vector<at::Tensor> trained;  ///< parameters that want a gradient
  int64_t uses = 0;                 ///< who needs it gathered now
  bool ahead = false;               ///< gathered for a use that is still to come
  int64_t pending = 0;              ///< recorded calls whose backward is still to come
};

/// The units that a recorded forward ran, in order: its backward goes through them the other way.
using RunOrder = std::vector<size_t>;

class ShardState : public std::enable_shared_from_this<ShardState> {
 public:
  ShardState(std::string name, comm::Mesh mesh, const ShardOptions& options);
  ~ShardState();
  ShardState(const ShardState&) = delete;
  ShardState& operator=(const ShardState&) = delete;

  std::string name;
  comm::Mesh mesh;
  ShardOptions options;
  GatherCount count;
  std::vector<FlatUnit> units;
  FlatUnit root;
  std::vector<Piece> pieces;
  /// Of the forward that is being recorded.
  std::shared_ptr<RunOrder> order = std::make_shared<RunOrder>();
  bool reduce_now = false;  ///< reduce_in_backward() was called

  /// Makes the buffers of `unit` from its parameters.
  void take(FlatUnit& unit, std::vector<FlatEntry> entries, at::ScalarType matrices);
  /// action(buffer) for every buffer, in one fixed order.
  template <class Action>
  void each_buffer(const Action& action) const {
    each_unit([&](const FlatUnit& unit) {
      for (const auto& buffer : unit.buffers) {
        action(*buffer);
      }
    });
  }

  /// The root's parameters in place until the handle goes; under gradients until end_backward().
  std::shared_ptr<void> begin();

  /// Gathers a unit for one more use; it is given back with the last.
  void acquire(FlatUnit& unit);
  void release(FlatUnit& unit);
  /// Exactly these units are gathered ahead from now on.
  void gather_ahead(const std::vector<size_t>& wanted);
  /// The units after `index` that a forward needs next; before `position` of a backward.
  std::vector<size_t> following(size_t index) const;
  std::vector<size_t> preceding(const RunOrder& run, size_t position) const;

  /// A recorded call of the unit is through its backward. Starts the reduction if it is due.
  void backward_done(FlatUnit& unit);
  /// Waits for the reduction under way, if any: memory for another flat gradient.
  void finish_reductions();
  /// A unit to release in end_backward() if its backward does not do so itself.
  void release_at_end(std::function<void()> close) { closers_.push_back(std::move(close)); }
  void end_backward();
  void finish_gradients();
  void assert_idle() const;

 private:
  struct Pending {
    FlatUnit* unit;
    std::vector<FlatReduction> reductions;
  };

  template <class Action>
  void each_unit(const Action& action) const {
    for (const auto& unit : units) {
      action(unit);
    }
    action(root);
  }
  void take_gradient(FlatBuffer& buffer, FlatEntry& entry);
  void watch(FlatBuffer& buffer);
  bool has_flat_gradient(const FlatUnit& unit) const;
  void reduce(FlatUnit& unit);
  void reduce_leftovers();
  void leave();

  bool root_recorded_ = false;  // a graph needs the root
  std::vector<size_t> ahead_;
  std::deque<Pending> reductions_;
  std::vector<std::function<void()>> closers_;
};

/// A unit gathered while this lives.
class UnitUse {
 public:
  UnitUse(ShardState& state, FlatUnit& unit) : state_(state), unit_(unit) { state_.acquire(unit_); }
  ~UnitUse() { state_.release(unit_); }
  UnitUse(const UnitUse&) = delete;
  UnitUse& operator=(const UnitUse&) = delete;

 private:
  ShardState& state_;
  FlatUnit& unit_;
};

}  // namespace minwm::parallel
