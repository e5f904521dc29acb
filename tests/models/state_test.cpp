// Weights into models by name: what is missing or extra is an error, but for what is allowed.

#include "minwm/models/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/models/hy/backbone.h"
#include "minwm/models/hy/diffusers_names.h"
#include "minwm/nn/parameters.h"
#include "tests/core/temporary_folder.h"
#include "tests/parallel/sharded_test.h"

namespace minwm::models {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

/// A small hy model; its widths divide by few numbers of ranks.
HyConfig small(bool camera, bool action) {
  HyConfig c;
  c.in_channels = c.out_channels = 3;
  c.hidden_size = 24;
  c.heads_num = 2;
  c.mm_double_blocks_depth = 2;
  c.rope_dim_list = {4, 4, 4};
  c.text_states_dim = 5;
  c.vision_states_dim = 7;
  c.byt5_dims = {6, 8, 8};
  c.camera = camera;
  c.action = action;
  return c;
}

/// Spread over all ranks, or whole on one.
std::shared_ptr<HyBackbone> empty_model(const HyConfig& config) {
  std::shared_ptr<HyBackbone> model;
  {
    const nn::HollowParameters hollow;
    model = std::make_shared<HyBackbone>(config, 0);
  }
  if (testing::world().size() > 1) {
    model->set_unit_runner(std::make_shared<parallel::ShardedModel>(
        "hy", *model, model->units(), testing::one_copy(), parallel::ShardOptions{}));
  } else {
    at::NoGradGuard no_grad;
    for (auto& p : model->parameters()) {
      p.set_data(at::zeros(p.sizes()));
    }
  }
  return model;
}

using Values = std::map<std::string, at::Tensor>;

ParameterSource source_of(const Values& values) {
  ParameterSource source;
  source.where = "file.safetensors";
  for (const auto& [name, value] : values) {
    source.shapes[name] = value.sizes().vec();
  }
  source.read = [values](const std::string& name, int64_t begin, int64_t count) {
    return values.at(name).reshape(-1).narrow(0, begin, count);
  };
  return source;
}

/// Random values of all parameters of a model.
Values random_values(const HyConfig& config) {
  const nn::HollowParameters hollow;
  Values values;
  for (const auto& item : HyBackbone(config, 0).named_parameters()) {
    values[item.key()] = random_normal(item.value().sizes(), {3, item.key()});
  }
  return values;
}

/// What this rank has of a model, against values: the largest difference.
double difference(const HyBackbone& model, const Values& values) {
  double largest = 0;
  const auto compare = [&](const at::Tensor& have, const at::Tensor& want) {
    if (have.numel() > 0) {
      largest = std::max(largest, (have - want).abs().max().item<double>());
    }
  };
  if (const auto sharded = sharded_runner(model)) {
    for (const auto& piece : sharded->pieces()) {
      compare(piece.values.reshape(-1),
              values.at(piece.name).reshape(-1).narrow(0, piece.begin, piece.values.numel()));
    }
  } else {
    for (const auto& item : model.named_parameters()) {
      compare(item.value().detach(), values.at(item.key()));
    }
  }
  return testing::world().communicator()->all_reduce_max(largest, "difference");
}

CompletedSource completed(const HyBackbone& model, const Values& values, const Allowance& allowed) {
  return complete(source_of(values), initial_parameters(model, 1), allowed);
}

TEST(LoadParameters, TakesExactlyTheModelsParameters) {
  const auto config = small(true, true);
  const auto model = empty_model(config);
  const Values values = random_values(config);
  load_parameters(*model, source_of(values));
  EXPECT_EQ(difference(*model, values), 0);
}

TEST(LoadParameters, AMissingExtraOrMisshapenTensorIsNamedWithItsFile) {
  const auto config = small(true, false);
  const auto model = empty_model(config);
  Values values = random_values(config);
  const at::Tensor taken = values.at("time_in.mlp.0.bias");
  values.erase("time_in.mlp.0.bias");
  EXPECT_EQ(error_of([&] { load_parameters(*model, source_of(values)); }),
            "file.safetensors: lacks the parameter 'time_in.mlp.0.bias'");
  values["time_in.mlp.0.bias"] = at::zeros({25});
  EXPECT_EQ(error_of([&] { load_parameters(*model, source_of(values)); }),
            "file.safetensors: parameter 'time_in.mlp.0.bias' has shape [25], expected [24]");
  values["time_in.mlp.0.bias"] = taken;
  values["guidance_in.mlp.0.bias"] = taken;
  EXPECT_EQ(error_of([&] { load_parameters(*model, source_of(values)); }),
            "file.safetensors: has a parameter 'guidance_in.mlp.0.bias' that the model does not "
            "know");
}

TEST(LoadParameters, WhatMayBeMissingKeepsTheModelsInitialValues) {
  const auto config = small(true, true);
  const auto model = empty_model(config);
  const Values base = random_values(small(false, false));
  const auto source =
      completed(*model, base, {.missing = {"img_attn_prope_proj", "action_in"}, .extra = {}});
  EXPECT_EQ(source.initial.size(), 2 * 2 + 4);
  EXPECT_TRUE(source.ignored.empty());
  load_parameters(*model, source.source);
  Values expected = base;
  for (const auto& name : source.initial) {
    const auto initial = initial_parameters(*model, 1);
    const auto shape = initial.shapes.at(name);
    expected[name] = initial.read(name, 0, c10::multiply_integers(shape)).view(shape);
  }
  // What a camera model adds starts at zero, what an action model adds does not.
  EXPECT_EQ(expected.at("double_blocks.1.img_attn_prope_proj.weight").abs().max().item<float>(), 0);
  EXPECT_GT(expected.at("action_in.mlp.0.weight").abs().max().item<float>(), 0);
  EXPECT_EQ(difference(*model, expected), 0);
}

TEST(LoadParameters, OnlyWhatIsListedMayBeMissing) {
  const auto model = empty_model(small(true, true));
  const auto source = completed(*model, random_values(small(false, false)),
                                {.missing = {"img_attn_prope_proj"}, .extra = {}});
  EXPECT_EQ(error_of([&] { load_parameters(*model, source.source); }),
            "file.safetensors: lacks the parameter 'action_in.mlp.0.weight'");
}

TEST(LoadParameters, WhatIsThereIsReadThoughItMayBeMissing) {
  const auto config = small(true, true);
  const auto model = empty_model(config);
  const Values values = random_values(config);
  const auto source = completed(*model, values, {.missing = {"prope", "action_in"}, .extra = {}});
  EXPECT_TRUE(source.initial.empty());
  load_parameters(*model, source.source);
  EXPECT_EQ(difference(*model, values), 0);
}

TEST(LoadParameters, ExtraTensorsAreLeftOutOnlyIfListed) {
  const auto config = small(false, false);
  const auto model = empty_model(config);
  const Values values = random_values(small(true, true));
  const auto some = completed(*model, values, {.missing = {}, .extra = {"action_in"}});
  EXPECT_EQ(some.ignored.size(), 4);
  EXPECT_EQ(error_of([&] { load_parameters(*model, some.source); }),
            "file.safetensors: has a parameter 'double_blocks.0.img_attn_prope_proj.bias' that the "
            "model does not know");
  const auto all = completed(*model, values, {.missing = {}, .extra = {"action_in", "_prope_"}});
  load_parameters(*model, all.source);
  EXPECT_EQ(difference(*model, values), 0);
}

TEST(LoadParameters, AnEmptyPatternAllowsNothing) {
  const auto model = empty_model(small(true, false));
  const auto source =
      completed(*model, random_values(small(false, true)), {.missing = {""}, .extra = {""}});
  EXPECT_TRUE(source.initial.empty());
  EXPECT_TRUE(source.ignored.empty());
}

// --- The names of diffusers, written out here once more, the other way round (spec hy-mmdit 16).

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

std::string theirs_of_block(const std::string& ours) {
  std::string name = replaced(ours, "double_blocks.", "transformer_blocks.");
  for (const auto& [own, their] : std::vector<std::pair<std::string, std::string>>{
           {".img_mod.linear", ".norm1.linear"},
           {".txt_mod.linear", ".norm1_context.linear"},
           {".img_attn_q_norm", ".attn.norm_q"},
           {".img_attn_k_norm", ".attn.norm_k"},
           {".txt_attn_q_norm", ".attn.norm_added_q"},
           {".txt_attn_k_norm", ".attn.norm_added_k"},
           {".img_attn_q", ".attn.to_q"},
           {".img_attn_k", ".attn.to_k"},
           {".img_attn_v", ".attn.to_v"},
           {".txt_attn_q", ".attn.add_q_proj"},
           {".txt_attn_k", ".attn.add_k_proj"},
           {".txt_attn_v", ".attn.add_v_proj"},
           {".img_attn_proj", ".attn.to_out.0"},
           {".txt_attn_proj", ".attn.to_add_out"},
           {".img_mlp.fc1", ".ff.net.0.proj"},
           {".img_mlp.fc2", ".ff.net.2"},
           {".txt_mlp.fc1", ".ff_context.net.0.proj"},
           {".txt_mlp.fc2", ".ff_context.net.2"}}) {
    name = replaced(name, own, their);
  }
  return name;
}

std::string theirs_of_refiner(const std::string& ours) {
  std::string name = replaced(ours, "txt_in.individual_token_refiner.blocks.",
                              "context_embedder.token_refiner.refiner_blocks.");
  name = replaced(name, ".self_attn_proj", ".attn.to_out.0");
  name = replaced(name, ".mlp.fc1", ".ff.net.0.proj");
  name = replaced(name, ".mlp.fc2", ".ff.net.2");
  return replaced(name, ".adaLN_modulation.1", ".norm_out.linear");
}

std::string theirs_of_root(const std::string& ours) {
  static const std::map<std::string, std::string> names = {
      {"img_in.proj", "x_embedder.proj"},
      {"time_in.mlp.0", "time_embed.timestep_embedder.linear_1"},
      {"time_in.mlp.2", "time_embed.timestep_embedder.linear_2"},
      {"txt_in.input_embedder", "context_embedder.proj_in"},
      {"txt_in.t_embedder.mlp.0", "context_embedder.time_text_embed.timestep_embedder.linear_1"},
      {"txt_in.t_embedder.mlp.2", "context_embedder.time_text_embed.timestep_embedder.linear_2"},
      {"txt_in.c_embedder.linear_1", "context_embedder.time_text_embed.text_embedder.linear_1"},
      {"txt_in.c_embedder.linear_2", "context_embedder.time_text_embed.text_embedder.linear_2"},
      {"byt5_in.layernorm", "context_embedder_2.norm"},
      {"byt5_in.fc1", "context_embedder_2.linear_1"},
      {"byt5_in.fc2", "context_embedder_2.linear_2"},
      {"byt5_in.fc3", "context_embedder_2.linear_3"},
      {"vision_in.proj.0", "image_embedder.norm_in"},
      {"vision_in.proj.1", "image_embedder.linear_1"},
      {"vision_in.proj.3", "image_embedder.linear_2"},
      {"vision_in.proj.4", "image_embedder.norm_out"},
      {"cond_type_embedding", "cond_type_embed"},
      {"final_layer.adaLN_modulation.1", "norm_out.linear"},
      {"final_layer.linear", "proj_out"}};
  const size_t dot = ours.rfind('.');
  return names.at(ours.substr(0, dot)) + ours.substr(dot);
}

Values in_diffusers_layout(const Values& values) {
  Values theirs;
  for (const auto& [name, value] : values) {
    if (name.find("self_attn_qkv") != std::string::npos) {
      const auto parts = value.chunk(3);
      for (size_t i = 0; i < 3; ++i) {
        theirs[replaced(theirs_of_refiner(name), ".self_attn_qkv",
                        std::string(".attn.to_") + "qkv"[i])] = parts[i];
      }
    } else if (name.starts_with("final_layer.adaLN_modulation.1")) {
      const auto halves = value.chunk(2);  // shift, scale
      theirs[theirs_of_root(name)] = at::cat({halves[1], halves[0]});
    } else if (name.starts_with("double_blocks.")) {
      theirs[theirs_of_block(name)] = value;
    } else {
      theirs[name.find("token_refiner") != std::string::npos ? theirs_of_refiner(name)
                                                             : theirs_of_root(name)] = value;
    }
  }
  return theirs;
}

TEST(DiffusersNames, GiveTheSameModel) {
  const auto config = small(false, false);
  const Values values = random_values(config);
  const auto theirs = source_of(in_diffusers_layout(values));
  ASSERT_TRUE(has_diffusers_names(theirs));
  EXPECT_FALSE(has_diffusers_names(source_of(values)));
  const auto ours = from_diffusers(theirs);
  EXPECT_FALSE(has_diffusers_names(ours));
  EXPECT_EQ(theirs.shapes.size(), values.size() + 2 * 2 * 2);  // q, k, v apart in two blocks
  EXPECT_EQ(ours.shapes.size(), values.size());
  const auto model = empty_model(config);
  load_parameters(*model, ours);
  EXPECT_EQ(difference(*model, values), 0);
}

TEST(DiffusersNames, CanBeReadInAnyParts) {
  const Values values = random_values(small(false, false));
  const auto ours = from_diffusers(source_of(in_diffusers_layout(values)));
  for (const auto* name : {"txt_in.individual_token_refiner.blocks.1.self_attn_qkv.weight",
                           "final_layer.adaLN_modulation.1.bias", "time_in.mlp.0.weight"}) {
    const at::Tensor whole = values.at(name).reshape(-1);
    const int64_t all = whole.numel();
    for (const auto& [begin, count] : std::vector<std::pair<int64_t, int64_t>>{
             {0, all}, {0, 0}, {all, 0}, {all / 3 - 1, 3}, {all / 2 - 1, 2}, {1, all - 2}}) {
      EXPECT_TRUE(at::equal(ours.read(name, begin, count), whole.narrow(0, begin, count)))
          << name << " " << begin << " " << count;
    }
  }
}

TEST(DiffusersNames, WhatALineAddsMayBeMissing) {
  const auto model = empty_model(small(true, false));
  const auto source =
      from_diffusers(source_of(in_diffusers_layout(random_values(small(false, false)))));
  const auto all = complete(source, initial_parameters(*model, 1),
                            {.missing = {"img_attn_prope_proj"}, .extra = {}});
  EXPECT_EQ(all.initial.size(), 4);
  load_parameters(*model, all.source);
}

TEST(DiffusersNames, AnAbsentOrUnknownTensorIsNamed) {
  const Values values = random_values(small(false, false));
  Values theirs = in_diffusers_layout(values);
  const std::string part = "context_embedder.token_refiner.refiner_blocks.0.attn.to_v.bias";
  const at::Tensor taken = theirs.at(part);
  theirs.erase(part);
  EXPECT_EQ(error_of([&] { from_diffusers(source_of(theirs)); }),
            "file.safetensors: lacks '" + part +
                "', a part of txt_in.individual_token_refiner.blocks.0.self_attn_qkv.bias");
  theirs[part] = at::zeros({5});
  EXPECT_THAT(error_of([&] { from_diffusers(source_of(theirs)); }),
              AllOf(HasSubstr("'" + part + "' has shape [5], expected [24]")));
  theirs[part] = taken;
  theirs["transformer_blocks.0.attn.to_q.lora"] = taken;
  const auto model = empty_model(small(false, false));
  EXPECT_THAT(error_of([&] { load_parameters(*model, from_diffusers(source_of(theirs))); }),
              HasSubstr("has a parameter 'double_blocks.0.img_attn_q.lora' that the model does not "
                        "know"));
}

}  // namespace
}  // namespace minwm::models
