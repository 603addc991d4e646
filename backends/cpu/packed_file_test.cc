#include "backends/cpu/packed_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace reticle::backends::cpu {
namespace {

using ::testing::HasSubstr;

class PackedFileTest : public testing::Test {
 protected:
  PackedFileTest() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::ofstream(model_) << "a model";
    for (size_t i = 0; i < weights_.size(); ++i) weights_[i] = std::byte(i * 31 >> 3);
  }
  ~PackedFileTest() override { std::filesystem::remove_all(folder_); }

  absl::Status Write() {
    std::promise<absl::Status> done;
    const PackedFileWriter writer(path(), Source(), "cafe", weights_,
                                  [&](absl::Status status) { done.set_value(status); });
    return done.get_future().get();
  }
  absl::StatusOr<PackedFile> Open() { return PackedFile::Open(path(), Source(), weights_.size()); }
  PackedSource Source() { return PackedSource::Of(model_).value(); }
  std::string path() { return PackedPath(folder_ + "/packed", model_); }

  const std::string folder_ = testing::TempDir() + "packed_file_test";
  const std::string model_ = folder_ + "/m.gguf";
  std::vector<std::byte> weights_ = std::vector<std::byte>((40 << 20) + 123);
};

TEST_F(PackedFileTest, MapsWhatWasWritten) {
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(Write().ok());
  const auto packed = Open();
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_TRUE(std::ranges::equal(packed->weights(), weights_));
  EXPECT_EQ(packed->identity(), "cafe");
  EXPECT_FALSE(std::filesystem::exists(path() + ".part"));
}

TEST_F(PackedFileTest, IsOfOneStateOfOneModelFile) {
  ASSERT_TRUE(Write().ok());
  EXPECT_EQ(PackedFile::Open(path(), Source(), weights_.size() + 1).status().code(),
            absl::StatusCode::kNotFound);
  std::ofstream(model_, std::ios::app) << "!";
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(PackedPath(folder_, model_), PackedPath(folder_, folder_ + "/other/m.gguf"));
  EXPECT_EQ(PackedPath(folder_, model_), PackedPath(folder_, folder_ + "/./m.gguf"));
}

TEST_F(PackedFileTest, ADamagedFileIsNotMapped) {
  ASSERT_TRUE(Write().ok());
  std::filesystem::resize_file(path(), 5000);
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kDataLoss);
  std::filesystem::resize_file(path(), 10);
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(Write().ok());
  EXPECT_TRUE(Open().ok());
  std::fstream(path()).seekp(8) << '\0';  // the version
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(PackedFileTest, WhatACrashLeftIsWrittenOver) {
  std::filesystem::create_directories(folder_ + "/packed");
  std::ofstream(path() + ".part") << std::string(1 << 20, 'x');
  ASSERT_TRUE(Write().ok());
  const auto packed = Open();
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_TRUE(std::ranges::equal(packed->weights(), weights_));
}

TEST_F(PackedFileTest, TwoProcessesDoNotWriteTheSameFile) {
  std::filesystem::create_directories(folder_ + "/packed");
  const int other = open((path() + ".part").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  const absl::Status refused = Write();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(refused.message(), HasSubstr(".part"));
  close(other);
  EXPECT_TRUE(Write().ok());
}

TEST_F(PackedFileTest, AWriterThatIsDestroyedLeavesEverythingOrNothing) {
  for (int i = 0; i < 20; ++i) {
    {
      const PackedFileWriter writer(path(), Source(), "", weights_, [](const absl::Status&) {});
    }
    EXPECT_FALSE(std::filesystem::exists(path() + ".part"));
    const auto packed = Open();
    if (packed.ok()) EXPECT_TRUE(std::ranges::equal(packed->weights(), weights_));
    std::filesystem::remove(path());
  }
}

TEST_F(PackedFileTest, AFolderThatCannotBeWrittenIsNamed) {
  std::ofstream(folder_ + "/packed") << "no folder";
  const absl::Status status = Write();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr(folder_ + "/packed/m.gguf"));
}

}  // namespace
}  // namespace reticle::backends::cpu
