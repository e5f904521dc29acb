// The files of a byte-level BPE.

#include "json_file.h"
#include "minwm/models/text/byte_bpe.h"

namespace minwm::models {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

std::unordered_map<std::string, int32_t> read_vocabulary(const Json& json,
                                                         const std::string& where) {
  std::unordered_map<std::string, int32_t> vocabulary;
  vocabulary.reserve(json.size());
  for (const auto& item : json.items()) {
    const auto id = item.value().get<int64_t>();
    require(id >= 0 && id < (int64_t{1} << 31), "{}: '{}' has id {}", where, item.key(), id);
    vocabulary.emplace(item.key(), static_cast<int32_t>(id));
  }
  return vocabulary;
}

/// [{"content": …, "id": …}] of tokenizer.json.
void read_added_list(const Json& json, SpecialTokens& tokens, const std::string& where) {
  for (const auto& token : json) {
    tokens.add(token.at("content").get<std::string>(), token.at("id").get<int64_t>(), where);
  }
}

/// Added tokens from the first file that has them.
SpecialTokens read_added(const fs::path& folder) {
  SpecialTokens tokens;
  if (const fs::path path = folder / "added_tokens.json"; fs::exists(path)) {
    return with_json_file(path, [&](const Json& json) {
      for (const auto& item : json.items()) {
        const Json& id = item.value().is_object() ? item.value().at("id") : item.value();
        tokens.add(item.key(), id.get<int64_t>(), path.string());
      }
      return tokens;
    });
  }
  if (const fs::path path = folder / "tokenizer_config.json"; fs::exists(path)) {
    return with_json_file(path, [&](const Json& json) {
      for (const auto& item : json.at("added_tokens_decoder").items()) {
        const std::string& key = item.key();
        require(!key.empty() && key.size() < 10 &&
                    key.find_first_not_of("0123456789") == std::string::npos,
                "{}: added_tokens_decoder has '{}', an id was expected", path.string(), key);
        tokens.add(item.value().at("content").get<std::string>(), std::stoll(key), path.string());
      }
      return tokens;
    });
  }
  const fs::path path = folder / "tokenizer.json";
  require(fs::exists(path),
          "{}: no added tokens: neither added_tokens.json nor tokenizer_config.json nor "
          "tokenizer.json is there",
          folder.string());
  return with_json_file(path, [&](const Json& json) {
    read_added_list(json.at("added_tokens"), tokens, path.string());
    return tokens;
  });
}

/// Body(left, right) for "left right".
template <class Body>
void split_merge(std::string_view line, const std::string& where, size_t number, const Body& body) {
  const size_t space = line.find(' ');
  require(space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
              line.find(' ', space + 1) == std::string_view::npos,
          "{}: merge {} is '{}', two pieces with a space between were expected", where, number,
          line);
  body(line.substr(0, space), line.substr(space + 1));
}

/// body(left, right) for every line of merges.txt below its header.
template <class Body>
void read_merges(const fs::path& path, const Body& body) {
  const std::string text = read_file(path);
  size_t number = 0;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    if (!line.empty() && line.back() == '\r') {
      line.remove_suffix(1);
    }
    if (!line.empty() && !(number == 0 && line.starts_with("#version"))) {
      split_merge(line, path.string(), number, body);
    }
  }
  require(number > 1, "{}: no merges", path.string());
}

}  // namespace

ByteBpeTokenizer ByteBpeTokenizer::open(const fs::path& folder) {
  const fs::path vocab = folder / "vocab.json", merges = folder / "merges.txt";
  if (!fs::exists(vocab) && !fs::exists(merges)) {
    return from_tokenizer_json(folder / "tokenizer.json");
  }
  ByteBpeTokenizer tokenizer;
  tokenizer.where_ = folder.string();
  const Vocabulary vocabulary = with_json_file(
      vocab, [&](const Json& json) { return read_vocabulary(json, vocab.string()); });
  tokenizer.set_vocabulary(vocabulary, vocab.string());
  read_merges(merges, [&](std::string_view left, std::string_view right) {
    tokenizer.add_merge(vocabulary, left, right, merges.string());
  });
  tokenizer.added_ = read_added(folder);
  return tokenizer;
}

ByteBpeTokenizer ByteBpeTokenizer::from_tokenizer_json(const fs::path& path) {
  return with_json_file(path, [&](const Json& json) {
    ByteBpeTokenizer tokenizer;
    const std::string where = tokenizer.where_ = path.string();
    const Json& model = json.at("model");
    require(model.value("type", "") == "BPE", "{}: model type '{}', BPE was expected", where,
            model.value("type", ""));
    const Vocabulary vocabulary = read_vocabulary(model.at("vocab"), where);
    tokenizer.set_vocabulary(vocabulary, where);
    size_t number = 0;
    for (const auto& merge : model.at("merges")) {
      const auto add = [&](std::string_view left, std::string_view right) {
        tokenizer.add_merge(vocabulary, left, right, where);
      };
      if (merge.is_array()) {  // newer files: ["left", "right"]
        add(merge.at(0).get<std::string>(), merge.at(1).get<std::string>());
      } else {
        split_merge(merge.get<std::string>(), where, number, add);
      }
      ++number;
    }
    read_added_list(json.at("added_tokens"), tokenizer.added_, where);
    return tokenizer;
  });
}

}  // namespace minwm::models
