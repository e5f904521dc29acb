#include "minwm/eval/plot.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "html_text.h"
#include "minwm/core/error.h"

namespace minwm::eval {
namespace {

constexpr double kWidth = 640, kHeight = 340, kLeft = 62, kRight = 18, kTop = 72, kBottom = 48;
// Okabe-Ito; a page may override them by CSS (dark mode).
constexpr std::array<const char*, 6> kColours = {"#0072B2", "#D55E00", "#009E73",
                                                 "#CC79A7", "#E69F00", "#56B4E9"};
constexpr std::array<const char*, 4> kDashes = {"none", "7 3", "2 3", "9 3 2 3"};

std::string colour(size_t index) {
  const size_t k = index % kColours.size();
  return fmt::format("var(--series-{},{})", k, kColours[k]);
}

// A range of the data and where it lies on the picture.
struct Axis {
  double low, high, from, to;
  double place(double value) const { return from + (value - low) / (high - low) * (to - from); }
};

std::string number(double value, double step) {
  if (std::abs(value) >= 1e6) {
    return fmt::format("{:g}M", value / 1e6);
  }
  if (std::abs(value) >= 1e4) {
    return fmt::format("{:g}k", value / 1e3);
  }
  const int digits =
      step >= 1 ? 0 : std::min(6, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  return fmt::format("{:.{}f}", value == 0 ? 0.0 : value, digits);
}

std::string open_svg(const std::string& title) {
  return fmt::format(
      "<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" "
      "xmlns=\"http://www.w3.org/2000/svg\" "
      "style=\"font-family:system-ui,sans-serif;font-size:12px;fill:currentColor\">"
      "<text x=\"{}\" y=\"20\" style=\"font-size:15px;font-weight:600\">{}</text>",
      kWidth, kHeight, escape_html(title), kLeft - 46, escape_html(title));
}

// Names beside their line or colour, in as many rows as they need (two fit above the plot).
std::string legend(const std::vector<std::string>& names, bool lines) {
  constexpr double kStart = kLeft - 46, kSwatch = 27, kLetter = 6.7, kGap = 18, kRow = 15;
  std::string out;
  double x = kStart, y = 37;
  for (size_t i = 0; i < names.size(); ++i) {
    const double width = kSwatch + kLetter * static_cast<double>(names[i].size());
    if (x > kStart && x + width > kWidth) {
      x = kStart;
      y += kRow;
    }
    out +=
        lines
            ? fmt::format(
                  "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" "
                  "style=\"stroke:{3};stroke-width:2.5;"
                  "stroke-dasharray:{4}\"/>",
                  x, y, x + 22, colour(i), kDashes[i % kDashes.size()])
            : fmt::format(
                  "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\" style=\"fill:{}\"/>",
                  x + 8, y - 6, colour(i));
    out +=
        fmt::format("<text x=\"{}\" y=\"{}\">{}</text>", x + kSwatch, y + 4, escape_html(names[i]));
    x += width + kGap;
  }
  return out;
}

std::string y_axis(const Axis& y, const std::string& label) {
  std::string out;
  const auto ticks = round_ticks(y.low, y.high, 5);
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
  for (const double tick : ticks) {
    const double at = y.place(tick);
    out += fmt::format(
        "<line x1=\"{}\" y1=\"{:.1f}\" x2=\"{}\" y2=\"{:.1f}\" "
        "style=\"stroke:currentColor;stroke-opacity:{}\"/>"
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\" fill-opacity=\".75\">{}</text>",
        kLeft, at, kWidth - kRight, at, tick == 0 ? ".45" : ".13", kLeft - 7, at + 4,
        number(tick, step));
  }
  return out + fmt::format(
                   "<text transform=\"translate(13,{:.1f}) rotate(-90)\" text-anchor=\"middle\" "
                   "fill-opacity=\".75\">{}</text>",
                   (kTop + kHeight - kBottom) / 2, escape_html(label));
}

std::string x_axis(const Axis& x, const std::string& label) {
  std::string out;
  const auto ticks = round_ticks(x.low, x.high, 7);
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
  for (const double tick : ticks) {
    const double at = x.place(tick);
    out += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{}\" x2=\"{:.1f}\" y2=\"{}\" "
        "style=\"stroke:currentColor;stroke-opacity:.45\"/>"
        "<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\" fill-opacity=\".75\">{}</text>",
        at, kHeight - kBottom, at, kHeight - kBottom + 5, at, kHeight - kBottom + 19,
        number(tick, step));
  }
  return out +
         fmt::format(
             "<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\" fill-opacity=\".75\">{}</text>",
             (kLeft + kWidth - kRight) / 2, kHeight - 9, escape_html(label));
}

struct Range {
  double low = 1e300, high = -1e300;
  void cover(double value) {
    if (std::isfinite(value)) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  bool empty() const { return low > high; }
  void widen() {
    const double room = high > low ? .05 * (high - low) : std::max(.5 * std::abs(high), .5);
    low -= room;
    high += room;
  }
};

std::string curve(const Series& series, size_t index, const Axis& x, const Axis& y) {
  std::string points, dots;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (std::isfinite(series.x[i]) && std::isfinite(series.y[i])) {
      const double at_y = y.place(std::clamp(series.y[i], y.low, y.high));
      points += fmt::format("{:.1f},{:.1f} ", x.place(series.x[i]), at_y);
      if (series.markers) {
        dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" style=\"fill:{}\"/>",
                            x.place(series.x[i]), at_y, colour(index));
      }
    }
  }
  return fmt::format(
             "<polyline points=\"{}\" "
             "style=\"fill:none;stroke:{};stroke-width:2;stroke-linejoin:round;"
             "stroke-dasharray:{}\"/>",
             points, colour(index), kDashes[index % kDashes.size()]) +
         dots;
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  const double raw = (high - low) / std::max(count, 1);
  require(std::isfinite(raw) && raw > 0, "ticks: empty range {} … {}", low, high);
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double mantissa = raw / power;
  const double step = power * (mantissa < 1.5 ? 1 : mantissa < 3.5 ? 2 : mantissa < 7.5 ? 5 : 10);
  std::vector<double> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k) {
    ticks.push_back(k * step);
  }
  return ticks;
}

