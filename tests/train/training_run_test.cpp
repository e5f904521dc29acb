// Whole runs on 1, 2 and 4 ranks: what a run computes must not depend on how it is shared out or
// interrupted.

#include <csignal>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/random.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/stages/bidirectional.h"
#include "minwm/stages/teacher_forcing.h"
#include "minwm/train/data_parallel.h"
#include "minwm/train/loop.h"
#include "mpi_test.h"
#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;
using testing::error_of;
using ::testing::HasSubstr;

constexpr int64_t kFrames = 4, kChannels = 16, kSize = 4, kTokens = 6, kTextDim = 32;

/// Two kinds of numbers, learnable: the text says what the latents are.
data::Clip make_clip(int64_t index) {
  const auto sample = static_cast<uint64_t>(index);
  data::Clip clip;
  clip.sample_id = fmt::format("clip-{:03}", index);
  clip.caption = "numbers";
  clip.source = fmt::format("test:{}", index);
  clip.text = random_normal({kTokens, kTextDim}, {1, "text", sample % 2});
  clip.latents = random_normal({kFrames, kChannels, kSize, kSize}, {1, "latents", sample % 2}) +
                 0.1 * random_normal({kFrames, kChannels, kSize, kSize}, {1, "detail", sample});
  clip.world_to_camera = at::eye(4).repeat({kFrames, 1, 1});
  for (int64_t t = 0; t < kFrames; ++t) {
    clip.world_to_camera[t][2][3] = -0.08 * static_cast<double>(t) * static_cast<double>(index % 3);
  }
  clip.intrinsics = at::tensor({0.5F, 0.0F, 0.5F, 0.0F, 0.5F, 0.5F, 0.0F, 0.0F, 1.0F}).view({3, 3});
  return clip;
}

/// A backbone of the real kind that is as small as can be.
std::shared_ptr<models::Backbone> make_model() {
  models::WanConfig config = models::wan_preset("wan-tiny");
  config.dim = 64;
  config.ffn_dim = 128;
  config.num_heads = 2;
  config.num_layers = 2;
  return std::make_shared<models::WanBackbone>(config, 5);
}

comm::Communicator& everyone() {
  return *testing::world().communicator();
}

comm::Mesh whole_world() {
  return comm::make_mesh(testing::world().communicator(), {.timeout = 30});
}

comm::Mesh alone() {
  const auto self = comm::self_communicator();
  return {self, self, self, self, self, self, self, self};
}

struct Line {
  int64_t step;
  double loss, grad_norm;
  bool operator==(const Line&) const = default;
};

class TrainingRunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    std::string name;
    if (testing::world().rank() == 0) {
      folder_ = std::make_unique<testing::TemporaryFolder>();
      name = folder_->path().string();
      const data::StoreLayout layout{kFrames,  kChannels, kSize, kSize,        kTokens,
                                     kTextDim, 32,        32,    "test-codec", "{}"};
      data::LatentStoreWriter writer(folder_->path() / "clips.h5", layout, 11,
                                     comm::self_communicator());
      for (int64_t i = 0; i < 11; ++i) {
        writer.write(i, make_clip(i));
      }
      writer.close();
    }
    path_ = everyone().broadcast_string(name, 0, "test folder");
    options_.train.steps = 6;
    options_.train.global_batch = 4;
    options_.optimizer.lr = 1e-3;
    options_.ema.decay = 0.9;
    options_.ema.ramp = true;
    options_.tokens_per_clip = kFrames * kSize * kSize / 4;
    info_.seed = 5;
    info_.model = "wan-tiny";
    info_.stage = "bidirectional";
    info_.config = "seed = 5\n";
  }
  void TearDown() override { everyone().barrier("test folder"); }

  RunParts parts() const {
    RunParts parts;
    const auto model = make_model();
    stages::FlowOptions flow;
    flow.text_dropout = 0.3;
    flow.clean_first = 0.5;
    flow.chunk_frames = 2;
    if (info_.stage == "bidirectional") {
      parts.stage = std::make_shared<stages::Bidirectional>(model, flow);
    } else {
      parts.stage = std::make_shared<stages::TeacherForcing>(model, flow);
    }
    parts.stores = {std::make_shared<const data::LatentStore>(path_ / "clips.h5")};
    parts.info = info_;
    return parts;
  }
  RunOptions in(const std::string& folder) const {
    RunOptions options = options_;
    options.output = path_ / folder;
    return options;
  }
  bool train(const std::string& folder, const comm::Mesh& mesh) const {
    const StopSignals signals;
    return TrainingRun(in(folder), parts(), mesh).run(signals);
  }
  /// On the first rank only, with the whole batch.
  void train_alone(const std::string& folder) const {
    if (testing::world().rank() == 0) {
      train(folder, alone());
    }
    everyone().barrier("alone");
  }
  std::vector<Line> curve(const std::string& folder) const {
    std::ifstream in(path_ / folder / "metrics.jsonl");
    std::vector<Line> lines;
    for (std::string text; std::getline(in, text);) {
      const auto json = nlohmann::json::parse(text);
      lines.push_back({json["step"], json["loss"], json["grad_norm"]});
    }
    return lines;
  }
  void expect_same_curve(const std::string& one, const std::string& other, double tolerance) const {
    const auto a = curve(one), b = curve(other);
    ASSERT_EQ(a.size(), static_cast<size_t>(options_.train.steps));
    ASSERT_EQ(b.size(), a.size());
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].step, static_cast<int64_t>(i) + 1);
      worst = std::max(worst, std::abs(a[i].loss - b[i].loss) / a[i].loss);
    }
    EXPECT_LT(worst, tolerance);
    if (testing::world().rank() == 0) {
      fmt::print("largest relative difference of {} losses: {:.1e}\n", a.size(), worst);
    }
  }

  std::unique_ptr<testing::TemporaryFolder> folder_;
  fs::path path_;
  RunOptions options_;
  CheckpointInfo info_;
};

