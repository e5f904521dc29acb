// `minwm plan` as a user runs it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "tests/apps/shell.h"

namespace minwm {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::shell;

Outcome plan(const std::string& arguments) {
  return shell(MINWM_BINARY_DIR "/minwm plan " + arguments);
}

TEST(PlanCommand, PrintsBytesPerRankBytesSentAndTime) {
  const Outcome outcome = plan("--model hy-8b --stage dmd --gpus 64 --gpu h200");
  ASSERT_EQ(outcome.code, kExitDone) << outcome.output;
  EXPECT_THAT(
      outcome.output,
      AllOf(HasSubstr("hy-8b (8.553 billion parameters), dmd, 20 latent frames of 1560 tokens"),
            HasSubstr("parameter slices"), HasSubstr("gradient slices"),
            HasSubstr("optimizer moments"), HasSubstr("running average"),
            HasSubstr("frozen networks"), HasSubstr("gathered blocks"),
            HasSubstr("generator   trained with an average, shared by "),
            HasSubstr("real score  frozen, shared by "), HasSubstr("KV cache of a rollout"),
            HasSubstr("head room"), HasSubstr("weights gathered"), HasSubstr("gradients reduced"),
            HasSubstr("estimates; assumed of h200: ")));
}

TEST(PlanCommand, JsonHoldsEveryFigureAndItsSum) {
  const Outcome outcome =
      plan("--model wan-1.3b --stage teacher-forcing --gpus 8 --parallel.context 4 --json");
  ASSERT_EQ(outcome.code, kExitDone) << outcome.output;
  const json out = json::parse(outcome.output);
  EXPECT_EQ(out["parameters"], 1489821760);
  EXPECT_EQ(out["mesh"]["context"], 4);
  int64_t sum = 0;
  for (const char* item :
       {"parameters", "casts", "gradients", "moments", "averages", "frozen", "root", "text_work",
        "gathered", "exchange", "flat_gradients", "block_gradients", "unreduced", "activations",
        "block_work", "kv_cache"}) {
    sum += out["memory"].at(item).get<int64_t>();
  }
  EXPECT_EQ(out["memory"]["total"], sum);
  EXPECT_GT(out["wire"]["ulysses"], 0);
  EXPECT_GT(out["time"]["step"], 0);
}

TEST(PlanCommand, SaysHowTrainHasToBeCalled) {
  const std::string arguments =
                        "--model wan-1.3b --gpus 8 --parallel.context 8 --parallel.shard 1 ",
                    options =
                        "--parallel.replicate 1 --parallel.shard 1 --parallel.context 8 "
                        "--parallel.ulysses 4";  // of 12 heads
  EXPECT_THAT(plan(arguments).output, HasSubstr("minwm train " + options + "\n"));
  EXPECT_EQ(json::parse(plan(arguments + "--json").output)["options"], options);
}

TEST(PlanCommand, AnAverageIsPlannedAsTheRecipesHaveItOrAsTold) {
  const auto averages = [](const std::string& arguments) {
    const json out = json::parse(
        plan("--model wan-1.3b --gpus 8 --parallel.shard 8 --json " + arguments).output);
    return out["memory"]["averages"].get<int64_t>();
  };
  EXPECT_EQ(averages("--stage ode"), 0);
  const int64_t average = averages("--stage ode --ema.decay 0.99");
  EXPECT_GT(average, 0);
  EXPECT_EQ(averages("--stage dmd"), average);
  EXPECT_EQ(averages("--stage dmd --ema.decay 0"), 0);
  EXPECT_EQ(averages("--stage consistency"), average);
}

TEST(PlanCommand, HowGradientsAndBlocksTravelAreOptions) {
  const auto memory = [](const std::string& arguments) {
    return json::parse(
        plan("--model wan-1.3b --gpus 8 --parallel.shard 8 --json " + arguments).output)["memory"];
  };
  const json usual = memory("");
  EXPECT_EQ(usual["unreduced"], 0);
  EXPECT_GT(memory("--parallel.reduce last")["unreduced"], 0);
  EXPECT_EQ(2 * memory("--parallel.prefetch 0")["gathered"].get<int64_t>(), usual["gathered"]);
  const auto flop = [](const std::string& arguments) {
    return json::parse(plan("--model wan-1.3b --stage dmd --gpus 8 --json " + arguments)
                           .output)["time"]["flop"]
        .get<double>();
  };
  EXPECT_GT(flop("--rollout.steps 8"), flop("--rollout.steps 4"));
}

TEST(PlanCommand, TheTableHasALineForEveryStageAndSize) {
  const Outcome all = plan("--model hy-8b --gpu h200 --table --json");
  ASSERT_EQ(all.code, kExitDone) << all.output;
  const json rows = json::parse(all.output);
  ASSERT_EQ(rows.size(), 5 * 7);
  EXPECT_EQ(rows.back()["stage"], "dmd");
  EXPECT_EQ(rows.back()["ranks"], 1024);
  for (const auto& row : rows) {
    EXPECT_TRUE(row["fits"].get<bool>()) << row.dump();
  }
  const Outcome one = plan("--model hy-8b --gpu h200 --stage dmd --table");
  EXPECT_EQ(std::count(one.output.begin(), one.output.end(), '\n'), 2 + 7 + 1) << one.output;
}

TEST(PlanCommand, EveryLineAndDepthOfBothFamiliesIsKnown) {
  const auto parameters = [](const std::string& model) {
    const Outcome outcome = plan("--gpus 8 --gpu h200 --json --model " + model);
    EXPECT_EQ(outcome.code, kExitDone) << outcome.output;
    return json::parse(outcome.output)["parameters"].get<int64_t>();
  };
  EXPECT_EQ(parameters("hy-8b-ti2v"), 8'326'608'160);
  EXPECT_EQ(parameters("hy-8b-worldplay"), 8'557'933'856);
  EXPECT_EQ(parameters("hy-8b@2"), 8'553'211'168 - 52 * int64_t{155'253'248});
  EXPECT_GT(parameters("hy-tiny"), 0);
  EXPECT_LT(parameters("wan-1.3b@1"), parameters("wan-1.3b@2"));
}

TEST(PlanCommand, MoreTextTakesMoreMemory) {
  const auto total = [](const std::string& arguments) {
    return json::parse(plan("--model hy-8b --gpus 8 --parallel.shard 8 --json " + arguments)
                           .output)["memory"]["total"]
        .get<int64_t>();
  };
  EXPECT_GT(total("--text_rows 1985"), total(""));
}

TEST(PlanCommand, NamesEveryNetworkAndWhereItIs) {
  const json out = json::parse(
      plan("--model hy-8b --stage dmd --gpus 8 --parallel.offload teacher --json").output);
  ASSERT_EQ(out["networks"].size(), 3);
  EXPECT_EQ(out["networks"][2]["name"], "real score");
  EXPECT_TRUE(out["networks"][2]["offloaded"].get<bool>());
  EXPECT_EQ(out["networks"][2]["bytes"], out["memory"]["host"]);
  EXPECT_THAT(out["options"].get<std::string>(), HasSubstr(" --parallel.offload teacher"));
}

TEST(PlanCommand, ATableSaysWhatWouldHelpWhereNothingFits) {
  const std::string arguments = "--model hy-8b --stage dmd --gpu_memory 40 --table ";
  EXPECT_THAT(plan(arguments).output, HasSubstr("no mesh fits; with --parallel.offload "));
  const json first = json::parse(plan(arguments + "--json").output).front();
  EXPECT_FALSE(first["fits"].get<bool>());
  EXPECT_THAT(first["remedy"].get<std::string>(), HasSubstr("it fits as replicate "));
}

void expect_refused(const std::string& arguments, const std::string& text) {
  const Outcome outcome = plan(arguments);
  EXPECT_EQ(outcome.code, kExitBadInput) << arguments << ": " << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr(text));
  EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 1) << outcome.output;
}

TEST(PlanCommand, RefusesWhatCannotFitAndNamesWhatDoes) {
  expect_refused(
      "--model hy-8b --stage dmd --gpus 8 --parallel.replicate 8 --parallel.shard 1 "
      "--parallel.context 1",
      "needs ");
  expect_refused("--model hy-8b --stage dmd --gpus 1", "with 8 ranks it fits as ");
  expect_refused("--model wan-1.3b --gpu_memory 4 --gpus 1", "no mesh of these ranks fits");
}

TEST(PlanCommand, RefusesWhatMakesNoSense) {
  expect_refused("--model hy-9b", "did you mean hy-8b?");
  expect_refused("--model hy-8b-ti2w", "did you mean hy-8b-ti2v?");
  expect_refused("--model hy-8b@none", "expected a number of blocks after '@'");
  expect_refused("--text_rows -1", "text_rows -1: expected a number of rows");
  expect_refused("--gpu h300", "did you mean");
  expect_refused("--stage dmx", "stage 'dmx': expected");
  expect_refused("--frames 78", "frames 78: expected 1 + a multiple of 4");
  expect_refused("--height 470", "takes multiples of 16");
  expect_refused("--ema.decay 1", "ema.decay 1: expected 0");
  expect_refused("--gpus 8 --parallel.replicate 8 --parallel.offload optimizer",
                 "parallel.offload needs parallel.shard x parallel.context > 1");
  expect_refused("--gpus 8 --parallel.context 8 --parallel.ulysses 3",
                 "parallel.ulysses 3 does not divide parallel.context 8");
  expect_refused("--parallel.offload critic", "expected optimizer, teacher or both");
}

}  // namespace
}  // namespace minwm
