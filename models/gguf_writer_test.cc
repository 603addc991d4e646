#include "models/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/status.h"
#include "models/gguf.h"

namespace reticle::models {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::vector<float> Ramp(size_t n) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

class GgufWriterTest : public ::testing::Test {
 protected:
  GgufWriterTest() : folder_(::testing::TempDir() + "gguf_writer_test.XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
  }
  ~GgufWriterTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  size_t FilesInFolder() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

 private:
  std::string folder_;
};

TEST_F(GgufWriterTest, MetadataOfEveryTypeComeBack) {
  GgufWriter writer;
  writer.AddUint8("u8", 255);
  writer.AddInt8("i8", -128);
  writer.AddUint16("u16", 65535);
  writer.AddInt16("i16", -32768);
  writer.AddUint32("u32", 4294967295u);
  writer.AddInt32("i32", std::numeric_limits<int32_t>::min());
  writer.AddUint64("u64", std::numeric_limits<uint64_t>::max());
  writer.AddInt64("i64", std::numeric_limits<int64_t>::min());
  writer.AddFloat32("f32", 0.1f);
  writer.AddFloat64("f64", 0.1);
  writer.AddBool("yes", true);
  writer.AddBool("no", false);
  writer.AddString("text", "line\nline");
  writer.AddStringArray("texts", std::vector<std::string>{"a", "", "\xff"});
  writer.AddInt32Array("ints", std::vector<int32_t>{-1, 0, 1});
  writer.AddFloat32Array("floats", std::vector<float>{0.5f});
  const auto bytes = writer.WriteBytes();
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const auto file = GgufFile::Parse(*bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->GetUint("u8").value(), 255u);
  EXPECT_EQ((*file)->GetInt("i8").value(), -128);
  EXPECT_EQ((*file)->GetUint("u16").value(), 65535u);
  EXPECT_EQ((*file)->GetInt("i16").value(), -32768);
  EXPECT_EQ((*file)->GetUint("u32").value(), 4294967295u);
  EXPECT_EQ((*file)->GetInt("i32").value(), std::numeric_limits<int32_t>::min());
  EXPECT_EQ((*file)->GetUint("u64").value(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ((*file)->GetInt("i64").value(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ((*file)->GetFloat("f32").value(), 0.1f);
  EXPECT_EQ((*file)->GetFloat("f64").value(), 0.1);
  EXPECT_TRUE((*file)->GetBool("yes").value());
  EXPECT_FALSE((*file)->GetBool("no").value());
  EXPECT_EQ((*file)->GetString("text").value(), "line\nline");
  EXPECT_THAT((*file)->GetStringArray("texts").value(), ElementsAre("a", "", "\xff"));
  EXPECT_THAT((*file)->GetIntArray("ints").value(), ElementsAre(-1, 0, 1));
  EXPECT_THAT((*file)->GetFloatArray("floats").value(), ElementsAre(0.5f));
  EXPECT_EQ((*file)->TypeOf("i16").value(), GgufValueType::kInt16);

  // Copying every value into another writer gives the same file.
  GgufWriter copy;
  for (const std::string_view key : (*file)->Keys()) copy.AddValue(key, (*file)->Get(key).value());
  EXPECT_EQ(copy.WriteBytes().value(), *bytes);
}

TEST_F(GgufWriterTest, TensorsComeBackAligned) {
  for (const uint32_t alignment : {8u, 32u, 4096u}) {
    GgufWriter writer(alignment);
    const std::vector<float> first = Ramp(3);
    const std::vector<float> second = Ramp(40);
    writer.AddTensor("first", TensorType::kF32, {3}, std::as_bytes(std::span(first)));
    const uint64_t shape[] = {5, 4, 2};
    writer.AddTensor("second", TensorType::kF32, shape, [&](const GgufWriter::Sink& sink) {
      RETURN_IF_ERROR(sink(std::as_bytes(std::span(second).first(7))));
      return sink(std::as_bytes(std::span(second).subspan(7)));
    });
    const auto bytes = writer.WriteBytes();
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const auto file = GgufFile::Parse(*bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->alignment(), alignment);
    EXPECT_EQ((*file)->Has("general.alignment"), alignment != 32);
    const GgufTensor* tensor = (*file)->FindTensor("second");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->file_offset % alignment, 0u);
    EXPECT_THAT(tensor->shape, ElementsAre(5, 4, 2));
    EXPECT_THAT(std::span(reinterpret_cast<const float*>(tensor->data.data()), 40),
                ElementsAreArray(second));
  }
}

TEST_F(GgufWriterTest, MistakesAreReportedWhenWriting) {
  const auto message = [](const GgufWriter& writer) {
    return std::string(writer.WriteBytes().status().message());
  };
  GgufWriter twice;
  twice.AddBool("k", true);
  twice.AddString("k", "");
  EXPECT_THAT(message(twice), HasSubstr("metadata key 'k' was added twice"));
  GgufWriter key;
  key.AddBool("", true);
  EXPECT_THAT(message(key), HasSubstr("has 0 bytes; it must have 1 to 65535"));
  const std::vector<float> data = Ramp(4);
  GgufWriter tensor_twice;
  tensor_twice.AddTensor("t", TensorType::kF32, {4}, std::as_bytes(std::span(data)));
  tensor_twice.AddTensor("t", TensorType::kF32, {4}, std::as_bytes(std::span(data)));
  EXPECT_THAT(message(tensor_twice), HasSubstr("tensor 't' was added twice"));
  GgufWriter shape;
  shape.AddTensor("t", TensorType::kQ8_0, {4}, std::as_bytes(std::span(data)));
  EXPECT_THAT(message(shape), HasSubstr("tensor 't' has rows of 4 elements"));
  EXPECT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
  GgufWriter few;
  few.AddTensor("t", TensorType::kF32, {5}, std::as_bytes(std::span(data)));
  EXPECT_THAT(message(few), HasSubstr("tensor 't' was given 16 bytes; it has 20"));
  GgufWriter many;
  many.AddTensor("t", TensorType::kF32, {3}, std::as_bytes(std::span(data)));
  EXPECT_THAT(message(many), HasSubstr("tensor 't' was given 0 bytes and 16 more; it has 12"));
  EXPECT_THAT(message(GgufWriter(24)), HasSubstr("alignment is 24; it must be a power of two"));
}

TEST_F(GgufWriterTest, AFileAppearsWholeOrNotAtAll) {
  GgufWriter good;
  good.AddString("general.name", "x");
  ASSERT_TRUE(good.WriteFile(Path("model.gguf")).ok());
  EXPECT_TRUE(GgufFile::Open(Path("model.gguf")).ok());
  EXPECT_EQ(FilesInFolder(), 1u);

  GgufWriter bad;
  const uint64_t shape[] = {1024};
  bad.AddTensor("t", TensorType::kF32, shape,
                [](const GgufWriter::Sink&) { return absl::AbortedError("no data"); });
  EXPECT_EQ(bad.WriteFile(Path("model.gguf")).code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(GgufFile::Open(Path("model.gguf")).ok()) << "the older file must stay";
  EXPECT_EQ(FilesInFolder(), 1u);
  EXPECT_EQ(good.WriteFile(Path("none/model.gguf")).code(), absl::StatusCode::kUnavailable);
}

TEST_F(GgufWriterTest, SparseFilesReadAsZerosAndTakeNoDisk) {
  GgufWriter writer;
  const uint64_t shape[] = {4096, 65536};
  writer.AddTensor("large", TensorType::kQ8_0, shape,
                   [](const GgufWriter::Sink&) { return absl::AbortedError("not called"); });
  ASSERT_TRUE(writer.WriteSparseFile(Path("sparse.gguf")).ok());
  struct stat info = {};
  ASSERT_EQ(stat(Path("sparse.gguf").c_str(), &info), 0);
  EXPECT_EQ(info.st_size, 96 + (272 << 20));
  EXPECT_LT(info.st_blocks * 512, 1 << 20);
  const auto file = GgufFile::Open(Path("sparse.gguf"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->FindTensor("large")->data.back(), std::byte{0});
}

}  // namespace
}  // namespace reticle::models
