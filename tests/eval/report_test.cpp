#include "minwm/eval/report.h"

#include <cmath>
#include <regex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/files.h"
#include "minwm/data/video.h"
#include "minwm/eval/plot.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::Not;

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++n;
  }
  return n;
}

std::string decode_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int have = 0;
  for (const char c : text.substr(0, text.find('='))) {
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    have += 6;
    if (have >= 8) {
      have -= 8;
      bytes += static_cast<char>(bits >> have & 255);
    }
  }
  return bytes;
}

at::Tensor frames(int64_t f) {
  return at::arange(f * 8 * 8 * 3).remainder(251).to(at::kByte).view({f, 8, 8, 3});
}

HtmlReport full_report() {
  HtmlReport report("A <title>", "step 7 & more");
  report.section("First", "What \"it\" says");
  report.tiles(
      {{"gap", "3.1 dB", "aim: above 1", Verdict::kGood}, {"gain", "0.1", "low", Verdict::kBad}});
  report.table({{{"row"}, {"PSNR", "in dB"}}, {{"model", {"26.0", "± 0.4"}}, {"still", "20"}}, 0});
  report.section("Second");
  report.figures(
      {{to_svg(LinePlot{"Loss", "step", "loss", {{"bidirectional", {1, 2}, {3, 4}}}}), "falls"}});
  report.sheet({"world 1", "w*4", {"", "w"}, 1, {{"truth", frames(5)}, {"generated", frames(5)}}});
  report.list({"one", "two"});
  report.definitions({{"acc3", "share of steps"}});
  report.details("options", "[a]\nb = <1>");
  return report;
}

TEST(HtmlReport, IsOneFileThatLoadsNothing) {
  const std::string html = full_report().html();
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<link")));
  const std::string links =
      std::regex_replace(html, std::regex("xmlns=\"http://www.w3.org/2000/svg\""), "");
  EXPECT_THAT(links, Not(HasSubstr("http")));
  for (const std::string attribute : {"src=\"", "url("}) {
    EXPECT_EQ(count(html, attribute), count(html, attribute + "data:image/")) << attribute;
    EXPECT_GT(count(html, attribute), 0) << attribute;
  }
}

TEST(HtmlReport, EscapesTextAndClosesWhatItOpens) {
  const std::string html = full_report().html();
  EXPECT_THAT(html, HasSubstr("A &lt;title&gt;"));
  EXPECT_THAT(html, HasSubstr("step 7 &amp; more"));
  EXPECT_THAT(html, HasSubstr("b = &lt;1&gt;"));
  for (const std::string tag :
       {"section", "div", "table", "tr", "td", "figure", "article", "svg", "ul", "dl", "pre",
        "main", "header", "html", "body", "details", "span", "p"}) {
    EXPECT_EQ(count(html, "<" + tag + ">") + count(html, "<" + tag + " "),
              count(html, "</" + tag + ">"))
        << tag;
  }
}

TEST(HtmlReport, SectionsAreLinkedFromTheTop) {
  const std::string html = full_report().html();
  EXPECT_THAT(html, HasSubstr("<a href=\"#s2\">Second</a>"));
  EXPECT_THAT(html, HasSubstr("<section id=\"s2\">"));
}

TEST(HtmlReport, VerdictsHaveASignBesidesTheColour) {
  const std::string html = full_report().html();
  EXPECT_THAT(html, HasSubstr("✓ aim: above 1"));
  EXPECT_THAT(html, HasSubstr("✗ low"));
}

TEST(HtmlReport, RefusesATableWithAMissingCell) {
  HtmlReport report("t", "s");
  EXPECT_THAT(error_of([&] {
                report.table({{{"a"}, {"b"}}, {{"1", "2"}, {"3"}}});
              }),
              HasSubstr("row 1 has 1 cells for 2 columns"));
}

