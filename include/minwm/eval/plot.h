#pragma once
// Small SVG plots for reports: readable on light and dark pages and without colour vision
// (Okabe-Ito colours, dashes).

#include <limits>
#include <string>
#include <vector>

namespace minwm::eval {

struct Series {
  std::string name;
  std::vector<double> x, y;  ///< equal lengths; points with NaN are left out
  bool markers = false;      ///< a dot per point
};

/// A horizontal line with a name, e.g. a ceiling.
struct Reference {
  double y;
  std::string name;
};

struct LinePlot {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  std::vector<Reference> references = {};
  double y_min = std::numeric_limits<double>::quiet_NaN();  ///< NaN = from the data
  double y_max = std::numeric_limits<double>::quiet_NaN();
};

/// One `<svg>` element. @throws Error if a series has no finite point or unequal lengths.
std::string to_svg(const LinePlot& plot);

struct BarPlot {
  std::string title, y_label;
  std::vector<std::string> groups;  ///< along the x axis
  struct Bars {
    std::string name;
    std::vector<double> values;  ///< one per group; NaN = no bar
  };
  std::vector<Bars> bars;
  double y_max = std::numeric_limits<double>::quiet_NaN();
};

/// Groups of vertical bars with their values on top. @throws Error if a series has another length
/// than the groups.
std::string to_svg(const BarPlot& plot);

/// Plots below each other as a file of their own: dark on white, with all colours fixed.
std::string stacked_svg(const std::vector<std::string>& plots);

/// Round tick positions (1, 2, 5 times a power of ten) inside [low, high], about `count` of them.
std::vector<double> round_ticks(double low, double high, int count);

/// At most `bins` points: means over equal stretches of x. For long noisy curves.
Series averaged(const Series& series, int bins);

}  // namespace minwm::eval
