#pragma once
// Which stage a run trains, with which options, on which networks.

#include <memory>
#include <string>
#include <vector>

#include "minwm/data/latent_store.h"
#include "minwm/stages/bidirectional.h"
#include "minwm/stages/consistency.h"
#include "minwm/stages/dmd.h"
#include "minwm/stages/ode.h"
#include "minwm/stages/teacher_forcing.h"
#include "minwm/train/checkpoint.h"
#include "model_factory.h"

namespace minwm::apps {

/// What a run gives its stage.
struct StageParts {
  std::shared_ptr<models::Backbone>
      model;                    ///< its weights are set, or come from a checkpoint later
  std::string preset, init;     ///< of the model; where its first weights were from
  models::Conditions negative;  ///< text of unconditional passes; undefined = zeros
  std::string codec;            ///< file; may be empty
  const ModelFactory& factory;  ///< makes the stage's other networks
  bool resumed = false;         ///< trained networks are filled from a checkpoint later
};

/// The options of all stages. A run uses those of its own.
class StageOptions {
 public:
  void declare(Options& options);
  /// @throws Error in one line on an unknown stage, or options of it that make no sense. A dry run
  /// needs no run to start from.
  void check(const std::string& init, bool dry_run) const;
  /// @throws Error if the stage gives first frames in another way than the model reads them, or
  /// makes unconditional passes of a model whose text encoder knows no zeros without `negative`.
  void check_model(const models::Backbone& model, const std::string& preset, double first_frame,
                   bool negative) const;

  const std::string& name() const { return stage_; }
  bool causal() const { return stage_ != "bidirectional"; }
  int64_t chunk_frames() const;  ///< 0 = bidirectional
  /// Fills in the sampler that the trained model is for: solver, step lists, shift, chunk.
  void describe(train::CheckpointInfo& info) const;
  /// @throws Error unless the stage can train on such a store, its clips told with `first_frame`
  /// (negative = the model is told otherwise).
  void check_store(const data::StoreLayout& layout, const std::string& path,
                   double first_frame) const;

  /// The stage. Loads the networks that are not trained.
  std::shared_ptr<stages::Stage> make(const StageParts& parts) const;

 private:
  /// A network that the stage freezes: averaged weights of a run of `wanted_stage`.
  std::shared_ptr<models::Backbone> constant_network(const std::string& path,
                                                     const std::string& purpose,
                                                     const std::string& wanted_stage,
                                                     const StageParts& parts) const;
  /// Name and value of the stage's own way to give a first latent (clean in the sequence), and of
  /// what makes it pass a model without its text; empty names = it has none.
  struct Setting {
    std::string name;
    double value = 0;
  };
  Setting clean_first() const;
  Setting unconditional() const;

  std::string stage_, teacher_, scores_, solver_ = "euler";
  double sampler_shift_ = 0;
  std::vector<double> step_list_, first_chunk_step_list_;
  stages::FlowOptions bidirectional_, teacher_forcing_;
  stages::ConsistencyOptions consistency_;
  stages::OdeOptions ode_;
  stages::DmdOptions dmd_;
};

/// True of models whose text encoder never gives zeros, not for the empty prompt either (HY at its
/// published width).
bool needs_negative(const models::Backbone& model);

/// The text of unconditional passes: tensors text [L, D], text_mask, byt5, byt5_mask of a
/// safetensors file; "" = none (zeros).
models::Conditions load_negative(const std::string& file);

/// @throws Error naming `where` unless the text has the shape of the stores'.
void require_negative_fits(const models::Conditions& negative, const data::StoreLayout& layout,
                           const std::string& where);

}  // namespace minwm::apps