TEST(HtmlReport, PicturesAreStoredWithoutLossAsPng) {
  const testing::TemporaryFolder folder;
  const at::Tensor picture = frames(1)[0];
  const std::string uri = data_uri(picture), prefix = "data:image/png;base64,";
  ASSERT_TRUE(uri.starts_with(prefix));
  atomic_write(folder / "a.png", decode_base64(uri.substr(prefix.size())));
  EXPECT_TRUE(at::equal(data::read_image(folder / "a.png"), picture));
  EXPECT_THAT(error_of([] { data_uri(at::zeros({4, 4, 3})); }), HasSubstr("uint8 [H, W, 3]"));
}

TEST(Plot, LeavesOutPointsThatAreNotNumbers) {
  const std::string svg =
      to_svg(LinePlot{"p", "x", "y", {{"a", {0, 1, 2}, {1, std::nan(""), 3}, true}}});
  EXPECT_EQ(count(svg, "<circle"), 2);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(Plot, RefusesSeriesThatCannotBeDrawn) {
  EXPECT_THAT(error_of([] {
                to_svg(LinePlot{"p", "x", "y", {{"a", {0, 1}, {1}}}});
              }),
              HasSubstr("'a' has 2 x and 1 y"));
  EXPECT_THAT(error_of([] {
                to_svg(LinePlot{"p", "x", "y", {{"a", {0}, {std::nan("")}}}});
              }),
              HasSubstr("no finite point"));
  EXPECT_THAT(error_of([] { to_svg(LinePlot{"p", "x", "y", {}}); }), HasSubstr("no series"));
  EXPECT_THAT(error_of([] {
                to_svg(BarPlot{"p", "y", {"w", "s"}, {{"m", {1}}}});
              }),
              HasSubstr("1 values for 2 groups"));
}

TEST(Plot, AFlatCurveAndASinglePointStillHaveAxes) {
  EXPECT_THAT(to_svg(LinePlot{"p", "x", "y", {{"a", {5}, {2}}}}), Not(HasSubstr("nan")));
  EXPECT_THAT(to_svg(LinePlot{"p", "x", "y", {{"a", {1, 2}, {0, 0}}}}), Not(HasSubstr("nan")));
}

TEST(Plot, BarsWithoutAValueAreNotDrawn) {
  const std::string svg =
      to_svg(BarPlot{"p", "y", {"w", "s"}, {{"m", {.5, std::nan("")}}, {"n", {.1, .2}}}});
  EXPECT_EQ(count(svg, "<rect"), 3 + 2);  // and two in the legend
}

TEST(Plot, ALegendTooLongForOneRowGoesOnInTheNext) {
  LinePlot plot{"p", "x", "y", {}};
  for (const char* name : {"a", "b", "c", "d"}) {
    plot.series.push_back({std::string(30, *name), {0, 1}, {1, 2}});
  }
  const std::string svg = to_svg(plot);
  for (const char* name : {"a", "b", "c", "d"}) {
    const size_t text = svg.find(">" + std::string(30, *name) + "<");
    ASSERT_NE(text, std::string::npos) << name;
    const size_t x = svg.rfind("<text x=\"", text);
    EXPECT_LT(std::stod(svg.substr(x + 9)) + 30 * 6.7, 640) << name;
  }
}

TEST(Plot, TicksAreRound) {
  EXPECT_THAT(round_ticks(0, 1, 5), ElementsAre(0, .2, ::testing::DoubleNear(.4, 1e-9),
                                                ::testing::DoubleNear(.6, 1e-9), .8, 1));
  EXPECT_THAT(round_ticks(930, 1250, 3), ElementsAre(1000, 1100, 1200));
  EXPECT_THAT(error_of([] { round_ticks(1, 1, 5); }), HasSubstr("empty range"));
}

TEST(Plot, LongCurvesAreAveragedOverEqualStretches) {
  Series noisy{"loss", {}, {}};
  for (int i = 0; i < 100; ++i) {
    noisy.x.push_back(i);
    noisy.y.push_back(i % 2);
  }
  const Series smooth = averaged(noisy, 10);
  ASSERT_EQ(smooth.x.size(), 10u);
  EXPECT_DOUBLE_EQ(smooth.x[0], 4.5);
  EXPECT_DOUBLE_EQ(smooth.y[9], .5);
  EXPECT_EQ(averaged(noisy, 200).x.size(), 100u);
}

}  // namespace
}  // namespace minwm::eval
