// `minwm convert` as a user runs it; PyTorch, where there is one, on the other side.

#include <fstream>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/files.h"
#include "minwm/core/sharded_safetensors.h"
#include "src/apps/convert.h"
#include "tests/apps/small_model.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::expect_refused;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallModels;
using testing::TemporaryFolder;

std::string trained(const std::string& model) {
  return SmallModels::get().run_of(model, "teacher-forcing");
}

apps::ConvertOptions options_of(const fs::path& input, const fs::path& output) {
  apps::ConvertOptions options;
  options.input = input.string();
  options.output = output.string();
  return options;
}

using Change = std::function<void(apps::ConvertOptions&)>;

/// Converts and verifies; what the input turned out to be.
std::string convert(const fs::path& input, const fs::path& output, const Change& change = {}) {
  auto options = options_of(input, output);
  options.verify = true;
  if (change) {
    change(options);
  }
  return apps::convert(options).found;
}

std::string refusal(const fs::path& input, const fs::path& output, const Change& change = {}) {
  return testing::error_of([&] { convert(input, output, change); });
}

/// The files below a folder, by their paths in it.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) {
      files[fs::relative(entry.path(), folder).string()] = read_file(entry.path());
    }
  }
  return files;
}

/// wan-tiny as upstream would publish it. Made once.
const fs::path& export_of_wan() {
  static const TemporaryFolder folder;
  static const fs::path exported = [] {
    convert(trained("wan-tiny"), folder / "wan");
    return folder / "wan";
  }();
  return exported;
}

const fs::path& weights_of_wan() {
  static const fs::path path = export_of_wan() / "diffusion_pytorch_model.safetensors";
  return path;
}

using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

Tensors tensors_of(const fs::path& path) {
  const ShardedSafetensors file(path);
  Tensors tensors;
  for (const auto& name : file.names()) {
    tensors.emplace_back(name, file.view(name).clone());
  }
  return tensors;
}

TEST(Convert, ThereAndBackAndThereIsTheSameToTheByte) {
  for (const std::string model : {"wan-tiny", "hy-tiny"}) {
    const TemporaryFolder folder;
    const Change small = [](auto& options) { options.max_shard = "1MB"; };
    EXPECT_THAT(convert(trained(model), folder / "a", small),
                HasSubstr(model + " of stage teacher-forcing, as trained"));
    const fs::path place = model == "wan-tiny" ? folder / "a" : folder / "a" / "transformer";
    EXPECT_TRUE(fs::exists(place / "config.json"));
    EXPECT_TRUE(fs::exists(place / "diffusion_pytorch_model.safetensors.index.json"));
    EXPECT_THAT(convert(folder / "a", folder / "b"), HasSubstr("sharded safetensors, " + model));
    convert(folder / "b", folder / "c", small);
    EXPECT_TRUE(contents(folder / "a") == contents(folder / "c")) << model;
    EXPECT_EQ(folder.entries(), 3);
  }
}

TEST(Convert, AnExportSaysNothingOfTheMachineItWasMadeOn) {
  const auto metadata = ShardedSafetensors(weights_of_wan()).metadata();
  EXPECT_EQ(metadata.at("format"), "pt");
  EXPECT_THAT(metadata.at("minwm.checkpoint"),
              AllOf(HasSubstr("teacher-forcing"), Not(HasSubstr("/")), Not(HasSubstr("codec."))));
}

TEST(Convert, WeightsAreWrittenInTheTypeAskedFor) {
  const TemporaryFolder folder;
  convert(export_of_wan(), folder / "run", [](auto& o) { o.type = "bfloat16"; });
  convert(folder / "run", folder / "half");
  const ShardedSafetensors half(folder / "half" / "diffusion_pytorch_model.safetensors");
  auto tensors = tensors_of(weights_of_wan());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_TRUE(half.view(name).equal(tensor.to(at::kBFloat16))) << name;
  }
  tensors[5].second.view(-1)[0] = 1e6;
  write_safetensors(folder / "large.safetensors", tensors);
  EXPECT_THAT(refusal(folder / "large.safetensors", folder / "x",
                      [](auto& o) {
                        o.type = "float16";
                        o.to = "hf";
                      }),
              HasSubstr("parameter '" + tensors[5].first + "' does not fit --dtype float16"));
  EXPECT_EQ(folder.entries(), 3);
}

