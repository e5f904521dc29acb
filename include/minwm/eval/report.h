#pragma once
// An HTML report in one self-contained file: pictures are data URIs, no script, light and dark,
// phone to desktop.
//
//   HtmlReport report("Camera following", "step 900 of …");
//   report.tiles({{"acc3", "0.56", "right key over three latents"}});
//   report.section("Results", "What the numbers say …");
//   report.table({{{"row"}, {"PSNR", "dB against the commanded path"}}, {{"model", "26.0"}}});
//   atomic_write(folder / "report.html", report.html());

#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::eval {

enum class Verdict { kNone, kGood, kBad };

struct Tile {
  std::string label, value, hint;
  Verdict verdict = Verdict::kNone;
};

struct Table {
  struct Column {
    std::string name;
    std::string hint = "";  ///< shown when pointed at
  };
  struct Cell {
    Cell(std::string shown)
        : text(std::move(shown)) {}           // NOLINT(google-explicit-constructor): table literals
    Cell(const char* shown) : text(shown) {}  // NOLINT(google-explicit-constructor): table literals
    Cell(std::string shown, std::string below, Verdict judged = Verdict::kNone)
        : text(std::move(shown)), small(std::move(below)), verdict(judged) {}
    std::string text, small;  ///< `small` stands below in small print
    Verdict verdict = Verdict::kNone;
  };
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
  int highlighted = -1;  ///< this row is set off
};

/// Videos of one clip side by side: a strip of latent frames per video under the commanded keys,
/// and a small player.
struct Sheet {
  std::string title, note;
  std::vector<std::string> keys;  ///< one per latent frame: what was commanded to reach it
  int64_t given = 0;              ///< first latent frames that the generator was handed
  struct Row {
    std::string name;
    at::Tensor frames;  ///< uint8 [F, H, W, 3], all video frames
  };
  std::vector<Row> rows;
};

class HtmlReport {
 public:
  HtmlReport(const std::string& title, const std::string& subtitle);

  void section(const std::string& title, const std::string& introduction = "");
  void paragraph(const std::string& text);
  void tiles(const std::vector<Tile>& tiles);
  /// @throws Error if a row has another number of cells than there are columns.
  void table(const Table& table);
  /// SVG plots (plot.h) side by side where there is room; pairs of plot and caption.
  void figures(const std::vector<std::pair<std::string, std::string>>& svg_and_caption);
  void sheet(const Sheet& sheet);
  void list(const std::vector<std::string>& items);
  /// Terms and what they mean.
  void definitions(const std::vector<std::pair<std::string, std::string>>& terms);
  /// Folded-away text, e.g. the resolved options.
  void details(const std::string& summary, const std::string& preformatted);

  /// The whole file.
  std::string html() const;

 private:
  void close_section();
  std::string title_, subtitle_, body_, navigation_;
  bool open_ = false;
  int sections_ = 0;
};

/// uint8 [H, W, 3] as `data:image/png;base64,…` (or jpeg).
std::string data_uri(const at::Tensor& image, bool jpeg = false);

}  // namespace minwm::eval
