#include "minwm/core/sha256.h"

#include <gtest/gtest.h>

#include "minwm/core/files.h"
#include "temporary_folder.h"

namespace minwm {
namespace {

TEST(Sha256, IsThatOfTheStandard) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnThePiecesForAnyLengthAroundABlock) {
  for (size_t length = 50; length < 140; ++length) {
    const std::string bytes(length, 'x');
    Sha256 hash;
    for (size_t at = 0; at < length; at += 7) {
      hash.update(std::string_view(bytes).substr(at, 7));
    }
    EXPECT_EQ(hash.hex(), sha256(bytes)) << length;
  }
}

TEST(Sha256, OfAFileIsThatOfItsBytes) {
  const testing::TemporaryFolder folder;
  const std::string bytes(3'000'001, 'y');
  atomic_write(folder / "x", bytes);
  EXPECT_EQ(sha256_of_file(folder / "x"), sha256(bytes));
  EXPECT_EQ(testing::error_of([&] { sha256_of_file(folder / "absent"); }),
            "cannot read " + (folder / "absent").string() + ": No such file or directory");
}

}  // namespace
}  // namespace minwm