TEST(Convert, ABaseModelGetsZerosForItsCameras) {
  const TemporaryFolder folder;
  auto tensors = tensors_of(weights_of_wan());
  std::erase_if(tensors,
                [](const auto& item) { return item.first.find("prope_o") != std::string::npos; });
  fs::create_directories(folder / "Wan2.1-T2V-1.3B");
  write_safetensors(folder / "Wan2.1-T2V-1.3B" / "diffusion_pytorch_model.safetensors", tensors);
  EXPECT_THAT(convert(folder / "Wan2.1-T2V-1.3B", folder / "run"),
              HasSubstr("12 camera projections are absent and zero"));
  EXPECT_THAT(convert(folder / "run", folder / "hf"), HasSubstr("of stage bidirectional"));
  const ShardedSafetensors file(folder / "hf" / "diffusion_pytorch_model.safetensors");
  EXPECT_EQ(file.names().size(), tensors.size() + 12);
  EXPECT_EQ(file.view("blocks.3.self_attn.prope_o.weight").abs().sum().item<float>(), 0);
}

TEST(Convert, ExtraMissingAndWronglyShapedTensorsAreNamed) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::function<void(Tensors&)>& change, const std::string& reason) {
    auto tensors = tensors_of(weights_of_wan());
    change(tensors);
    write_safetensors(folder / "x.safetensors", tensors);
    for (const char* model : {"", "wan-tiny"}) {
      EXPECT_THAT(refusal(folder / "x.safetensors", folder / "out",
                          [&](auto& o) {
                            o.stage = "dmd";
                            o.model = model;
                          }),
                  AllOf(HasSubstr("x.safetensors"), HasSubstr(reason)));
    }
    EXPECT_EQ(folder.entries(), 1);
  };
  refused([](Tensors& tensors) { tensors.emplace_back("stray.weight", at::ones({2})); },
          "has a parameter 'stray.weight' that the model does not know");
  refused([](Tensors& tensors) { tensors.erase(tensors.begin()); },
          "lacks the parameter 'blocks.0.cross_attn.k.bias'");
  refused([](Tensors& tensors) { tensors.front().second = at::ones({3}); },
          "parameter 'blocks.0.cross_attn.k.bias' has shape [3], expected [128]");
  // One camera projection of many is damage, none of them is a base model.
  refused(
      [](Tensors& tensors) {
        std::erase_if(tensors, [](const auto& item) {
          return item.first == "blocks.1.self_attn.prope_o.bias";
        });
      },
      "lacks the parameter 'blocks.1.self_attn.prope_o.bias'");
}

TEST(Convert, AConfigThatSaysOtherwiseIsRefused) {
  const TemporaryFolder folder;
  fs::copy(export_of_wan(), folder / "wan");
  auto config = nlohmann::json::parse(read_file(folder / "wan" / "config.json"));
  config["num_heads"] = 8;
  atomic_write(folder / "wan" / "config.json", config.dump());
  EXPECT_THAT(refusal(folder / "wan", folder / "out"),
              HasSubstr("config.json: num_heads is 8, wan-tiny has 4"));
  EXPECT_EQ(folder.entries(), 1);
}

TEST(Convert, RefusesWhatItCannotDoAndLeavesNothing) {
  const TemporaryFolder folder;
  const fs::path out = folder / "out";
  const auto refused = [&](const fs::path& input, const std::string& reason,
                           const Change& change = {}) {
    EXPECT_THAT(refusal(input, out, change), HasSubstr(reason));
  };
  const auto& wan = export_of_wan();
  refused(folder / "absent", "absent: does not exist");
  refused(folder.path(), "holds no weights");
  refused(wan, "--output " + wan.string() + ": exists already",
          [&](auto& o) { o.output = wan.string(); });
  refused(wan, "expected minwm, hf or safetensors", [](auto& o) { o.to = "onnx"; });
  for (const char* size : {"5XB", "GB", "", "-1", "99999999999GB"}) {
    refused(wan, fmt::format("--max_shard_size {}:", size), [&](auto& o) { o.max_shard = size; });
  }
  refused(wan, "is no hy-tiny: lacks", [](auto& o) { o.model = "hy-tiny"; });
  refused(wan, "has no states", [](auto& o) { o.state = "generator"; });
  refused(wan, "was exported from stage 'teacher-forcing', not --stage dmd",
          [](auto& o) { o.stage = "dmd"; });
  refused(wan, "only --to minwm attaches a codec", [](auto& o) {
    o.to = "hf";
    o.codec = "x";
  });
  refused(wan, "absent.safetensors", [](auto& o) { o.codec = "absent.safetensors"; });
  refused(trained("wan-tiny"), "has generator only", [](auto& o) { o.state = "generator_ema"; });
  refused(trained("wan-tiny"), "holds model 'wan-tiny', expected 'hy-tiny'",
          [](auto& o) { o.model = "hy-tiny"; });
  write_safetensors(folder / "x.safetensors", tensors_of(weights_of_wan()));
  refused(folder / "x.safetensors", "give --stage");
  refused(folder / "x.safetensors", "--stage sft: expected bidirectional",
          [](auto& o) { o.stage = "sft"; });
  write_safetensors(folder / "other.safetensors", {{"a", at::ones({2})}});
  refused(folder / "other.safetensors", "is no Wan or HY transformer");
  refused(folder.path(),
          "holds several files of weights, name one: other.safetensors, x.safetensors");
  EXPECT_EQ(folder.entries(), 2);
}

