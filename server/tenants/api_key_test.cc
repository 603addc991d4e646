#include "server/tenants/api_key.h"

#include <sys/stat.h>

#include <fstream>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tenants/testing.h"

namespace reticle::server::tenants {
namespace {

using ::testing::HasSubstr;

TEST(ApiKey, KeysAreDistinctAndHaveTheirForm) {
  std::set<std::string> keys;
  for (int i = 0; i < 1000; ++i) {
    const auto key = NewApiKey();
    ASSERT_TRUE(key.ok());
    EXPECT_TRUE(LooksLikeApiKey(*key)) << *key;
    keys.insert(*key);
  }
  EXPECT_EQ(keys.size(), 1000u);
}

TEST(ApiKey, OtherTextsDoNotLookLikeAKey) {
  const std::string key = *NewApiKey();
  EXPECT_FALSE(LooksLikeApiKey(""));
  EXPECT_FALSE(LooksLikeApiKey(key.substr(1)));
  EXPECT_FALSE(LooksLikeApiKey(key + "a"));
  EXPECT_FALSE(LooksLikeApiKey("sk-" + key.substr(3)));
  std::string odd = key;
  odd.back() = '\'';
  EXPECT_FALSE(LooksLikeApiKey(odd));
}

TEST(ApiKey, DigestIsHmacSha256) {
  // RFC 4231, test case 6: a key longer than a block.
  const auto hasher = KeyHasher::FromSecret(std::string(131, '\xaa'));
  ASSERT_TRUE(hasher.ok());
  EXPECT_EQ(
      DigestToHex((*hasher)->Digest("Test Using Larger Than Block-Size Key - Hash Key First")),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(ApiKey, DigestsSurviveTheirText) {
  const auto hasher = KeyHasher::FromSecret(std::string(32, 's'));
  const KeyDigest digest = (*hasher)->Digest("one");
  const auto parsed = DigestFromHex(DigestToHex(digest));
  ASSERT_TRUE(parsed.ok());
  EXPECT_TRUE(KeyDigestEqual()(*parsed, digest));
  EXPECT_FALSE(KeyDigestEqual()(digest, (*hasher)->Digest("two")));
  EXPECT_FALSE(DigestFromHex("ab").ok());
  EXPECT_FALSE(DigestFromHex(std::string(64, 'g')).ok());
}

TEST(ApiKey, SecretIsMadeOnceForItsOwnerOnly) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/secret";
  const auto first = KeyHasher::Open(path);
  ASSERT_TRUE(first.ok()) << first.status();
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto second = KeyHasher::Open(path);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ((*first)->Digest("x"), (*second)->Digest("x"));
  const auto other = KeyHasher::Open(folder.path() + "/other");
  EXPECT_NE((*first)->Digest("x"), (*other)->Digest("x"));
}

TEST(ApiKey, SecretThatOthersCanReadIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/secret";
  std::ofstream(path) << std::string(32, 's');
  chmod(path.c_str(), 0644);
  const auto hasher = KeyHasher::Open(path);
  ASSERT_FALSE(hasher.ok());
  EXPECT_THAT(std::string(hasher.status().message()), HasSubstr("0600"));
}

TEST(ApiKey, ShortSecretIsRefused) {
  EXPECT_FALSE(KeyHasher::FromSecret(std::string(31, 's')).ok());
}

}  // namespace
}  // namespace reticle::server::tenants
