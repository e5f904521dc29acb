#include "world_scene.h"

#include <cmath>
#include <numbers>

#include "minwm/core/error.h"

namespace minwm::data {
namespace {

constexpr double kKeepOut = 1.9;  ///< no object within this radius of the start
constexpr double kFarthest = 7;   ///< distance of object centres
constexpr double kFrontAngle =
    0.8;  ///< radians: half of the objects stand this near the first view's axis
constexpr int kTries = 400;

constexpr std::array<Color, kColorNames.size()> kColors = {{{.78F, .14F, .15F},
                                                            {.86F, .46F, .12F},
                                                            {.90F, .80F, .20F},
                                                            {.20F, .56F, .22F},
                                                            {.12F, .50F, .48F},
                                                            {.20F, .30F, .74F},
                                                            {.46F, .20F, .66F},
                                                            {.92F, .46F, .62F},
                                                            {.42F, .26F, .14F},
                                                            {.92F, .91F, .89F},
                                                            {.13F, .11F, .12F},
                                                            {.50F, .50F, .50F}}};

struct GroundKind {
  Color first, second;
  Pattern pattern;
};
constexpr std::array<GroundKind, kGroundNames.size()> kGrounds = {
    {{{.27F, .46F, .15F}, {.47F, .63F, .25F}, Pattern::kMottled},
     {{.76F, .74F, .68F}, {.38F, .36F, .34F}, Pattern::kCheckered},
     {{.84F, .70F, .45F}, {.66F, .51F, .31F}, Pattern::kMottled},
     {{.58F, .55F, .56F}, {.42F, .40F, .41F}, Pattern::kBrick},
     {{.96F, .96F, .98F}, {.76F, .80F, .87F}, Pattern::kMottled},
     {{.64F, .42F, .21F}, {.42F, .26F, .12F}, Pattern::kPlank}}};

struct SkyKind {
  Color zenith, horizon;
};
constexpr std::array<SkyKind, kSkyNames.size()> kSkies = {
    {{{.30F, .54F, .93F}, {.76F, .85F, .95F}},
     {{.42F, .30F, .52F}, {.95F, .58F, .32F}},
     {{.52F, .55F, .60F}, {.80F, .82F, .84F}},
     {{.25F, .17F, .42F}, {.68F, .36F, .58F}}}};

double between(RandomStream& random, double low, double high) {
  return low + (high - low) * random.uniform();
}

/// Draws ground, sky and sun: always six numbers.
void draw_surroundings(World& world, RandomStream& random, uint32_t texture_seed) {
  Ground& ground = world.ground;
  ground.height = static_cast<float>(between(random, .45, .75));
  ground.kind = static_cast<int>(random.integer(kGrounds.size()));
  const GroundKind& kind = kGrounds[static_cast<size_t>(ground.kind)];
  ground.texture = {kind.pattern, kind.first, kind.second, texture_seed};

  Sky& sky = world.sky;
  sky.kind = static_cast<int>(random.integer(kSkies.size()));
  sky.zenith = kSkies[static_cast<size_t>(sky.kind)].zenith;
  sky.horizon = kSkies[static_cast<size_t>(sky.kind)].horizon;
  const double azimuth = between(random, -std::numbers::pi, std::numbers::pi);
  const double elevation = between(random, 25, 65) * std::numbers::pi / 180;
  sky.sun = {static_cast<float>(std::sin(azimuth) * std::cos(elevation)),
             static_cast<float>(-std::sin(elevation)),
             static_cast<float>(std::cos(azimuth) * std::cos(elevation))};
  sky.mountain_height = static_cast<float>(between(random, .04, .16));
  sky.seed = texture_seed + 16;
}

/// One candidate: always nine numbers, whatever becomes of it.
Object draw_object(RandomStream& random, bool in_front) {
  Object object;
  const double spread = in_front ? kFrontAngle : std::numbers::pi;
  const double azimuth = between(random, -spread, spread);
  const double distance = between(random, kKeepOut + .2, kFarthest);
  object.x = static_cast<float>(distance * std::sin(azimuth));
  object.z = static_cast<float>(distance * std::cos(azimuth));
  object.shape = static_cast<Shape>(random.integer(3));
  object.half_width = static_cast<float>(between(random, .18, .55));
  const double height = between(random, .3, 1.6);
  object.height = object.shape == Shape::kBall ? 2 * object.half_width : static_cast<float>(height);
  object.yaw = static_cast<float>(between(random, 0, std::numbers::pi / 2));
  constexpr auto kCount = static_cast<int64_t>(kColors.size());
  object.color = static_cast<int>(random.integer(kCount));
  const int64_t second = (object.color + 1 + random.integer(kCount - 1)) % kCount;
  object.texture.pattern = static_cast<Pattern>(random.integer(5));
  object.texture.first = kColors[static_cast<size_t>(object.color)];
  object.texture.second = kColors[static_cast<size_t>(second)];
  if (object.texture.pattern == Pattern::kPlain) {
    for (size_t c = 0; c < 3; ++c) {
      object.texture.second[c] = .72F * object.texture.first[c];
    }
  }
  return object;
}

bool fits(const Object& candidate, const std::vector<Object>& placed) {
  if (std::hypot(candidate.x, candidate.z) - 1.5 * candidate.half_width < kKeepOut) {
    return false;
  }
  for (const Object& other : placed) {
    if (std::hypot(candidate.x - other.x, candidate.z - other.z) <
        1.5 * (candidate.half_width + other.half_width)) {
      return false;
    }
  }
  return true;
}

void check(const WorldStyle& style) {
  require(style.name == "detail" || style.name == "standard",
          "world style '{}' is unknown, expected detail or standard", style.name);
  require(style.width >= 1 && style.width <= 8192 && style.height >= 1 && style.height <= 8192,
          "world size {}x{}: expected 1 to 8192 pixels each way", style.width, style.height);
  require(style.samples >= 1 && style.samples <= 4, "world samples {}: expected 1 to 4",
          style.samples);
  require(style.fx > 0.05 && style.fx < 20,
          "world focal length {}: expected 0.05 to 20 image widths", style.fx);
}

}  // namespace

std::shared_ptr<const World> make_world(uint64_t seed, const WorldStyle& style) {
  check(style);
  auto world = std::make_shared<World>();
  world->seed = seed;
  world->style = style;
  RandomStream random = world_stream(seed, kLayoutStream);
  // Octaves of one texture use consecutive seeds, so surfaces are 16 apart.
  const auto texture_seed = static_cast<uint32_t>(random.bits());
  draw_surroundings(*world, random, texture_seed);

  const size_t count = style.name == "detail" ? 10 : 14;
  for (int attempt = 0; attempt < kTries && world->objects.size() < count; ++attempt) {
    Object object = draw_object(random, world->objects.size() % 2 == 0);
    if (fits(object, world->objects)) {
      object.texture.seed = texture_seed + 64 + 16 * static_cast<uint32_t>(world->objects.size());
      world->objects.push_back(object);
    }
  }
  return world;
}

}  // namespace minwm::data