TEST(Convert, AnyWeightsBecomeSafetensorsUnderTheirOwnNames) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors",
                    {{"model.layers.0.weight", at::ones({2})}, {"steps", at::arange(3)}});
  convert(folder / "x.safetensors", folder / "y", [](auto& o) {
    o.to = "safetensors";
    o.type = "float16";
  });
  const ShardedSafetensors file(folder / "y" / "model.safetensors");
  EXPECT_EQ(file.dtype("model.layers.0.weight"), at::kHalf);
  EXPECT_EQ(file.dtype("steps"), at::kLong);
}

TEST(ConvertCommand, AConvertedCheckpointGeneratesWhatItsOriginalDoes) {
  const TemporaryFolder folder;
  const std::string run = (folder / "run").string();
  const Outcome outcome =
      run_minwm(fmt::format("convert --input {} --output {} --codec {} --verify",
                            export_of_wan().string(), run, SmallModels::get().codec()));
  EXPECT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_EQ(outcome.out, run + "\n");
  EXPECT_THAT(outcome.err, HasSubstr("wan-tiny; 189 parameters read back, every byte as written"));
  const auto video = [&](const std::string& checkpoint) {
    const fs::path file = folder / "video.mp4";
    const Outcome made = run_minwm(
        fmt::format("generate --checkpoint {} --output {} --world 3 --pose \"w*3\" --steps 1",
                    checkpoint, file.string()));
    EXPECT_EQ(made.code, kExitDone) << made.err;
    return read_file(file);
  };
  EXPECT_EQ(video(run), video(trained("wan-tiny")));
}

TEST(ConvertCommand, TrainingStartsFromAConvertedCheckpointAndItsAverageIsPreferred) {
  const TemporaryFolder folder;
  const std::string codec = SmallModels::get().codec(), store = (folder / "store.h5").string();
  convert(export_of_wan(), folder / "start");
  const Outcome synth = run_minwm(
      fmt::format("data synth --worlds 1 --latent_frames 8 --codec {} --store {} --width 32 "
                  "--height 32 --samples 1",
                  codec, store));
  ASSERT_EQ(synth.code, kExitDone) << synth.err;
  const fs::path run = folder / "run";
  const Outcome trained_on = run_minwm(
      fmt::format("train --stage teacher-forcing --init {} --data.stores {} --data.codec {} "
                  "--output.dir {} --train.steps 1 --train.global_batch 1 --train.threads 1 "
                  "--ema.decay 0.5",
                  (folder / "start").string(), store, codec, run.string()));
  ASSERT_EQ(trained_on.code, kExitDone) << trained_on.err;
  EXPECT_THAT(convert(run, folder / "a"), HasSubstr("averaged"));
  EXPECT_THAT(convert(run, folder / "b", [](auto& o) { o.state = "generator"; }),
              HasSubstr("as trained"));
  EXPECT_FALSE(contents(folder / "a") == contents(folder / "b"));
}

TEST(ConvertCommand, SaysInOneLineWhatIsMissing) {
  expect_refused(run_minwm("convert --output x"), "--input is missing");
  expect_refused(run_minwm("convert --input x"), "--output is missing");
  expect_refused(run_minwm("convert --check x"), "--check needs --model");
}

