#pragma once
// A progress bar with rate and ETA on a terminal, plain lines (every few seconds) elsewhere.

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace minwm {

class Progress {
 public:
  /// `total` units of `unit` ("clips", "steps"). Silent when `enabled` is false (ranks above 0).
  Progress(std::string title, int64_t total, std::string unit, bool enabled = true);
  ~Progress();  ///< prints the closing line if finish() was not called
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Moves to `done` units; `note` (e.g. "loss 0.53") is shown beside the bar. The rate counts from
  /// the first update, so work done before a resume does not flatter it. Thread-safe.
  void update(int64_t done, const std::string& note = "");
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void print(bool last);

  std::mutex mutex_;
  std::string title_, unit_, note_;
  int64_t total_, first_done_ = -1, done_ = 0;
  bool enabled_, terminal_, finished_ = false;
  Clock::time_point created_, first_, printed_;
};

}  // namespace minwm
