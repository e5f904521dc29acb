#include "minwm/eval/report.h"

#include <algorithm>

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include <ATen/ATen.h>

#include "html_text.h"
#include "minwm/core/error.h"
#include "report_style.h"

namespace minwm::eval {
namespace {

constexpr int kStripFrame = 128, kPlayerFrame = 192,
              kStripGap = 2;  // largest width of one frame in a strip and in a player

const char* verdict_class(Verdict verdict) {
  return verdict == Verdict::kGood ? " good" : verdict == Verdict::kBad ? " bad" : "";
}

// A sign besides the colour, for readers who do not see it.
const char* verdict_mark(Verdict verdict) {
  return verdict == Verdict::kGood ? "✓ " : verdict == Verdict::kBad ? "✗ " : "";
}

std::string base64(const std::vector<uint8_t>& bytes) {
  static const char* const kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = bytes.size() - i;
    const uint32_t group = static_cast<uint32_t>(bytes[i] << 16) |
                           static_cast<uint32_t>(left > 1 ? bytes[i + 1] << 8 : 0) |
                           static_cast<uint32_t>(left > 2 ? bytes[i + 2] : 0);
    out += kDigits[group >> 18];
    out += kDigits[group >> 12 & 63];
    out += left > 1 ? kDigits[group >> 6 & 63] : '=';
    out += left > 2 ? kDigits[group & 63] : '=';
  }
  return out;
}

// A grey margin at the right, so that neighbours do not run into each other.
at::Tensor with_gap(const at::Tensor& frame, int gap) {
  return at::cat({frame, at::full({frame.size(0), gap, 3}, 128, at::kByte)}, 1);
}

// Frames [n, H, W, 3] next to each other, each at most `largest` pixels wide: [h, n w, 3].
at::Tensor strip(const at::Tensor& frames, int largest, int gap) {
  std::vector<at::Tensor> pictures;
  for (const auto& frame : frames.unbind(0)) {
    if (frame.size(1) <= largest) {
      pictures.push_back(with_gap(frame, gap));
      continue;
    }
    const at::Tensor source = frame.contiguous();
    const cv::Mat large(static_cast<int>(frame.size(0)), static_cast<int>(frame.size(1)), CV_8UC3,
                        source.data_ptr<uint8_t>());
    const int height = static_cast<int>(frame.size(0) * largest / frame.size(1));
    const at::Tensor small = at::empty({height, largest, 3}, at::kByte);
    cv::Mat target(height, largest, CV_8UC3, small.data_ptr<uint8_t>());
    cv::resize(large, target, target.size(), 0, 0, cv::INTER_AREA);
    pictures.push_back(with_gap(small, gap));
  }
  return at::cat(pictures, 1).contiguous();
}

// A sprite of all frames that CSS steps through.
std::string player(const Sheet::Row& row) {
  const int64_t count = row.frames.size(0);
  return fmt::format(
      "<figure class=\"player\"><i style=\"background-image:url({});background-size:{}% "
      "100%;aspect-ratio:{}/{};"
      "animation-duration:{:.2f}s;animation-timing-function:steps({},jump-none)\"></"
      "i><figcaption>{}</figcaption></figure>",
      data_uri(strip(row.frames, kPlayerFrame, 0), true), 100 * count, row.frames.size(2),
      row.frames.size(1), static_cast<double>(count) / 16, count, escape_html(row.name));
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string data_uri(const at::Tensor& image, bool jpeg) {
  require(image.dim() == 3 && image.size(2) == 3 && image.scalar_type() == at::kByte,
          "report picture: expected uint8 [H, W, 3]");
  const at::Tensor rgb = image.contiguous();
  const cv::Mat picture(static_cast<int>(rgb.size(0)), static_cast<int>(rgb.size(1)), CV_8UC3,
                        rgb.data_ptr<uint8_t>());
  cv::Mat bgr;
  cv::cvtColor(picture, bgr, cv::COLOR_RGB2BGR);
  std::vector<uint8_t> bytes;
  const std::vector<int> settings = jpeg ? std::vector<int>{cv::IMWRITE_JPEG_QUALITY, 90}
                                         : std::vector<int>{cv::IMWRITE_PNG_COMPRESSION, 9};
  TORCH_INTERNAL_ASSERT(cv::imencode(jpeg ? ".jpg" : ".png", bgr, bytes, settings),
                        "picture encoding failed");
  return fmt::format("data:image/{};base64,{}", jpeg ? "jpeg" : "png", base64(bytes));
}

HtmlReport::HtmlReport(const std::string& title, const std::string& subtitle)
    : title_(title), subtitle_(subtitle) {}

void HtmlReport::close_section() {
  body_ += open_ ? "</section>\n" : "";
  open_ = false;
}

void HtmlReport::section(const std::string& title, const std::string& introduction) {
  close_section();
  ++sections_;
  body_ += fmt::format("<section id=\"s{}\"><h2>{}</h2>\n", sections_, escape_html(title));
  navigation_ += fmt::format("<a href=\"#s{}\">{}</a>", sections_, escape_html(title));
  open_ = true;
  if (!introduction.empty()) {
    paragraph(introduction);
  }
}

void HtmlReport::paragraph(const std::string& text) {
  body_ += fmt::format("<p>{}</p>\n", escape_html(text));
}

void HtmlReport::tiles(const std::vector<Tile>& tiles) {
  body_ += "<div class=\"tiles\">";
  for (const auto& tile : tiles) {
    body_ += fmt::format(
        "<div class=\"tile{}\"><b>{}</b><span class=\"value\">{}</span><small>{}{}</small></div>",
        verdict_class(tile.verdict), escape_html(tile.label), escape_html(tile.value),
        verdict_mark(tile.verdict), escape_html(tile.hint));
  }
  body_ += "</div>\n";
}

void HtmlReport::table(const Table& table) {
  body_ += "<div class=\"scroll\"><table><thead><tr>";
  for (const auto& column : table.columns) {
    body_ += column.hint.empty() ? fmt::format("<th>{}</th>", escape_html(column.name))
                                 : fmt::format("<th title=\"{}\">{}</th>", escape_html(column.hint),
                                               escape_html(column.name));
  }
  body_ += "</tr></thead><tbody>";
  for (size_t i = 0; i < table.rows.size(); ++i) {
    require(table.rows[i].size() == table.columns.size(),
            "report table: row {} has {} cells for {} columns", i, table.rows[i].size(),
            table.columns.size());
    body_ += static_cast<int>(i) == table.highlighted ? "<tr class=\"mark\">" : "<tr>";
    for (const auto& cell : table.rows[i]) {
      body_ +=
          fmt::format("<td class=\"cell{}\">{}{}{}</td>", verdict_class(cell.verdict),
                      verdict_mark(cell.verdict), escape_html(cell.text),
                      cell.small.empty() ? "" : "<small>" + escape_html(cell.small) + "</small>");
    }
    body_ += "</tr>";
  }
  body_ += "</tbody></table></div>\n";
}

void HtmlReport::figures(const std::vector<std::pair<std::string, std::string>>& svg_and_caption) {
  body_ += "<div class=\"figures\">";
  for (const auto& [svg, caption] : svg_and_caption) {
    body_ +=
        fmt::format("<figure>{}<figcaption>{}</figcaption></figure>", svg, escape_html(caption));
  }
  body_ += "</div>\n";
}

void HtmlReport::sheet(const Sheet& sheet) {
  body_ += fmt::format("<article class=\"sheet\"><h3>{}</h3><p>{}</p><div class=\"players\">",
                       escape_html(sheet.title), escape_html(sheet.note));
  for (const auto& row : sheet.rows) {
    body_ += player(row);
  }
  body_ += "</div><div class=\"scroll\"><div class=\"strips\">";
  if (!sheet.keys.empty()) {
    body_ += "<span></span><div class=\"keys\">";
    for (size_t i = 0; i < sheet.keys.size(); ++i) {
      const bool given = static_cast<int64_t>(i) < sheet.given;
      body_ += fmt::format("<span{}>{}</span>",
                           given ? " class=\"given\" title=\"given to the generator\"" : "",
                           given ? "given" : escape_html(sheet.keys[i]));
    }
    body_ += "</div>";
  }
  for (const auto& row : sheet.rows) {
    const at::Tensor frames = row.frames.slice(0, 0, row.frames.size(0), 4);
    body_ += fmt::format("<span>{}</span><img alt=\"{}, one frame per latent\" src=\"{}\">",
                         escape_html(row.name), escape_html(row.name),
                         data_uri(strip(frames, kStripFrame, kStripGap)));
  }
  body_ += "</div></div></article>\n";
}

void HtmlReport::list(const std::vector<std::string>& items) {
  body_ += "<ul>";
  for (const auto& item : items) {
    body_ += fmt::format("<li>{}</li>", escape_html(item));
  }
  body_ += "</ul>\n";
}

void HtmlReport::definitions(const std::vector<std::pair<std::string, std::string>>& terms) {
  body_ += "<dl>";
  for (const auto& [term, meaning] : terms) {
    body_ += fmt::format("<dt>{}</dt><dd>{}</dd>", escape_html(term), escape_html(meaning));
  }
  body_ += "</dl>\n";
}

void HtmlReport::details(const std::string& summary, const std::string& preformatted) {
  body_ += fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n",
                       escape_html(summary), escape_html(preformatted));
}

std::string HtmlReport::html() const {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
  out += fmt::format("<title>{}</title><style>{}</style></head><body>\n", escape_html(title_),
                     kReportStyle);
  out += fmt::format("<header><h1>{}</h1><p>{}</p><nav>{}</nav></header>\n<main>\n",
                     escape_html(title_), escape_html(subtitle_), navigation_);
  return out + body_ + (open_ ? "</section>\n" : "") + "</main></body></html>\n";
}

}  // namespace minwm::eval