/// PyTorch's files of every layout, made once from the export of wan-tiny.
class ConvertTorchFiles : public ::testing::Test {
 protected:
  static std::string python(const std::string& arguments) {
    return fmt::format(
        "OMP_NUM_THREADS=1 {0}/.deps/venv/bin/python -W ignore "
        "{0}/tests/apps/convert_torch.py {1} 2>&1",
        MINWM_SOURCE_DIR, arguments);
  }
  static std::pair<int, std::string> run(const std::string& command) {
    FILE* const pipe = ::popen(command.c_str(), "r");
    std::array<char, 4096> buffer{};
    std::string out;
    while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
      out += buffer.data();
    }
    const int status = ::pclose(pipe);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, out};
  }
  static const TemporaryFolder& files() {
    static const TemporaryFolder folder;
    static const auto made =
        run(python(fmt::format("save {} {}", export_of_wan().string(), folder.path().string())));
    EXPECT_EQ(made.first, 0) << made.second;
    return folder;
  }
  void SetUp() override {
    if (!fs::exists(fmt::format("{}/.deps/venv/bin/python", MINWM_SOURCE_DIR))) {
      GTEST_SKIP() << "no Python with torch in .deps/venv (launch/setup makes it)";
    }
  }
  /// The tensors after a conversion to upstream's layout.
  Tensors converted(const std::string& file, const std::string& state = "") {
    const fs::path out = folder_ / fmt::format("out{}", count_++);
    convert(files() / file, out, [&](auto& o) {
      o.to = "hf";
      o.state = state;
    });
    return tensors_of(out / "diffusion_pytorch_model.safetensors");
  }
  void expect_tensors(const Tensors& found,
                      const std::function<at::Tensor(const at::Tensor&)>& change) {
    const auto expected = tensors_of(weights_of_wan());
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].first, expected[i].first);
      EXPECT_TRUE(found[i].second.equal(change(expected[i].second))) << found[i].first;
    }
  }
  TemporaryFolder folder_;
  int count_ = 0;
};

TEST_F(ConvertTorchFiles, EveryLayoutOfAModelFileIsRead) {
  const auto same = [](const at::Tensor& x) { return x; };
  expect_tensors(converted("bidirectional"), same);
  expect_tensors(converted("wrapped.pt"), same);
  expect_tensors(converted("bare.pth"), same);
  // The averaged state is what inference takes.
  expect_tensors(converted("causal_cd/checkpoint_model_000200"),
                 [](const at::Tensor& x) { return x * 2; });
  expect_tensors(converted("causal_cd/checkpoint_model_000200/model.pt", "generator"), same);
}

TEST_F(ConvertTorchFiles, HalfPrecisionViewsOfASharedStorageAreRead) {
  expect_tensors(converted("views.pt"), [](const at::Tensor& x) { return x.to(at::kBFloat16); });
}

TEST_F(ConvertTorchFiles, StageAndStepComeFromTheFolders) {
  convert(files() / "causal_cd/checkpoint_model_000200", folder_ / "run");
  EXPECT_TRUE(fs::exists(folder_ / "run" / "step-000200" / "state.h5"));
  EXPECT_THAT(convert(folder_ / "run", folder_ / "hf"), HasSubstr("wan-tiny of stage consistency"));
}

TEST_F(ConvertTorchFiles, WhatCannotBeReadIsNamedAndNothingIsWritten) {
  const auto refused = [&](const std::string& file, const std::string& reason,
                           const std::string& state = "") {
    EXPECT_THAT(refusal(files() / file, folder_ / "out",
                        [&](auto& o) {
                          o.stage = "dmd";
                          o.state = state;
                        }),
                AllOf(HasSubstr(file), HasSubstr(reason)));
    EXPECT_EQ(folder_.entries(), 0);
  };
  refused("hostile.pt", "refused: the file names 'pathlib.PurePosixPath'");
  refused("value.pt", "'step' is an integer, expected a tensor");
  refused("legacy.pt", "not a zip-format PyTorch file");
  refused("big.pt", "byte order 'big', expected 'little'");
  refused("twice.pt", "without the prefixes of wrappers");
  refused("bidirectional", "holds no state 'critic', but generator", "critic");
  refused("bare.pth", "holds no state 'generator', it is a state itself", "generator");
}

TEST_F(ConvertTorchFiles, PythonReadsWhatIsExported) {
  for (const std::string model : {"wan-tiny", "hy-tiny"}) {
    const fs::path whole = folder_ / (model + "-whole"), shards = folder_ / (model + "-shards");
    const Change half = [](auto& o) { o.type = "bfloat16"; };
    convert(trained(model), whole, half);
    convert(trained(model), shards, [&](auto& o) {
      half(o);
      o.max_shard = "400KB";
    });
    const auto [code, out] =
        run(python(fmt::format("same {} {}", whole.string(), shards.string())));
    EXPECT_EQ(code, 0) << out;
    EXPECT_EQ(out, model == "wan-tiny" ? "189\n" : "201\n");
  }
}

}  // namespace
}  // namespace minwm
