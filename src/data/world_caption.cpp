// What a world's first view shows, in words, and the words as numbers. Spec data-camera-eval 13.7,
// tiny-world 2.

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string_view>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "world_scene.h"

namespace minwm::data {
namespace {

constexpr size_t kNamedObjects = 4;
constexpr int64_t kTokens = 2 + kNamedObjects, kTokenSize = 32;

double azimuth_degrees(const Object& object) {
  return std::atan2(object.x, object.z) * 180 / std::numbers::pi;
}

/// Pixels of every object in a small first view, so that hidden objects are not named.
std::vector<int64_t> visible_pixels(const World& world) {
  World probe = world;
  const WorldStyle& style = world.style;
  probe.style.width = std::min<int64_t>(style.width, 64);
  probe.style.height = std::max<int64_t>(1, probe.style.width * style.height / style.width);
  probe.style.samples = 1;
  const at::Tensor ids = render(probe, at::eye(4, at::kDouble).unsqueeze(0), true).objects;
  std::vector<int64_t> pixels(world.objects.size(), 0);
  const int32_t* values = ids.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < ids.numel(); ++i) {
    if (values[i] >= 2) {
      ++pixels[static_cast<size_t>(values[i] - 2)];
    }
  }
  return pixels;
}

std::string describe(const Object& object) {
  constexpr std::array<const char*, 5> kPatternWords = {"", "checkered ", "striped ", "dotted ",
                                                        "mottled "};
  constexpr std::array<const char*, 3> kShapeWords = {"box", "pillar", "ball"};
  const char* size = object.height > 1 ? "tall" : object.height < .5F ? "small" : "medium";
  const double azimuth = azimuth_degrees(object);
  const char* position = std::abs(azimuth) < 12 ? "straight ahead"
                         : azimuth < 0          ? "to the left"
                                                : "to the right";
  return fmt::format("a {} {} {}{} {}", size, kColorNames[static_cast<size_t>(object.color)],
                     kPatternWords[static_cast<size_t>(object.texture.pattern)],
                     kShapeWords[static_cast<size_t>(object.shape)], position);
}

/// The nearest visible objects, nearest first: "a …, a … and a …".
std::string describe_objects(const World& world) {
  constexpr double kViewDegrees = 44;
  constexpr int64_t kFewestPixels = 3;
  const std::vector<int64_t> pixels = visible_pixels(world);
  std::vector<const Object*> seen;
  for (size_t k = 0; k < world.objects.size(); ++k) {
    if (pixels[k] >= kFewestPixels && std::abs(azimuth_degrees(world.objects[k])) < kViewDegrees) {
      seen.push_back(&world.objects[k]);
    }
  }
  std::stable_sort(seen.begin(), seen.end(), [](const Object* a, const Object* b) {
    return std::hypot(a->x, a->z) < std::hypot(b->x, b->z);
  });
  seen.resize(std::min(seen.size(), kNamedObjects));
  std::string text;
  for (size_t k = 0; k < seen.size(); ++k) {
    text += k == 0 ? "" : k + 1 == seen.size() ? " and " : ", ";
    text += describe(*seen[k]);
  }
  return text;
}

uint32_t crc32(std::string_view text) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ (0xEDB88320 & (0 - (crc & 1)));
    }
  }
  return ~crc;
}

template <size_t n>
bool is_one_of(const std::string& word, const std::array<std::string_view, n>& list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

/// Words that end a phrase, and words that say nothing by themselves.
constexpr std::array<std::string_view, 8> kSeparators = {"and",  "with",  "under", "beneath",
                                                         "lies", "stand", "on",    "below"};
constexpr std::array<std::string_view, 12> kFillers = {"a",  "an", "the", "it",  "its",   "to",
                                                       "of", "in", "is",  "are", "there", "at"};
constexpr std::array<std::string_view, 4> kGroundWords = {"plain", "ground", "floor", "field"};

using Phrase = std::vector<std::string>;

/// Lower-case words, cut into phrases at punctuation and separators. Letters of other scripts count
/// as parts of words. keep_all: separators and fillers are words too.
std::vector<Phrase> split_phrases(const std::string& text, bool keep_all) {
  std::vector<Phrase> phrases(1);
  std::string word;
  const auto end_word = [&] {
    if (keep_all || !is_one_of(word, kSeparators)) {
      if (!word.empty() && (keep_all || !is_one_of(word, kFillers))) {
        phrases.back().push_back(word);
      }
    } else {
      phrases.emplace_back();
    }
    word.clear();
  };
  for (const char c : text) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c & 0x80) != 0) {
      word += upper ? static_cast<char>(c + 32) : c;
    } else if (c != '\'') {  // "it's" is one word
      end_word();
      if (c != ' ' && c != '-' && c != '\t') {
        phrases.emplace_back();
      }
    }
  }
  end_word();
  std::erase_if(phrases, [](const Phrase& phrase) { return phrase.empty(); });
  return phrases;
}

/// Ground and sky by their words, everything else in its order; what is left over after four
/// objects joins them again from the first.
std::array<Phrase, kTokens> assign_tokens(const std::vector<Phrase>& phrases) {
  std::array<Phrase, kTokens> tokens;
  size_t others = 0;
  for (const Phrase& phrase : phrases) {
    const bool sky = std::find(phrase.begin(), phrase.end(), "sky") != phrase.end();
    const bool ground = std::any_of(phrase.begin(), phrase.end(), [](const std::string& w) {
      return is_one_of(w, kGroundWords);
    });
    size_t token = 2 + others % kNamedObjects;
    if (ground && tokens[0].empty()) {
      token = 0;
    } else if (sky && tokens[1].empty()) {
      token = 1;
    } else {
      ++others;
    }
    tokens[token].insert(tokens[token].end(), phrase.begin(), phrase.end());
  }
  return tokens;
}

}  // namespace

std::string caption(const World& world) {
  const char* ground = kGroundNames[static_cast<size_t>(world.ground.kind)];
  const char* sky = kSkyNames[static_cast<size_t>(world.sky.kind)];
  const std::string objects = describe_objects(world);
  const int64_t wording = world_stream(world.seed, kCaptionStream).integer(3);
  if (objects.empty()) {
    return fmt::format("A {} plain under {}.", ground, sky);
  }
  switch (wording) {
    case 0:
      return fmt::format("A {} plain under {}, with {}.", ground, sky, objects);
    case 1:
      return fmt::format("Under {} lies a {} plain. On it stand {}.", sky, ground, objects);
    default:
      return fmt::format("There is {} on a {} plain beneath {}.", objects, ground, sky);
  }
}

at::Tensor caption_embedding(const std::string& caption) {
  std::vector<Phrase> phrases = split_phrases(caption, false);
  if (phrases.empty()) {
    phrases = split_phrases(caption, true);
  }
  at::Tensor out = at::zeros({kTokens, kTokenSize}, at::kFloat);
  float* values = out.mutable_data_ptr<float>();
  const std::array<Phrase, kTokens> tokens = assign_tokens(phrases);
  for (size_t token = 0; token < tokens.size(); ++token) {
    const double scale =
        1 / std::sqrt(std::max<double>(1, static_cast<double>(tokens[token].size())));
    std::array<double, kTokenSize> sum{};
    for (const std::string& word : tokens[token]) {
      RandomStream random(RandomKey{.seed = crc32(word), .purpose = "caption.word"});
      for (double& value : sum) {
        value += random.normal();
      }
    }
    for (const double value : sum) {
      *values++ = static_cast<float>(scale * value);
    }
  }
  return out;
}

}  // namespace minwm::data
