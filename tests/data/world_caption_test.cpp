// Captions of worlds and their text condition.

#include <algorithm>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/data/world.h"
#include "src/data/world_scene.h"

namespace minwm::data {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

World world_with(std::vector<Object> objects) {
  World world = *make_world(1, {});
  world.objects = std::move(objects);
  return world;
}

Object box(float x, float z, float half_width, int color) {
  Object object;
  object.x = x;
  object.z = z;
  object.half_width = half_width;
  object.height = 2 * half_width;
  object.color = color;
  return object;
}

TEST(Caption, NamesOnlyObjectsThatTheFirstViewShows) {
  const std::array<const char*, 3> shapes = {"box", "pillar", "ball"};
  int named = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const auto world = make_world(seed, {});
    const at::Tensor ids = render(*world, at::eye(4, at::kDouble).unsqueeze(0), true).objects;
    std::set<std::string> visible;
    for (size_t k = 0; k < world->objects.size(); ++k) {
      if ((ids == static_cast<int64_t>(2 + k)).any().item<bool>()) {
        const Object& object = world->objects[k];
        visible.insert(std::string(kColorNames[static_cast<size_t>(object.color)]) + " " +
                       shapes[static_cast<size_t>(object.shape)]);
      }
    }
    std::istringstream words(caption(*world));
    std::string word;
    std::string color;
    while (words >> word) {
      std::erase_if(word, [](char c) { return c == ',' || c == '.'; });
      if (std::count(kColorNames.begin(), kColorNames.end(), word) > 0) {
        color = word;
      }
      if (std::count(shapes.begin(), shapes.end(), word) > 0) {
        EXPECT_TRUE(visible.contains(color + " " + word)) << caption(*world);
        ++named;
      }
    }
  }
  EXPECT_GT(named, 120);
}

TEST(Caption, SaysSizePlaceAndOrderOfTheObjects) {
  World world = world_with({box(-1.5F, 3, .2F, 4), box(0, 3, .3F, 0), box(1.5F, 5, .6F, 2)});
  world.objects[1].texture.pattern = Pattern::kStriped;
  world.objects[1].shape = Shape::kPillar;
  EXPECT_THAT(caption(world), HasSubstr("a medium red striped pillar straight ahead, "
                                        "a small teal box to the left and "
                                        "a tall yellow box to the right"));
}

TEST(Caption, LeavesOutWhatIsHiddenBehindOrOutside) {
  const std::string text = caption(
      world_with({box(0, 2.2F, .5F, 0), box(0, 5, .2F, 3), box(0, -3, .3F, 5), box(5, 1, .3F, 6)}));
  EXPECT_THAT(text, HasSubstr("red box"));
  EXPECT_THAT(text, Not(HasSubstr("green box")));
  EXPECT_THAT(text, Not(HasSubstr("blue box")));
  EXPECT_THAT(text, Not(HasSubstr("purple box")));
}

TEST(Caption, DescribesAnEmptyPlain) {
  EXPECT_THAT(caption(world_with({})), HasSubstr(" plain under "));
}

TEST(Caption, UsesSeveralWordingsAndNeverSpeaksOfMotion) {
  std::set<std::string> beginnings;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const std::string text = caption(*make_world(seed, {}));
    beginnings.insert(text.substr(0, text.find(' ')));
    for (const char* motion : {"camera", "forward", "moves", "turn", "pan"}) {
      EXPECT_THAT(text, Not(HasSubstr(motion)));
    }
  }
  EXPECT_EQ(beginnings, (std::set<std::string>{"A", "Under", "There"}));
}

TEST(CaptionEmbedding, IsTheSameForEveryWordingOfOneScene) {
  const at::Tensor a = caption_embedding(
      "A snowy plain under a clear blue sky, with a tall red box straight ahead and a small green "
      "ball to the left.");
  const at::Tensor b = caption_embedding(
      "Under a clear blue sky lies a snowy plain. On it stand a tall red box straight ahead and a "
      "small green ball to the left.");
  const at::Tensor c = caption_embedding(
      "There is a tall red box straight ahead and a small green ball to the left on a snowy plain "
      "beneath a clear blue sky.");
  ASSERT_EQ(a.sizes(), (std::vector<int64_t>{6, 32}));
  EXPECT_TRUE(a.equal(b));
  EXPECT_TRUE(a.equal(c));
  EXPECT_TRUE((a.slice(0, 0, 4).abs().amax(1) > .5).all().item<bool>());
  EXPECT_TRUE((a.slice(0, 4, 6) == 0).all().item<bool>());  // two objects are missing
}

TEST(CaptionEmbedding, EveryWorldFillsGroundSkyAndItsObjects) {
  double square = 0;
  int64_t tokens = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const std::string text = caption(*make_world(seed, {}));
    const at::Tensor embedding = caption_embedding(text);
    int64_t objects = 0;
    for (const char* shape : {" box", " pillar", " ball"}) {
      for (size_t at = text.find(shape); at != text.npos; at = text.find(shape, at + 1)) {
        ++objects;
      }
    }
    const at::Tensor used = (embedding != 0).any(1);
    for (int64_t k = 0; k < 6; ++k) {
      EXPECT_EQ(used[k].item<bool>(), k < 2 + objects) << text;
    }
    square += embedding.square().sum().item<double>();
    tokens += 2 + objects;
  }
  EXPECT_NEAR(square / static_cast<double>(32 * tokens), 1, .3);  // normal numbers of unit variance
}

TEST(CaptionEmbedding, TakesAnyText) {
  EXPECT_TRUE((caption_embedding("") == 0).all().item<bool>());
  EXPECT_TRUE((caption_embedding(" , . ") == 0).all().item<bool>());
  const std::string clip =
      "A bright hallway with white walls, a wooden floor and two framed pictures; daylight falls "
      "through a window at the end. On the left, a door stands open, and beyond it a kitchen.";
  const at::Tensor embedding = caption_embedding(clip);
  EXPECT_TRUE(embedding.equal(caption_embedding(clip)));
  EXPECT_TRUE((embedding.index({0}) != 0).any().item<bool>());  // the floor is the ground
  EXPECT_TRUE((embedding.slice(0, 2, 6) != 0).any(1).all().item<bool>());
  EXPECT_LT(embedding.abs().max().item<double>(), 6);
  for (const char* text : {"the", "Ein Flur mit weißen Wänden", "海边", "a-b"}) {
    EXPECT_TRUE((caption_embedding(text) != 0).any().item<bool>()) << text;
  }
  EXPECT_TRUE(caption_embedding("A RED BOX").equal(caption_embedding("a red box")));
  EXPECT_FALSE(caption_embedding("a red box").equal(caption_embedding("a blue box")));
}

}  // namespace
}  // namespace minwm::data