TEST_F(TrainingRunTest, TwentyLossesDoNotDependOnTheRanks) {
  options_.train.steps = 20;
  train_alone("alone");
  train("together", whole_world());
  expect_same_curve("alone", "together", 1e-5);
}

TEST_F(TrainingRunTest, LossesOfMuonDoNotDependOnTheRanks) {
  options_.train.steps = 20;
  options_.optimizer.name = "muon";
  options_.optimizer.muon_min_side = 8;
  train_alone("alone");
  train("together", whole_world());
  // Newton-Schulz in bfloat16 amplifies the last bits of small singular values.
  expect_same_curve("alone", "together", 2e-4);
}

TEST_F(TrainingRunTest, LossesDoNotDependOnTheAccumulation) {
  info_.stage = "teacher-forcing";
  train_alone("at-once");
  options_.train.micro_batch = 1;
  train("accumulated", whole_world());
  expect_same_curve("at-once", "accumulated", 1e-5);
}

TEST_F(TrainingRunTest, LearnsWhatTheTextSays) {
  options_.train.steps = 60;
  options_.optimizer.name = "muon";
  options_.optimizer.muon_min_side = 8;
  options_.optimizer.muon_one_dim_rule = false;
  options_.optimizer.lr = 1e-2;
  train("learns", whole_world());
  const auto lines = curve("learns");
  double first = 0, last = 0;
  for (size_t i = 0; i < 8; ++i) {
    first += lines[i].loss;
    last += lines[lines.size() - 1 - i].loss;
  }
  EXPECT_LT(last, 0.8 * first);
}

TEST_F(TrainingRunTest, ARunStoppedByASignalToOneRankContinuesBitForBit) {
  options_.optimizer.name = "muon";
  options_.optimizer.muon_min_side = 8;
  EXPECT_TRUE(train("through", whole_world()));
  options_.eval_every = 2;
  {
    const StopSignals signals;
    RunParts interrupted = parts();
    interrupted.evaluate = [calls = 0]() mutable {
      if (++calls == 1 && testing::world().rank() == testing::world().size() - 1) {
        std::raise(SIGUSR1);
      }
      return std::map<std::string, double>{{"camera_gap", 1.0}};
    };
    TrainingRun run(in("stopped"), std::move(interrupted), whole_world());
    EXPECT_FALSE(run.run(signals));
    EXPECT_EQ(run.step(), 3);  // the signal came between steps 2 and 3
  }
  const auto latest = latest_checkpoint(path_ / "stopped");
  ASSERT_TRUE(latest.has_value());
  {
    const StopSignals signals;
    TrainingRun run(in("stopped"), parts(), whole_world());
    run.resume(Checkpoint(*latest));
    EXPECT_EQ(run.step(), 3);
    EXPECT_TRUE(run.run(signals));
  }
  EXPECT_EQ(curve("through"), curve("stopped"));
  const Checkpoint expected(path_ / "through"), resumed(path_ / "stopped");
  EXPECT_EQ(expected.info().step, 6);
  ASSERT_EQ(expected.names(), resumed.names());
  for (const auto& name : expected.names()) {
    EXPECT_TRUE(at::equal(expected.read(name), resumed.read(name))) << name;
  }
}

