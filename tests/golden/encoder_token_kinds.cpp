// Prompts on their way to a text encoder: cleaning, tokenizers, templates (spec encoders 2, 3.4,
// 3.5, 4). All exact.

#include <filesystem>

#include "case.h"
#include "minwm/core/error.h"
#include "minwm/models/text/prompts.h"

namespace minwm::golden {
namespace {

namespace fs = std::filesystem;

/// Vocabularies are not copied into cases.
fs::path tokenizer_data() {
  const fs::path folder = fs::path(MINWM_SHARED_DATA) / "data/tokenizers";
  require(fs::exists(folder), "{}: no tokenizer files", folder.string());
  return folder;
}

/// The texts "<name>_utf8" cut at "<name>_offsets".
std::vector<std::string> texts(const Case& c, const std::string& name) {
  const at::Tensor offsets = c.tensor(name + "_offsets");
  const bool any = c.has(name + "_utf8");
  const at::Tensor bytes = any ? c.tensor(name + "_utf8").contiguous() : at::empty({0}, at::kByte);
  const std::string all(reinterpret_cast<const char*>(bytes.data_ptr<uint8_t>()),
                        static_cast<size_t>(bytes.numel()));
  std::vector<std::string> result;
  for (int64_t i = 0; i + 1 < offsets.numel(); ++i) {
    const auto begin = static_cast<size_t>(offsets[i].item<int64_t>());
    result.push_back(
        all.substr(begin, static_cast<size_t>(offsets[i + 1].item<int64_t>()) - begin));
  }
  return result;
}

void compare_texts(Report& report, const std::string& name, const std::vector<std::string>& ours,
                   const std::vector<std::string>& reference) {
  report.check(name, ours.size() == reference.size(), "other number of texts");
  for (size_t i = 0; i < std::min(ours.size(), reference.size()); ++i) {
    report.check(fmt::format("{}.{}", name, i), ours[i] == reference[i],
                 fmt::format("'{}' instead of '{}'", ours[i], reference[i]));
  }
}

void compare_rows(const Case& c, Report& report, const std::string& ids, const std::string& mask,
                  const models::PromptTokens& tokens) {
  report.equal(ids, tokens.ids.to(at::kInt), c.out(ids));
  report.equal(mask, tokens.mask.to(at::kByte), c.out(mask));
}

void replay_clean(const Case& c, Report& report) {
  const auto mode = models::clean_mode(c.config.at("clean").get<std::string>());
  std::vector<std::string> cleaned;
  for (const auto& text : texts(c, "in/text")) {
    cleaned.push_back(models::clean_text(text, mode));
  }
  compare_texts(report, "text", cleaned, texts(c, "out/text"));
}

void replay_unigram(const Case& c, Report& report) {
  const fs::path folder = tokenizer_data() / c.config.at("tokenizer").get<std::string>();
  const auto mode = models::clean_mode(c.config.at("clean").get<std::string>());
  const auto length = c.config.at("seq_len").get<int64_t>();
  const auto prompts = texts(c, "in/text");
  const auto fast = models::UnigramTokenizer::open(folder);
  report.check("pad_id", fast.pad() == c.config.at("pad_id").get<int64_t>());
  report.check("eos_id", fast.end() == c.config.at("eos_id").get<int64_t>());
  compare_rows(c, report, "ids", "mask", wan_prompt_tokens(fast, prompts, length, mode));
  const auto slow = models::UnigramTokenizer::from_sentencepiece(folder / "spiece.model");
  report.equal("ids_sentencepiece", wan_prompt_tokens(slow, prompts, length, mode).ids.to(at::kInt),
               c.out("ids_sentencepiece"));
}

void replay_bpe(const Case& c, Report& report) {
  const fs::path vocab = tokenizer_data() / c.config.at("vocab").get<std::string>();
  const auto tokenizer = models::ByteBpeTokenizer::open(vocab.parent_path());
  std::vector<int64_t> ids, offsets = {0};
  for (const auto& text : texts(c, "in/text")) {
    const auto row = tokenizer.ids(text);
    ids.insert(ids.end(), row.begin(), row.end());
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  report.equal("offsets", at::tensor(offsets, at::kLong), c.out("offsets"));
  report.equal("ids", at::tensor(ids, at::kLong).to(at::kInt), c.out("ids"));
}

void replay_llm(const Case& c, Report& report) {
  const auto tokenizer = models::ByteBpeTokenizer::open(tokenizer_data() / "qwen2_5");
  const auto length = c.config.at("max_length").get<int64_t>();
  for (const std::string name : {"video", "image"}) {
    const auto tokens =
        hy_prompt_tokens(tokenizer, texts(c, "in/text"), models::llm_template(name), length);
    compare_rows(c, report, "ids_" + name, "mask_" + name, tokens);
    report.equal("crop_start_" + name, at::tensor({tokens.crop}, at::kLong),
                 c.out("crop_start_" + name));
  }
}

void replay_byt5(const Case& c, Report& report) {
  const auto tokenizer = models::GlyphTokenizer::open(tokenizer_data() / "glyph_sdxl_v2");
  const auto length = c.config.at("max_length").get<int64_t>();
  const auto captions = texts(c, "in/text");
  report.check("vocabulary", tokenizer.vocabulary() == 384 +
                                                           c.config.at("n_colors").get<int64_t>() +
                                                           c.config.at("n_fonts").get<int64_t>());
  const auto formatted = [&](models::QuoteRule rule) {
    std::vector<std::string> result;
    for (const auto& caption : captions) {
      result.push_back(tokenizer.prompt(models::quoted_texts(caption, rule)));
    }
    return result;
  };
  compare_texts(report, "formatted", formatted(models::QuoteRule::kPipeline),
                texts(c, "out/formatted"));
  compare_texts(report, "formatted_preencode", formatted(models::QuoteRule::kAsciiOnly),
                texts(c, "out/formatted_preencode"));
  compare_rows(c, report, "ids", "mask",
               glyph_prompt_tokens(tokenizer, captions, models::GlyphSource::kQuoted, length));
  compare_rows(
      c, report, "raw_ids", "raw_mask",
      glyph_prompt_tokens(tokenizer, captions, models::GlyphSource::kWholeCaption, length));
}

const bool registered = register_kind("encoders.wan.clean", replay_clean) &&
                        register_kind("encoders.unigram.tokens", replay_unigram) &&
                        register_kind("encoders.qwen2_bpe.tokens", replay_bpe) &&
                        register_kind("encoders.hy_llm.tokens", replay_llm) &&
                        register_kind("encoders.byt5.tokens", replay_byt5);

}  // namespace
}  // namespace minwm::golden