Series averaged(const Series& series, int bins) {
  require(bins > 0, "averaged: {} bins", bins);
  if (static_cast<int>(series.x.size()) <= bins) {
    return series;
  }
  Series out{series.name, {}, {}, series.markers};
  const size_t count = series.x.size();
  for (size_t bin = 0; bin < static_cast<size_t>(bins); ++bin) {
    const size_t first = bin * count / static_cast<size_t>(bins),
                 last = (bin + 1) * count / static_cast<size_t>(bins);
    double x = 0, y = 0, n = 0;
    for (size_t i = first; i < last; ++i) {
      if (std::isfinite(series.y[i])) {
        x += series.x[i];
        y += series.y[i];
        ++n;
      }
    }
    if (n > 0) {
      out.x.push_back(x / n);
      out.y.push_back(y / n);
    }
  }
  return out;
}

std::string stacked_svg(const std::vector<std::string>& plots) {
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" style=\"color:#1c2330\"><rect width=\"{0}\" height=\"{1}\" "
      "style=\"fill:#fff\"/>",
      kWidth, kHeight * static_cast<double>(plots.size()));
  for (size_t i = 0; i < plots.size(); ++i) {
    out += fmt::format("<svg y=\"{}\" width=\"{}\" height=\"{}\">{}</svg>",
                       kHeight * static_cast<double>(i), kWidth, kHeight, plots[i]);
  }
  return out + "</svg>\n";
}