TEST_F(TrainingRunTest, ACheckpointOfManyRanksContinuesOnOne) {
  options_.train.steps = 3;
  train("run", whole_world());
  options_.train.steps = 6;
  if (testing::world().rank() == 0) {
    const StopSignals signals;
    TrainingRun run(in("run"), parts(), alone());
    run.resume(Checkpoint(path_ / "run"));
    EXPECT_TRUE(run.run(signals));
  }
  train_alone("alone");
  expect_same_curve("alone", "run", 1e-5);
}

TEST_F(TrainingRunTest, EvaluatesWithTheAverageAndPutsTheWeightsBack) {
  options_.train.steps = 2;
  options_.eval_every = 2;
  RunParts observed = parts();
  at::Tensor seen;
  observed.evaluate = [&seen, model = observed.stage->networks()[0].module] {
    seen = model->named_parameters()["head.head.weight"].detach().clone();
    return std::map<std::string, double>{{"camera_gap", 2.5}};
  };
  const auto model = observed.stage->networks()[0].module;
  const StopSignals signals;
  TrainingRun(in("evaluated"), std::move(observed), whole_world()).run(signals);
  const Checkpoint checkpoint(path_ / "evaluated");
  EXPECT_TRUE(at::equal(seen, checkpoint.read("model/ema/head.head.weight")));
  EXPECT_TRUE(at::equal(model->named_parameters()["head.head.weight"],
                        checkpoint.read("model/param/head.head.weight")));
  std::ifstream in(path_ / "evaluated" / "metrics.jsonl");
  std::string first, second;
  std::getline(in, first);
  std::getline(in, second);
  EXPECT_FALSE(nlohmann::json::parse(first).contains("camera_gap"));
  EXPECT_EQ(nlohmann::json::parse(second)["camera_gap"], 2.5);
}

TEST_F(TrainingRunTest, AStepWithALargeNormIsNotApplied) {
  options_.train.steps = 2;
  options_.optimizer.skip_norm = 1e-6;
  train("skipped", whole_world());
  const Checkpoint checkpoint(path_ / "skipped");
  const auto model = make_model();
  for (const auto& item : model->named_parameters()) {
    EXPECT_TRUE(at::equal(item.value(), checkpoint.read("model/param/" + item.key())))
        << item.key();
  }
  std::ifstream in(path_ / "skipped" / "metrics.jsonl");
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(nlohmann::json::parse(line)["skipped"], true);
}

/// Divides by zero at one step of one rank.
class BrokenStage : public stages::Stage {
 public:
  explicit BrokenStage(std::shared_ptr<stages::Stage> stage) : stage_(std::move(stage)) {}
  std::string name() const override { return stage_->name(); }
  std::vector<stages::Network> networks() const override { return stage_->networks(); }
  stages::LossOutput loss(size_t network, const data::Batch& batch,
                          const stages::StepAddress& address) override {
    auto output = stage_->loss(network, batch, address);
    if (address.step == 3 && testing::world().rank() == testing::world().size() - 1) {
      output.loss = output.loss / 0;
    }
    return output;
  }

 private:
  std::shared_ptr<stages::Stage> stage_;
};

TEST_F(TrainingRunTest, OneInfiniteLossIsNotAppliedAndTheRunGoesOn) {
  RunParts broken = parts();
  broken.stage = std::make_shared<BrokenStage>(broken.stage);
  const StopSignals signals;
  EXPECT_TRUE(TrainingRun(in("once"), std::move(broken), whole_world()).run(signals));
  std::ifstream in(path_ / "once" / "metrics.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(nlohmann::json::parse(line));
  }
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_EQ(lines[3]["skipped"], true);
  EXPECT_TRUE(lines[3]["loss"].is_null());
  EXPECT_FALSE(lines[4].contains("skipped"));
  EXPECT_TRUE(lines[5]["loss"].is_number());
}

