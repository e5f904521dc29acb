#pragma once

namespace minwm::train {

/// While it lives, SIGTERM and SIGUSR1 no longer end the process: they are remembered, and the run
/// stops at the next step boundary, once all ranks agree. One at a time per process.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  ///< puts the former handlers back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  /// True once a signal came to this process.
  bool requested() const;
};

}  // namespace minwm::train