std::string to_svg(const LinePlot& plot) {
  Range x_range, y_range;
  std::vector<std::string> names;
  for (const auto& series : plot.series) {
    require(series.x.size() == series.y.size(), "plot '{}': series '{}' has {} x and {} y",
            plot.title, series.name, series.x.size(), series.y.size());
    Range own;
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (std::isfinite(series.y[i])) {
        x_range.cover(series.x[i]);
        own.cover(series.y[i]);
      }
    }
    require(!own.empty(), "plot '{}': series '{}' has no finite point", plot.title, series.name);
    y_range.cover(own.low);
    y_range.cover(own.high);
    names.push_back(series.name);
  }
  require(!plot.series.empty(), "plot '{}' has no series", plot.title);
  for (const auto& reference : plot.references) {
    y_range.cover(reference.y);
  }
  if (x_range.high <= x_range.low) {
    x_range.widen();
  }
  y_range.widen();
  const Axis x{x_range.low, x_range.high, kLeft, kWidth - kRight};
  const Axis y{std::isnan(plot.y_min) ? y_range.low : plot.y_min,
               std::isnan(plot.y_max) ? y_range.high : plot.y_max, kHeight - kBottom, kTop};
  std::string out = open_svg(plot.title) + legend(names, true) + y_axis(y, plot.y_label) +
                    x_axis(x, plot.x_label);
  for (const auto& reference : plot.references) {
    const double at = y.place(reference.y);
    out += fmt::format(
        "<line x1=\"{}\" y1=\"{:.1f}\" x2=\"{}\" y2=\"{:.1f}\" "
        "style=\"stroke:currentColor;stroke-dasharray:4 4;"
        "stroke-opacity:.6\"/><text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\" "
        "fill-opacity=\".75\">{}</text>",
        kLeft, at, kWidth - kRight, at, kWidth - kRight - 4, at - 5, escape_html(reference.name));
  }
  for (size_t i = 0; i < plot.series.size(); ++i) {
    out += curve(plot.series[i], i, x, y);
  }
  return out + "</svg>";
}

std::string to_svg(const BarPlot& plot) {
  Range range;
  range.cover(0);
  std::vector<std::string> names;
  for (const auto& bars : plot.bars) {
    require(bars.values.size() == plot.groups.size(), "plot '{}': '{}' has {} values for {} groups",
            plot.title, bars.name, bars.values.size(), plot.groups.size());
    for (const double value : bars.values) {
      range.cover(value);
    }
    names.push_back(bars.name);
  }
  require(!plot.bars.empty() && !plot.groups.empty(), "plot '{}' has no bars", plot.title);
  const double high = !std::isnan(plot.y_max) ? plot.y_max : range.high > 0 ? 1.08 * range.high : 1;
  const Axis y{1.08 * range.low, high, kHeight - kBottom, kTop};
  std::string out = open_svg(plot.title) + legend(names, false) + y_axis(y, plot.y_label);
  const double pitch = (kWidth - kRight - kLeft) / static_cast<double>(plot.groups.size());
  const double width = std::min(34.0, .8 * pitch / static_cast<double>(plot.bars.size()));
  for (size_t group = 0; group < plot.groups.size(); ++group) {
    const double centre = kLeft + pitch * (static_cast<double>(group) + .5);
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>", centre,
                       kHeight - kBottom + 19, escape_html(plot.groups[group]));
    for (size_t k = 0; k < plot.bars.size(); ++k) {
      const double value = plot.bars[k].values[group];
      if (!std::isfinite(value)) {
        continue;
      }
      const double left =
          centre + width * (static_cast<double>(k) - .5 * static_cast<double>(plot.bars.size()));
      const double top = y.place(std::max(value, 0.0)), bottom = y.place(std::min(value, 0.0));
      out += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"2\" "
          "style=\"fill:{}\"/>"
          "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" style=\"font-size:10px\" "
          "fill-opacity=\".8\">{:.2g}</text>",
          left + 1, top, width - 2, std::max(bottom - top, 1.0), colour(k), left + width / 2,
          top - 4, value);
    }
  }
  return out + "</svg>";
}

}  // namespace minwm::eval