TEST_F(TrainingRunTest, AnInfiniteLossOfOneRankEndsAllAndNamesTheStep) {
  options_.checkpoint.every = 2;
  options_.health.max_bad_steps = 1;
  RunParts broken = parts();
  broken.stage = std::make_shared<BrokenStage>(broken.stage);
  const StopSignals signals;
  TrainingRun run(in("broken"), std::move(broken), whole_world());
  try {
    run.run(signals);
    ADD_FAILURE() << "the run went on";
  } catch (const AgreedError& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 4: model: loss inf"));
    EXPECT_THAT(error.what(), HasSubstr("the weights of step 2 are in"));
    EXPECT_EQ(error.exit_code(), kExitFailure);
  }
  EXPECT_EQ(run.step(), 3);
  EXPECT_EQ(Checkpoint(path_ / "broken").info().step, 2);
}

TEST_F(TrainingRunTest, RefusesToContinueAnotherRun) {
  options_.train.steps = 1;
  train("run", whole_world());
  const Checkpoint checkpoint(path_ / "run");
  const auto refusal = [&](const auto& change) {
    RunParts other = parts();
    RunOptions options = in("run");
    change(other.info, options);
    TrainingRun run(options, std::move(other), whole_world());
    return error_of([&] { run.resume(checkpoint); });
  };
  EXPECT_THAT(refusal([](auto& info, auto&) { info.model = "wan-1.3b"; }),
              HasSubstr("holds model 'wan-tiny', this run trains 'wan-1.3b'"));
  EXPECT_THAT(refusal([](auto& info, auto&) { info.stage = "teacher-forcing"; }),
              HasSubstr("was saved by stage 'bidirectional', this run is 'teacher-forcing'"));
  EXPECT_THAT(refusal([](auto& info, auto&) { info.seed = 6; }),
              HasSubstr("was trained with seed 5, this run has seed 6"));
  EXPECT_THAT(refusal([](auto&, auto& options) { options.optimizer.name = "muon"; }),
              HasSubstr("optimizer state: lacks"));
}

TEST(DataParallel, AveragesGradientsInSeveralBucketsAndLeavesUnusedParametersAlone) {
  const auto mesh = whole_world();
  const auto rank = static_cast<double>(mesh.data_rank()),
             size = static_cast<double>(mesh.data_size());
  NamedParameters parameters;
  for (const char* const name : {"first", "unused", "second", "third"}) {
    parameters.emplace_back(name, at::ones({700, 1000}).requires_grad_(true));
  }
  DataParallel ranks(mesh, parameters);
  for (int step = 0; step < 2; ++step) {
    ranks.begin_step();
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
      if (micro_batch == 1) {
        ranks.reduce_in_backward();
      }
      const at::Tensor loss = parameters[0].second.sum() * (rank + 1) +
                              parameters[2].second.sum() * 2 + parameters[3].second.sum();
      (loss / (2 * size)).backward();
    }
    ranks.finish_gradients();
    EXPECT_NEAR(parameters[0].second.grad()[699][999].item<double>(), (size + 1) / 2, 1e-6);
    EXPECT_NEAR(parameters[2].second.grad()[0][0].item<double>(), 2, 1e-6);
    EXPECT_NEAR(parameters[3].second.grad()[5][5].item<double>(), 1, 1e-6);
    EXPECT_FALSE(parameters[1].second.grad().defined());
  }
}

TEST(Muon, RanksThatShareTheWorkGetWhatOneRankGets) {
  OptimizerOptions options;
  options.name = "muon";
  options.muon_bf16 = false;
  const auto run = [&](std::shared_ptr<comm::Communicator> ranks) {
    NamedParameters parameters;
    for (int i = 0; i < 5; ++i) {
      parameters.emplace_back(
          fmt::format("matrix {}", i),
          random_normal({24, 16}, {1, "w", static_cast<uint64_t>(i)}).requires_grad_(true));
      parameters.back().second.mutable_grad() =
          random_normal({24, 16}, {1, "g", static_cast<uint64_t>(i)});
    }
    const auto optimizer = make_optimizer(options, parameters, {{}, std::move(ranks)});
    optimizer->step(0.1);
    optimizer->step(0.1);
    return parameters;
  };
  const auto shared = run(testing::world().communicator()), own = run(nullptr);
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_TRUE(at::allclose(shared[i].second, own[i].second, 1e-5, 1e-6)) << own[i].first;
  }
}

}  // namespace
}  // namespace minwm::train
