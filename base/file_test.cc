#include "base/file.h"

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace reticle {
namespace {

using ::testing::HasSubstr;

TEST(FileTest, GivesEveryByteOfAFile) {
  const std::string path = testing::TempDir() + "/file_test";
  const std::string bytes("a\r\n\0b\xff", 6);
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_EQ(ReadFile("file", path).value(), bytes);
  std::ofstream(path, std::ios::binary | std::ios::trunc).close();
  EXPECT_EQ(ReadFile("file", path).value(), "");
}

TEST(FileTest, NamesWhatCannotBeReadAndWhy) {
  const absl::Status missing = ReadFile("config file", "/nowhere/at.toml").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("config file /nowhere/at.toml cannot be read: No such"));
  EXPECT_THAT(ReadFile("config file", testing::TempDir()).status().message(),
              HasSubstr("Is a directory"));
}

}  // namespace
}  // namespace reticle
