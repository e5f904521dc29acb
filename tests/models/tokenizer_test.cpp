#include <chrono>
#include <filesystem>

#include <gtest/gtest.h>

#include "minwm/core/files.h"
#include "minwm/models/text/byte_bpe.h"
#include "minwm/models/text/clean_text.h"
#include "minwm/models/text/glyph_text.h"
#include "minwm/models/text/unigram.h"
#include "tests/core/temporary_folder.h"

namespace minwm::models {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using Ids = std::vector<int64_t>;

/// A folder of the shared tokenizer data; the test is skipped where there is none.
#define SHARED_TOKENIZER(variable, name)                                \
  const fs::path variable = MINWM_SHARED_DATA "/data/tokenizers/" name; \
  if (!fs::exists(variable)) {                                          \
    GTEST_SKIP() << "no shared tokenizer data";                         \
  }

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(CleanText, ReferencesTakeTheLongestKnownBeginning) {
  EXPECT_EQ(clean_text("&notit; &amp;lt; &#x80;&#0;"), "\u00ACit; < \u20AC\uFFFD");
}

TEST(CleanText, TagsTurnOffUnescapingOfShoutedNames) {
  EXPECT_EQ(clean_text("&EACUTE;"), "\u00C9");
  EXPECT_EQ(clean_text("<b>&EACUTE;"), "<b>&EACUTE;");
}

TEST(CleanText, WhatIsNoUtf8IsRefused) {
  EXPECT_NE(error_of([] { clean_text("ab\xff"); }).find("byte 2"), std::string::npos);
}

TEST(GlyphText, QuotesDoNotCrossLinesAndCountOnce) {
  EXPECT_EQ(quoted_texts("\"a\" \"b\nc\" \u201Cd\u201D \"a\" \"\"", QuoteRule::kPipeline),
            (std::vector<std::string>{"a", " \u201Cd\u201D ", " "}));
  EXPECT_TRUE(quoted_texts("\u201Cd\u201D", QuoteRule::kAsciiOnly).empty());
}

TEST(GlyphText, AColourIsToldOnlyWithAFont) {
  const GlyphTokenizer tokenizer(2, {{"en-A", 0}, {"cn-B", 0}}, "test");
  EXPECT_EQ(tokenizer.vocabulary(), 388);
  const std::string prompt = tokenizer.prompt({"x", "y"}, {{1, std::nullopt}, {1, 1}});
  EXPECT_EQ(prompt, "Text \"x\". Text \"y\" in <color-1>, <cn-font-0>. ");
  EXPECT_EQ(tokenizer.ids("<cn-font-0>a"), (Ids{387, 'a' + 3}));
  EXPECT_THROW(tokenizer.prompt({"x"}, {{2, 0}}), Error);
}

TEST(Unigram, EmptyTextHasNoIdsAndLiteralSpecialTokensHaveTheirOwn) {
  SHARED_TOKENIZER(folder, "tiny_unigram_nfkc");
  const auto tokenizer = UnigramTokenizer::open(folder);
  EXPECT_TRUE(tokenizer.ids("").empty());
  EXPECT_EQ(tokenizer.ids("</s><pad></s>"), (Ids{1, 0, 1}));
}

TEST(Unigram, DamagedFilesAreRefusedWithTheirName) {
  SHARED_TOKENIZER(folder, "tiny_unigram_nfkc");
  const TemporaryFolder out;
  const std::string model = read_file(folder / "spiece.model");
  for (const size_t length : {size_t{0}, size_t{1}, size_t{5000}, model.size() - 1}) {
    atomic_write(out / "spiece.model", model.substr(0, length));
    EXPECT_NE(error_of([&] { UnigramTokenizer::open(out.path()); }).find("spiece.model"),
              std::string::npos)
        << length;
  }
  const std::string json = read_file(folder / "tokenizer.json");
  atomic_write(out / "tokenizer.json", json.substr(0, json.size() / 2));
  EXPECT_NE(error_of([&] { UnigramTokenizer::open(out.path()); }).find("tokenizer.json"),
            std::string::npos);
}

TEST(ByteBpe, AMegabyteOfOneWordTakesSeconds) {
  SHARED_TOKENIZER(folder, "qwen2_5");
  const auto tokenizer = ByteBpeTokenizer::open(folder);
  EXPECT_TRUE(tokenizer.ids("").empty());
  EXPECT_EQ(tokenizer.ids("<|im_end|>"), Ids{151645});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_LT(tokenizer.ids(std::string(1'000'000, 'a')).size(), 500'000U);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  RecordProperty("milliseconds", static_cast<int>(seconds.count() * 1000));
  EXPECT_LT(seconds.count(), 20);  // pair by pair over the whole word it would be hours
}

TEST(ByteBpe, AVocabularyWithoutBytesIsRefused) {
  const TemporaryFolder out;
  atomic_write(out / "vocab.json", R"({"a": 0})");
  atomic_write(out / "merges.txt", "a a\n");
  EXPECT_NE(error_of([&] { ByteBpeTokenizer::open(out.path()); }).find("byte-level"),
            std::string::npos);
}

}  // namespace
}  // namespace minwm::models
