#include "minwm/camera/prope.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

Cameras path(const std::string& text) {
  return make_cameras(integrate(parse_pose_string(text)), kDefaultFx, kDefaultFy);
}

TEST(ProjectiveMatrices, TimesTheirInverseAreIdentity) {
  const auto matrices = projective_matrices(path("w+l*20,i*9,dn*5"));
  const at::Tensor product = at::matmul(matrices.p, matrices.p_inverse);
  EXPECT_LT((product - at::eye(4)).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(matrices.p.scalar_type(), at::kFloat);
}

TEST(ProjectiveMatrices, AreScaledByTheFocalLengthsAtTheIdentity) {
  const auto matrices = projective_matrices(path(""));
  const at::Tensor expected = at::diag(at::tensor({kDefaultFx, kDefaultFy, 1., 1.}, at::kFloat));
  EXPECT_TRUE(at::allclose(matrices.p[0][0], expected));
}

TEST(ProjectiveMatrices, RelativeProductsDoNotDependOnTheWorldFrame) {
  const Cameras cameras = path("w*8,l*6,d*4");
  const at::Tensor moved_by = integrate(parse_pose_string("j*17,u*9,k*5"))[-1].to(at::kFloat);
  const Cameras moved{at::matmul(cameras.world_to_camera, moved_by), cameras.intrinsics};
  const auto relative = [](const Cameras& c) {
    const auto m = projective_matrices(c);
    return at::matmul(m.p.unsqueeze(2), m.p_inverse.unsqueeze(1));
  };
  EXPECT_LT((relative(cameras) - relative(moved)).abs().max().item<double>(), 2e-6);
}

TEST(ProjectiveMatrices, IgnoreThePrincipalPoint) {
  const Cameras cameras = path("w*3");
  Cameras other{cameras.world_to_camera, cameras.intrinsics.clone()};
  other.intrinsics.select(-1, 2).select(-1, 0).fill_(0.3);
  EXPECT_TRUE(at::equal(projective_matrices(cameras).p, projective_matrices(other).p));
}

TEST(ProjectiveMatrices, WithoutIntrinsicsAreTheViews) {
  const Cameras cameras{path("w*3").world_to_camera, {}};
  EXPECT_TRUE(at::equal(projective_matrices(cameras).p, cameras.world_to_camera));
}

TEST(ProjectiveMatrices, RefuseUnbatchedCameras) {
  const Cameras cameras{at::eye(4).unsqueeze(0), {}};
  EXPECT_THROW(projective_matrices(cameras), Error);
}

}  // namespace
}  // namespace minwm::camera
