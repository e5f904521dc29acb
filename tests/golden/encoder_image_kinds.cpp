// Reference images on their way to an encoder (spec encoders 5.3, 5.5).

#include "case.h"
#include "minwm/core/error.h"
#include "minwm/models/vision/resize.h"

namespace minwm::golden {
namespace {

models::ResizeFilter filter_of(const std::string& name) {
  if (name == "bilinear") {
    return models::ResizeFilter::kBilinear;
  }
  require(name == "bicubic" || name == "lanczos", "resize filter '{}' is not known", name);
  return name == "bicubic" ? models::ResizeFilter::kBicubic : models::ResizeFilter::kLanczos;
}

/// body(job, its number as text) for every job of a case.
template <class Body>
void for_each_job(const Case& c, const Body& body) {
  const auto& jobs = c.config.at("jobs");
  for (size_t i = 0; i < jobs.size(); ++i) {
    body(jobs[i], std::to_string(i));
  }
}

void replay_resize(const Case& c, Report& report) {
  for_each_job(c, [&](const auto& job, const std::string& i) {
    report.equal("image_" + i,
                 models::pillow_resize(c.in("image_" + i), job.at("height").template get<int64_t>(),
                                       job.at("width").template get<int64_t>(),
                                       filter_of(job.at("filter").template get<std::string>())),
                 c.out("image_" + i));
  });
}

void replay_crop(const Case& c, Report& report) {
  for_each_job(c, [&](const auto& job, const std::string& i) {
    report.equal(
        "image_" + i,
        models::resize_center_crop(c.in("image_" + i), job.at("height").template get<int64_t>(),
                                   job.at("width").template get<int64_t>()),
        c.out("image_" + i));
  });
}

void replay_preprocess(const Case& c, Report& report) {
  for_each_job(c, [&](const auto& job, const std::string& i) {
    report.compare(
        "pixel_values_" + i,
        models::siglip_pixels(c.in("image_" + i), job.at("size").template get<int64_t>()),
        c.out("pixel_values_" + i));
  });
}

/// Sizes as rows [m, 2] of height, width.
at::Tensor rows_of(const std::vector<models::ImageSize>& sizes) {
  std::vector<int64_t> values;
  for (const auto& size : sizes) {
    values.insert(values.end(), {size.height, size.width});
  }
  return at::tensor(values, at::kLong).view({-1, 2});
}

void replay_buckets(const Case& c, Report& report) {
  const double max_ratio = c.config.value("max_ratio", 4.0);
  for_each_job(c, [&](const auto& job, const std::string& i) {
    const auto buckets = models::size_buckets(job.at("base_size").template get<int64_t>(),
                                              job.at("patch").template get<int64_t>(), max_ratio);
    report.equal("buckets_" + i, rows_of(buckets), c.out("buckets_" + i));
    const at::Tensor images = c.in("hw_" + i);
    std::vector<models::ImageSize> chosen;
    for (int64_t row = 0; row < images.size(0); ++row) {
      chosen.push_back(models::choose_bucket(
          buckets, {images[row][0].item<int64_t>(), images[row][1].item<int64_t>()}));
    }
    report.equal("chosen_" + i, rows_of(chosen), c.out("chosen_" + i));
  });
}

const bool registered = register_kind("encoders.image.pil_resize", replay_resize) &&
                        register_kind("encoders.image.resize_center_crop", replay_crop) &&
                        register_kind("encoders.siglip.preprocess", replay_preprocess) &&
                        register_kind("encoders.image.size_bucket", replay_buckets);

}  // namespace
}  // namespace minwm::golden
