#include "minwm/core/progress.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <unistd.h>

#include "minwm/core/error.h"

namespace minwm {
namespace {

constexpr int kBarWidth = 24;
constexpr std::chrono::milliseconds kRefresh{100};  // of the bar on a terminal
constexpr std::chrono::seconds kLineEvery{5};       // of the lines in a log file

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

double seconds_between(std::chrono::steady_clock::time_point a,
                       std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

Progress::Progress(std::string title, int64_t total, std::string unit, bool enabled)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      enabled_(enabled),
      terminal_(::isatty(STDERR_FILENO) != 0),
      created_(Clock::now()),
      first_(created_),
      printed_(created_) {}

Progress::~Progress() {
  finish();
}

void Progress::update(int64_t done, const std::string& note) {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (first_done_ < 0) {
    first_done_ = done;
    first_ = now;
  }
  done_ = done;
  note_ = note;
  if (terminal_ ? now - printed_ >= kRefresh : now - printed_ >= kLineEvery) {
    printed_ = now;
    print(false);
  }
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (!std::exchange(finished_, true)) {
    print(true);
  }
}

void Progress::print(bool last) {
  if (!enabled_) {
    return;
  }
  const auto now = Clock::now();
  const double measured = seconds_between(first_, now);
  const double rate =
      measured > 0 ? static_cast<double>(done_ - std::max<int64_t>(first_done_, 0)) / measured : 0;
  std::string line = title_;
  if (terminal_ && total_ > 0) {
    const auto filled =
        static_cast<int>(kBarWidth * std::clamp<int64_t>(done_, 0, total_) / total_);
    line += fmt::format(" [{:=<{}}{:<{}}]", "", filled, "", kBarWidth - filled);
  }
  line += total_ > 0 ? fmt::format(" {}/{} {}", done_, total_, unit_)
                     : fmt::format(" {} {}", done_, unit_);
  if (rate > 0) {
    line += fmt::format(", {:.3g} {}/s", rate, unit_);
  }
  if (last) {
    line += fmt::format(", {} in total", clock_text(seconds_between(created_, now)));
  } else if (rate > 0 && total_ > done_) {
    line += fmt::format(", ETA {}", clock_text(static_cast<double>(total_ - done_) / rate));
  }
  if (!note_.empty()) {
    line += ", " + note_;
  }
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\033[K" : "", line, terminal_ && !last ? "" : "\n");
  std::fflush(stderr);
}

}  // namespace minwm
