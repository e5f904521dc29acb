#include "convert.h"

#include <cstring>
#include <filesystem>

#include <unistd.h>

#include "convert_settings.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/options.h"
#include "minwm/core/sharded_safetensors.h"
#include "minwm/models/codec/codec.h"
#include "minwm/models/upstream.h"
#include "minwm/models/upstream_config.h"
#include "minwm/models/weights_file.h"
#include "minwm/train/model_source.h"
#include "minwm/train/weights_step.h"

namespace minwm::apps {

void ConvertOptions::declare(Options& options) {
  options.add("input", &input,
              "published weights (a file, an index of shards, or their folder), or a checkpoint "
              "of minwm train");
  options.add("output", &output, "folder to make");
  options.add("model", &model, "preset; empty = the one whose names and shapes fit");
  options.add("to", &to,
              "minwm (for generate --checkpoint, train --init), hf (what upstream loads), or "
              "safetensors (any weights, names as they are); empty = minwm for published "
              "weights, hf for ours");
  options.add_choice("dtype", &type, {"keep", "float32", "bfloat16", "float16"},
                     "type of the weights; keep = as they are");
  options.add("state", &state,
              "generator or generator_ema of a model.pt or of a checkpoint, or another key; empty "
              "= the averaged one where there is one");
  options.add("stage", &stage,
              "stage of `minwm train` that made published weights; empty = as their folder's "
              "name says");
  options.add("codec", &codec, "codec file that --to minwm attaches");
  options.add("max_shard_size", &max_shard,
              "most bytes of a safetensors file (5GB, 500MB or a number); 0 = one file");
  options.add("verify", &verify, "read the result back and compare every byte before it appears");
}

namespace {

namespace fs = std::filesystem;

/// "5GB" → 5'000'000'000, as upstream counts.
int64_t parse_size(const std::string& text) {
  int64_t unit = 1;
  std::string number = text;
  for (const auto& [suffix, factor] : {std::pair{"GB", int64_t{1'000'000'000}},
                                       {"MB", int64_t{1'000'000}},
                                       {"KB", int64_t{1000}}}) {
    if (text.ends_with(suffix)) {
      number = text.substr(0, text.size() - 2);
      unit = factor;
    }
  }
  const bool digits = !number.empty() && number.size() <= 9 + (unit == 1 ? 6 : 0) &&
                      number.find_first_not_of("0123456789") == std::string::npos;
  require(digits, "--max_shard_size {}: expected a size such as 5GB, 500MB or 1000000", text);
  return std::stoll(number) * unit;
}

/// A folder beside `final_path` that is removed unless it is published.
class PendingFolder {
 public:
  explicit PendingFolder(fs::path final_path)
      : final_(std::move(final_path)), path_(final_.string() + fmt::format(".tmp.{}", ::getpid())) {
    std::error_code error;
    fs::create_directories(path_, error);
    require(!error, "cannot make {}: {}", path_.string(), error.message());
  }
  ~PendingFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  PendingFolder(const PendingFolder&) = delete;
  PendingFolder& operator=(const PendingFolder&) = delete;
  const fs::path& path() const { return path_; }
  void publish() const { publish_directory(path_, final_); }

 private:
  fs::path final_, path_;
};

bool is_ours(const fs::path& path) {
  if (!fs::is_directory(path)) {
    return path.filename() == "state.h5";
  }
  return fs::exists(path / "state.h5") || fs::exists(path / "checkpoints") ||
         fs::exists(path / "step-000000") || train::latest_checkpoint(path).has_value();
}

/// What is to be written, whatever it comes from.
struct Weights {
  models::ParameterSource source;
  std::string model;  ///< preset; "" = nobody's
  train::CheckpointInfo info;
  std::vector<fs::path> codec;  ///< none or one
  std::string found;            ///< what it is, in words
};

Weights open_ours(const ConvertOptions& options) {
  const auto checkpoint =
      std::make_shared<const train::Checkpoint>(train::checkpoint_folder(options.input));
  const std::string where = checkpoint->path().string();
  const bool averaged = checkpoint->weights_group() == "model/ema/";
  require(options.state.empty() || options.state == "generator" ||
              (options.state == "generator_ema" && averaged),
          "--state {}: {} has {}", options.state, where,
          averaged ? "generator and generator_ema" : "generator only");
  Weights weights;
  weights.info = checkpoint->info();
  weights.model = weights.info.model;
  require(options.model.empty() || options.model == weights.model,
          "{}: holds model '{}', expected '{}'", where, weights.model, options.model);
  weights.source = train::model_source(checkpoint, options.state != "generator");
  if (!weights.info.codec.empty()) {
    weights.codec.push_back(checkpoint->path() / weights.info.codec);
  }
  weights.found = fmt::format("{}: {} of stage {}, {}", where, weights.model, weights.info.stage,
                              averaged && options.state != "generator" ? "averaged" : "as trained");
  return weights;
}

Weights open_theirs(const ConvertOptions& options) {
  Weights weights;
  if (options.to == "safetensors") {
    auto file = models::open_weights(options.input, options.state, false);
    weights.found = fmt::format("{}: {}", file.file.string(), file.layout);
    weights.source = std::move(file.source);
    return weights;
  }
  auto upstream = models::open_upstream(options.input, options.state, options.model);
  weights.model = upstream.preset;
  if (options.to != "hf") {
    weights.info = settings_of(upstream, options.stage);
    weights.info.codec.clear();
  } else if (upstream.metadata.contains(kCheckpointNote)) {
    weights.info = settings_of(upstream, options.stage);
  }
  weights.found = fmt::format(
      "{}: {}{}{}, {}{}", upstream.file.string(), upstream.layout,
      upstream.state.empty() ? "" : " with state " + upstream.state,
      upstream.diffusers ? " with names of diffusers" : "", upstream.preset,
      upstream.zero.empty()
          ? ""
          : fmt::format(", {} camera projections are absent and zero", upstream.zero.size()));
  weights.source = std::move(upstream.source);
  return weights;
}

/// The parameters as they are to be written.
class Converted {
 public:
  Converted(models::ParameterSource source, const std::string& type) : source_(std::move(source)) {
    for (const auto& [name, shape] : source_.shapes) {
      const at::ScalarType own = models::type_of(source_, name);
      // Positions and the like stay what they are.
      entries_.push_back({name, c10::isFloatingType(own) ? target(type, own) : own, shape});
    }
  }
  const std::vector<TensorEntry>& entries() const { return entries_; }
  at::Tensor read(size_t i) const {
    const auto& entry = entries_[i];
    const at::Tensor own = models::read_whole(source_, entry.name);
    const at::Tensor out = own.to(entry.dtype);
    require(out.scalar_type() == own.scalar_type() || entry.dtype != at::kHalf ||
                !own.isfinite().all().item<bool>() || out.isfinite().all().item<bool>(),
            "{}: parameter '{}' does not fit --dtype float16: use bfloat16 or float32",
            source_.where, entry.name);
    return out;
  }
  /// @throws Error unless `written` holds these parameters, bit for bit.
  void require_same(const models::ParameterSource& written) const {
    require(written.shapes == source_.shapes, "{}: holds other parameters than were written",
            written.where);
    for (size_t i = 0; i < entries_.size(); ++i) {
      const at::Tensor expected = read(i).contiguous();
      const at::Tensor found = models::read_whole(written, entries_[i].name).contiguous();
      require(found.scalar_type() == expected.scalar_type() &&
                  std::memcmp(found.const_data_ptr(), expected.const_data_ptr(),
                              expected.nbytes()) == 0,
              "{}: parameter '{}' is not what was written", written.where, entries_[i].name);
    }
  }

 private:
  static at::ScalarType target(const std::string& type, at::ScalarType own) {
    return type == "float32"    ? at::kFloat
           : type == "bfloat16" ? at::kBFloat16
           : type == "float16"  ? at::kHalf
                                : own;
  }
  models::ParameterSource source_;
  std::vector<TensorEntry> entries_;
};

/// A checkpoint of ours in `folder`.
void write_ours(const ConvertOptions& options, Weights& weights, const Converted& converted,
                const fs::path& folder) {
  if (!options.codec.empty()) {
    models::open_codec(options.codec);  // what is attached can be opened
    weights.codec = {options.codec};
  }
  weights.info.codec = weights.codec.empty() ? "" : weights.codec.front().filename().string();
  const fs::path step = train::write_weights_step(
      folder, weights.info, converted.entries(), [&](size_t i) { return converted.read(i); },
      weights.codec);
  if (options.verify) {
    converted.require_same(train::model_source(std::make_shared<const train::Checkpoint>(step)));
  }
}

/// A record without what belongs to the machine it was made on: paths.
train::CheckpointInfo shared_part(train::CheckpointInfo info) {
  info.config.clear();
  info.codec.clear();
  return info;
}

/// Safetensors, for a known model as upstream lays them out.
void write_theirs(const ConvertOptions& options, const Weights& weights, const Converted& converted,
                  const fs::path& folder) {
  ShardOptions shards;
  shards.max_shard_size = parse_size(options.max_shard);
  shards.metadata = {{"format", "pt"}};
  fs::path place = folder;
  if (!weights.model.empty()) {
    const auto model = models::make_hollow_backbone(weights.model);
    place = weights.model.starts_with("hy") ? folder / "transformer" : folder;
    shards.stem = "diffusion_pytorch_model";
    if (!weights.info.model.empty()) {
      shards.metadata[kCheckpointNote] = train::checkpoint_note(shared_part(weights.info));
    }
    atomic_write(place / "config.json", models::upstream_config(*model));
  }
  const fs::path file = write_sharded_safetensors(
      place, converted.entries(), [&](size_t i) { return converted.read(i); }, shards);
  if (options.verify) {
    converted.require_same(weights.model.empty()
                               ? models::open_weights(file, "", false).source
                               : models::open_upstream(file, "", weights.model).source);
  }
}

/// @throws Error naming the option. Returns the direction.
std::string checked_direction(const ConvertOptions& options, bool ours) {
  require(options.to.empty() || options.to == "minwm" || options.to == "hf" ||
              options.to == "safetensors",
          "--to {}: expected minwm, hf or safetensors", options.to);
  parse_size(options.max_shard);
  const std::string to = !options.to.empty() ? options.to : ours ? "hf" : "minwm";
  require(options.codec.empty() || to == "minwm", "--codec {}: only --to minwm attaches a codec",
          options.codec);
  return to;
}

}  // namespace

Conversion convert(const ConvertOptions& given) {
  ConvertOptions options = given;
  require(!options.input.empty(), "--input is missing: weights, or a checkpoint");
  require(!options.output.empty(), "--output is missing: the folder to make");
  require(fs::exists(options.input), "--input {}: does not exist", options.input);
  require(!fs::exists(fs::symlink_status(options.output)), "--output {}: exists already",
          options.output);
  const bool ours = is_ours(options.input);
  options.to = checked_direction(options, ours);
  Weights weights = ours ? open_ours(options) : open_theirs(options);
  const Converted converted(weights.source, options.type);
  const PendingFolder pending(options.output);
  if (options.to == "minwm") {
    write_ours(options, weights, converted, pending.path());
  } else {
    write_theirs(options, weights, converted, pending.path());
  }
  pending.publish();
  return {weights.found, std::ssize(converted.entries())};
}

}  // namespace minwm::apps
