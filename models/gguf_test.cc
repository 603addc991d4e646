#include "models/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "models/gguf_writer.h"

namespace reticle::models {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

// Builds files by hand, so that the reader is not tested against our writer alone.
class Raw {
 public:
  template <typename T>
  Raw& Put(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Raw& U32(uint32_t value) { return Put(value); }
  Raw& U64(uint64_t value) { return Put(value); }
  Raw& Text(std::string_view text) {
    U64(text.size());
    const auto bytes = std::as_bytes(std::span(text));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Raw& Header(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
    return U32(0x46554747).U32(version).U64(tensors).U64(entries);
  }
  Raw& Tensor(std::string_view name, std::vector<uint64_t> shape, uint32_t type, uint64_t offset) {
    Text(name).U32(static_cast<uint32_t>(shape.size()));
    for (const uint64_t length : shape) U64(length);
    return U32(type).U64(offset);
  }
  Raw& Pad(size_t alignment, size_t extra) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + extra);
    return *this;
  }
  Bytes bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

absl::Status ParseStatus(const Raw& raw) {
  const Bytes bytes = raw.bytes();
  return GgufFile::Parse(bytes).status();
}

void ExpectError(const Raw& raw, absl::StatusCode code, const std::string& message) {
  const absl::Status status = ParseStatus(raw);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

class TemporaryFile {
 public:
  TemporaryFile() {
    std::string name = ::testing::TempDir() + "gguf_test.XXXXXX";
    const int fd = mkstemp(name.data());
    EXPECT_GE(fd, 0);
    close(fd);
    path_ = name;
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(GgufTest, ReadsEveryScalarType) {
  Raw raw;
  raw.Header(0, 12);
  raw.Text("u8").U32(0).Put<uint8_t>(200);
  raw.Text("i8").U32(1).Put<int8_t>(-100);
  raw.Text("u16").U32(2).Put<uint16_t>(60000);
  raw.Text("i16").U32(3).Put<int16_t>(-30000);
  raw.Text("u32").U32(4).Put<uint32_t>(4000000000u);
  raw.Text("i32").U32(5).Put<int32_t>(-2000000000);
  raw.Text("f32").U32(6).Put<float>(1.5f);
  raw.Text("bool").U32(7).Put<uint8_t>(1);
  raw.Text("string").U32(8).Text(std::string_view("a\0b", 3));
  raw.Text("u64").U32(10).Put<uint64_t>(std::numeric_limits<uint64_t>::max());
  raw.Text("i64").U32(11).Put<int64_t>(std::numeric_limits<int64_t>::min());
  raw.Text("f64").U32(12).Put<double>(1e300);
  const Bytes bytes = raw.bytes();
  auto parsed = GgufFile::Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const GgufFile& file = **parsed;
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.size_bytes(), bytes.size());
  EXPECT_EQ(file.GetUint("u8").value(), 200u);
  EXPECT_EQ(file.GetInt("u8").value(), 200);
  EXPECT_EQ(file.GetInt("i8").value(), -100);
  EXPECT_EQ(file.GetUint("u16").value(), 60000u);
  EXPECT_EQ(file.GetInt("i16").value(), -30000);
  EXPECT_EQ(file.GetUint("u32").value(), 4000000000u);
  EXPECT_EQ(file.GetInt("i32").value(), -2000000000);
  EXPECT_EQ(file.GetFloat("f32").value(), 1.5);
  EXPECT_EQ(file.GetBool("bool").value(), true);
  EXPECT_EQ(file.GetString("string").value(), std::string_view("a\0b", 3));
  EXPECT_EQ(file.GetUint("u64").value(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(file.GetInt("i64").value(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(file.GetFloat("f64").value(), 1e300);
  EXPECT_EQ(file.TypeOf("i16").value(), GgufValueType::kInt16);
  EXPECT_THAT(file.Keys(), ElementsAre("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool",
                                       "string", "u64", "i64", "f64"));
  EXPECT_TRUE(file.Has("f64"));
  EXPECT_FALSE(file.Has("f6"));
  EXPECT_TRUE(file.tensors().empty());

  EXPECT_THAT(std::string(file.GetUint("i8").status().message()),
              HasSubstr("metadata 'i8' is -100; it must not be negative"));
  EXPECT_THAT(std::string(file.GetInt("u64").status().message()),
              HasSubstr("metadata 'u64' is 18446744073709551615; the limit is"));
  EXPECT_THAT(std::string(file.GetUint("string").status().message()),
              HasSubstr("metadata 'string' is of type string; an unsigned integer is expected"));
  EXPECT_EQ(file.GetFloat("u8").status().code(), kInvalid);
  EXPECT_EQ(file.GetBool("u8").status().code(), kInvalid);
  EXPECT_EQ(file.GetString("u8").status().code(), kInvalid);
  EXPECT_EQ(file.GetStringArray("string").status().code(), kInvalid);
  EXPECT_EQ(file.GetUint("absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(file.TypeOf("absent").status().code(), absl::StatusCode::kNotFound);
}

TEST(GgufTest, ReadsArraysOfEveryTypeAndNestedOnes) {
  Raw raw;
  raw.Header(0, 13, 2);
  const auto array = [&raw](std::string_view key, uint32_t type, uint64_t count) -> Raw& {
    return raw.Text(key).U32(9).U32(type).U64(count);
  };
  array("u8", 0, 2).Put<uint8_t>(1).Put<uint8_t>(255);
  array("i8", 1, 1).Put<int8_t>(-1);
  array("u16", 2, 1).Put<uint16_t>(65535);
  array("i16", 3, 1).Put<int16_t>(-2);
  array("u32", 4, 1).Put<uint32_t>(4294967295u);
  array("i32", 5, 2).Put<int32_t>(-3).Put<int32_t>(3);
  array("f32", 6, 2).Put<float>(0.5f).Put<float>(-0.5f);
  array("bool", 7, 2).Put<uint8_t>(0).Put<uint8_t>(1);
  array("string", 8, 3).Text("x").Text("").Text("yz");
  array("u64", 10, 1).Put<uint64_t>(std::numeric_limits<uint64_t>::max());
  array("i64", 11, 1).Put<int64_t>(-4);
  array("f64", 12, 1).Put<double>(0.25);
  array("nested", 9, 2);
  raw.U32(5).U64(2).Put<int32_t>(7).Put<int32_t>(8);
  raw.U32(8).U64(1).Text("deep");
  const Bytes bytes = raw.bytes();
  auto parsed = GgufFile::Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const GgufFile& file = **parsed;
  EXPECT_EQ(file.version(), 2u);
  EXPECT_THAT(file.GetIntArray("u8").value(), ElementsAre(1, 255));
  EXPECT_THAT(file.GetIntArray("i8").value(), ElementsAre(-1));
  EXPECT_THAT(file.GetIntArray("u16").value(), ElementsAre(65535));
  EXPECT_THAT(file.GetIntArray("i16").value(), ElementsAre(-2));
  EXPECT_THAT(file.GetIntArray("u32").value(), ElementsAre(4294967295));
  EXPECT_THAT(file.GetIntArray("i32").value(), ElementsAre(-3, 3));
  EXPECT_THAT(file.GetFloatArray("f32").value(), ElementsAre(0.5f, -0.5f));
  EXPECT_THAT(file.GetStringArray("string").value(), ElementsAre("x", "", "yz"));
  EXPECT_THAT(file.GetIntArray("i64").value(), ElementsAre(-4));
  EXPECT_THAT(file.GetFloatArray("f64").value(), ElementsAre(0.25f));
  EXPECT_THAT(std::string(file.GetIntArray("u64").status().message()),
              HasSubstr("metadata 'u64' element 0 is 18446744073709551615; the limit is"));
  EXPECT_THAT(std::string(file.GetIntArray("f32").status().message()),
              HasSubstr("metadata 'f32' is of type array of float32; array of integers"));
  EXPECT_EQ(file.GetFloatArray("i32").status().code(), kInvalid);

  const auto bools = file.Get("bool")->AsArray().value();
  ASSERT_EQ(bools.size(), 2u);
  EXPECT_FALSE(bools[0].AsBool().value());
  EXPECT_TRUE(bools[1].AsBool().value());
  const auto nested = file.Get("nested")->AsArray().value();
  ASSERT_EQ(nested.size(), 2u);
  EXPECT_THAT(nested[0].AsIntArray().value(), ElementsAre(7, 8));
  EXPECT_THAT(nested[1].AsStringArray().value(), ElementsAre("deep"));
}

TEST(GgufTest, EmptyArraysFitEveryElementType) {
  Raw raw;
  raw.Header(0, 1).Text("empty").U32(9).U32(4).U64(0);
  const Bytes bytes = raw.bytes();
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->GetStringArray("empty")->empty());
  EXPECT_TRUE((*file)->GetFloatArray("empty")->empty());
}

TEST(GgufTest, ReadsTensorsOfEveryType) {
  Raw raw;
  raw.Header(AllTensorTypes().size(), 1).Text("general.alignment").U32(4).U32(64);
  uint64_t offset = 0;
  for (const TensorType type : AllTensorTypes()) {
    raw.Tensor(std::string(TensorTypeName(type)), {256, 3}, static_cast<uint32_t>(type), offset);
    offset += (Traits(type).bytes * 256 / Traits(type).elements * 3 + 63) / 64 * 64;
  }
  raw.Pad(64, offset);
  const Bytes bytes = raw.bytes();
  auto parsed = GgufFile::Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const GgufFile& file = **parsed;
  EXPECT_EQ(file.alignment(), 64u);
  ASSERT_EQ(file.tensors().size(), AllTensorTypes().size());
  for (const GgufTensor& tensor : file.tensors()) {
    EXPECT_EQ(tensor.name, TensorTypeName(tensor.type));
    EXPECT_THAT(tensor.shape, ElementsAre(256, 3));
    EXPECT_EQ(tensor.elements(), 768u);
    EXPECT_EQ(tensor.rows(), 3u);
    EXPECT_EQ(tensor.data.size(), Traits(tensor.type).bytes * 768 / Traits(tensor.type).elements);
    EXPECT_EQ(tensor.data.data(), bytes.data() + tensor.file_offset);
    EXPECT_EQ(tensor.file_offset % 64, 0u);
    EXPECT_EQ(file.FindTensor(tensor.name), &tensor);
  }
  EXPECT_EQ(file.FindTensor("Q9_9"), nullptr);
}

TEST(GgufHostileTest, Header) {
  ExpectError(Raw().U32(0x46554747), kDataLoss, "version at byte 4 needs 4 bytes; 0 are left");
  ExpectError(Raw().U32(0x12345678).U32(3), kInvalid, "magic at byte 0 is 0x12345678");
  ExpectError(Raw(), kDataLoss, "magic at byte 0 needs 4 bytes");
  ExpectError(Raw().Header(0, 0, 1), kUnimplemented, "version at byte 4 is 1; 2 and 3 are read");
  ExpectError(Raw().Header(0, 0, 4), kUnimplemented, "version at byte 4 is 4");
  ExpectError(Raw().Header(0, 0, 0x03000000), kUnimplemented, "big-endian");
  ExpectError(Raw().Header(1, 0), kDataLoss, "tensor count at byte 8 is 1; the 8 bytes left");
  ExpectError(Raw().Header(0, uint64_t{1} << 63), kDataLoss, "metadata count at byte 16 is 922");
  ExpectError(Raw().Header(~uint64_t{0}, 0), kDataLoss, "tensor count at byte 8 is 18446744073");
}

TEST(GgufHostileTest, Keys) {
  ExpectError(Raw().Header(0, 1).Text("").U32(7).Put<uint8_t>(1).Pad(32, 0), kInvalid,
              "metadata key at byte 24 has 0 bytes; it must have 1 to 65535");
  ExpectError(Raw().Header(0, 1).Text(std::string(65536, 'k')).U32(7).Put<uint8_t>(1), kInvalid,
              "has 65536 bytes");
  ExpectError(Raw().Header(0, 1).Text(std::string("a\0b", 3)).U32(7).Put<uint8_t>(1), kInvalid,
              "metadata key 'a\\x00\\x62' at byte 24 contains a NUL");
  ExpectError(Raw().Header(0, 1).U64(~uint64_t{0}).U64(0), kDataLoss,
              "metadata key at byte 32 needs 18446744073709551615 bytes; 8 are left");
  ExpectError(Raw().Header(0, 2).Text("k").U32(7).Put<uint8_t>(1).Text("k").U32(7).Put<uint8_t>(0),
              kInvalid, "metadata key 'k' at byte 38 occurs twice");
}

TEST(GgufHostileTest, Values) {
  ExpectError(Raw().Header(0, 1).Text("k").U32(13).U32(0), kInvalid,
              "metadata 'k' value type before byte 37 is 13; it must be 0 to 12");
  ExpectError(Raw().Header(0, 1).Text("k").U32(7).Put<uint8_t>(2), kInvalid,
              "metadata 'k' bool at byte 37 is 2; it must be 0 or 1");
  ExpectError(Raw()
                  .Header(0, 1)
                  .Text("k")
                  .U32(9)
                  .U32(7)
                  .U64(3)
                  .Put<uint8_t>(1)
                  .Put<uint8_t>(0)
                  .Put<uint8_t>(9),
              kInvalid, "metadata 'k' bool at byte 51 is 9");
  ExpectError(Raw().Header(0, 1).Text("k").U32(10).U32(1), kDataLoss,
              "metadata 'k' uint64 at byte 37 needs 8 bytes; 4 are left");
  ExpectError(Raw().Header(0, 1).Text("k").U32(8).U64(100), kDataLoss,
              "metadata 'k' string at byte 45 needs 100 bytes; 0 are left");
  ExpectError(Raw().Header(0, 1).Text("k").U32(9).U32(13).U64(1).U64(0), kInvalid,
              "metadata 'k' array element type at byte 37 is 13");
  // Times 4 the first count wraps around to 0, the second to 4.
  for (const uint64_t count : {uint64_t{1} << 62, (uint64_t{1} << 62) + 1}) {
    ExpectError(Raw().Header(0, 1).Text("k").U32(9).U32(4).U64(count).U32(0), kDataLoss,
                "the 4 bytes left hold at most 1");
  }
  ExpectError(Raw().Header(0, 1).Text("k").U32(9).U32(8).U64(2).Text("abcdefgh").U64(~uint64_t{7}),
              kDataLoss, "metadata 'k' string of an array at byte 73 needs 18446744073709551608");
}

TEST(GgufHostileTest, DeeplyNestedArrays) {
  const auto nested = [](int depth) {
    Raw raw;
    raw.Header(0, 1).Text("k").U32(9);
    for (int i = 1; i < depth; ++i) raw.U32(9).U64(1);
    raw.U32(0).U64(0);
    return raw;
  };
  EXPECT_TRUE(ParseStatus(nested(GgufValue::kMaxDepth)).ok());
  ExpectError(nested(GgufValue::kMaxDepth + 1), kInvalid, "is nested 9 deep; the limit is 8");
  ExpectError(nested(100000), kInvalid, "metadata 'k' array at byte 133 is nested 9 deep");
}

TEST(GgufHostileTest, Alignment) {
  const auto with = [](uint32_t type, uint64_t value) {
    Raw raw;
    raw.Header(0, 1).Text("general.alignment").U32(type);
    if (type == 4) raw.U32(static_cast<uint32_t>(value));
    if (type == 10) raw.U64(value);
    if (type == 8) raw.Text("32");
    return raw;
  };
  EXPECT_TRUE(ParseStatus(with(4, 8)).ok());
  EXPECT_TRUE(ParseStatus(with(10, 4096)).ok());
  for (const uint64_t bad : {0, 1, 4, 24, 33, 1 << 25}) {
    ExpectError(with(4, bad), kInvalid, "it must be a power of two from 8 to 16777216");
  }
  ExpectError(with(10, uint64_t{1} << 63), kInvalid, "at byte 24 is 9223372036854775808");
  ExpectError(with(8, 0), kInvalid, "metadata 'general.alignment' is of type string");
}

TEST(GgufHostileTest, TensorEntries) {
  const auto one = [](std::string_view name, std::vector<uint64_t> shape, uint32_t type = 0,
                      uint64_t offset = 0) {
    return Raw().Header(1, 0).Tensor(name, std::move(shape), type, offset).Pad(32, 4096);
  };
  EXPECT_TRUE(ParseStatus(one("t", {8})).ok());
  EXPECT_TRUE(ParseStatus(one("t", {8, 1, 2, 3})).ok());
  ExpectError(one("t", {}), kInvalid,
              "tensor 't' has 0 dimensions at byte 33; it must have 1 to 4");
  ExpectError(one("t", {1, 1, 1, 1, 1}), kInvalid, "tensor 't' has 5 dimensions at byte 33");
  ExpectError(one("t", {8, 0}), kInvalid, "tensor 't' at byte 24 has dimension 1 of length 0");
  ExpectError(one("t", {uint64_t{1} << 32, uint64_t{1} << 32}), kInvalid, "too many elements");
  ExpectError(one("t", {uint64_t{1} << 62}), kInvalid, "more bytes than 63 bits count");
  ExpectError(one("t", {33, 32}, 8), kInvalid,
              "has rows of 33 elements, no multiple of the 32 of a Q8_0 block");
  ExpectError(one("t", {128, 2}, 12), kInvalid, "no multiple of the 256 of a Q4_K block");
  ExpectError(one("t", {256}, 23), kUnimplemented,
              "tensor 't' at byte 45 is of type IQ4_XS (23), which is not read");
  ExpectError(one("t", {256}, 4), kUnimplemented, "is of type unknown (4)");
  ExpectError(one("t", {256}, 0xffffffff), kUnimplemented, "is of type unknown (4294967295)");
  ExpectError(one("t", {8}, 0, 4), kInvalid,
              "tensor 't' has offset 4 at byte 49, no multiple of the alignment 32");
  ExpectError(one("t", {8}, 0, 4096), kDataLoss,
              "tensor 't' needs 32 bytes at offset 4096 of the data, which begin at byte 64");
  ExpectError(one("t", {1025}, 0, 0), kDataLoss, "tensor 't' needs 4100 bytes at offset 0");
  ExpectError(one("t", {8}, 0, ~uint64_t{31}), kDataLoss, "at offset 18446744073709551584");
  ExpectError(one("", {8}), kInvalid, "tensor name at byte 24 has 0 bytes; it must have 1 to 64");
  ExpectError(one(std::string(65, 'n'), {8}), kInvalid, "has 65 bytes; it must have 1 to 64");
  ExpectError(one(std::string("a\0", 2), {8}), kInvalid, "contains a NUL");
}

TEST(GgufHostileTest, TensorsTogether) {
  const auto two = [](std::string_view second, uint64_t first_offset, uint64_t second_offset) {
    return Raw()
        .Header(2, 0)
        .Tensor("a", {16}, 0, first_offset)
        .Tensor(second, {16}, 0, second_offset)
        .Pad(32, 128);
  };
  EXPECT_TRUE(ParseStatus(two("b", 0, 64)).ok());
  EXPECT_TRUE(ParseStatus(two("b", 64, 0)).ok());
  ExpectError(two("a", 0, 64), kInvalid, "tensor 'a' occurs twice; the second is number 2");
  ExpectError(two("b", 0, 0), kInvalid, "overlaps");
  ExpectError(two("b", 0, 32), kInvalid,
              "tensor 'b' at byte 128 overlaps 'a', which ends at byte 160");
  ExpectError(two("b", 32, 0), kInvalid,
              "tensor 'a' at byte 128 overlaps 'b', which ends at byte 160");
  ExpectError(Raw().Header(1, 0).Tensor("a", {8}, 0, 0), kDataLoss, "the file has 57 bytes");
}

TEST(GgufTest, UnalignedBytesAreRefused) {
  Bytes bytes = Raw().Put<uint8_t>(0).Header(0, 0).bytes();
  EXPECT_EQ(GgufFile::Parse(std::span(bytes).subspan(1)).status().code(), kInvalid);
}

std::string IdentityOf(const GgufFile& file) {
  return file.Identity([](size_t count, absl::FunctionRef<void(size_t)> body) {
    for (size_t i = 0; i < count; ++i) body(i);
  });
}

TEST(GgufTest, OpensFilesAndHashesThem) {
  TemporaryFile file;
  GgufWriter writer;
  writer.AddString("general.name", "x");
  ASSERT_TRUE(writer.WriteFile(file.path()).ok());
  auto opened = GgufFile::Open(file.path());
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->GetString("general.name").value(), "x");

  // The same bytes with one flipped give another identity.
  std::fstream stream(file.path(), std::ios::in | std::ios::out | std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(stream)), {});
  const Bytes copy(reinterpret_cast<const std::byte*>(content.data()),
                   reinterpret_cast<const std::byte*>(content.data()) + content.size());
  EXPECT_EQ(IdentityOf(**opened), IdentityOf(**GgufFile::Parse(copy)));
  EXPECT_EQ((*opened)->FileSha256(), (*GgufFile::Parse(copy))->FileSha256());
  // What was released is there when it is read again.
  (*opened)->ReleasePages();
  EXPECT_EQ((*opened)->GetString("general.name").value(), "x");
  Bytes changed = copy;
  changed.back() ^= std::byte{1};
  EXPECT_NE(IdentityOf(**GgufFile::Parse(changed)), IdentityOf(**opened));
}

// The digest of those 24 bytes by Python's hashlib.
TEST(GgufTest, Sha256IsThatOfTheFile) {
  const Bytes bytes = Raw().Header(0, 0).bytes();
  EXPECT_EQ(HexOf((*GgufFile::Parse(bytes))->FileSha256()),
            "a4e5e156ddec27e286f75328784d7106b60a4eb1d246e950a001a3f944fbda99");
}

// The identity of 24 bytes, and of 9 MiB: XXH3 of each piece by Python's xxhash, over them hashlib.
TEST(GgufTest, IdentityIsOfEveryPieceInItsPlace) {
  const Bytes small = Raw().Header(0, 0).bytes();
  EXPECT_EQ(IdentityOf(**GgufFile::Parse(small)),
            "7e388eb287ab95de683e30501f1c087444e86be7190708fc3a6abe887da18249");
  Bytes large = small;
  large.resize(9 << 20);
  for (size_t i = small.size(); i < large.size(); ++i) large[i] = static_cast<std::byte>(i >> 20);
  const auto file = GgufFile::Parse(large).value();
  EXPECT_EQ(IdentityOf(*file), "9fa4a5318e267c3117b33d277b6af2f51e67f8c73020eae774a4c6e750a4ee01");
  // Whoever hashes a piece, and whenever.
  const auto backwards = [](size_t count, absl::FunctionRef<void(size_t)> body) {
    std::vector<std::thread> threads;
    for (size_t i = count; i-- > 0;) threads.emplace_back([&body, i] { body(i); });
    for (std::thread& thread : threads) thread.join();
  };
  EXPECT_EQ(file->Identity(backwards), IdentityOf(*file));
}

TEST(GgufTest, WhatIsReadOnceCanBeReadAgain) {
  TemporaryFile file;
  GgufWriter writer;
  writer.AddString("general.name", std::string(100'000, 'n'));
  ASSERT_TRUE(writer.WriteFile(file.path()).ok());
  const auto opened = GgufFile::Open(file.path()).value();
  const std::string_view name = opened->GetString("general.name").value();
  const auto bytes = std::as_bytes(std::span(name));
  int calls = 0;
  for (const size_t first : {size_t{0}, size_t{1}, size_t{5000}, name.size()}) {
    opened->ReadOnce(bytes.subspan(first), [&] {
      ++calls;
      EXPECT_EQ(name.substr(first).find_first_not_of('n'), std::string_view::npos);
    });
  }
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(name, std::string(100'000, 'n'));
}

TEST(GgufTest, ReadersMayShareAFile) {
  GgufWriter writer;
  writer.AddString("general.name", "shared");
  const Bytes bytes = writer.WriteBytes().value();
  const auto file = GgufFile::Parse(bytes).value();
  std::vector<std::string> hashes(4);
  std::vector<std::thread> threads;
  threads.reserve(hashes.size());
  for (std::string& hash : hashes) {
    threads.emplace_back([&file, &hash] {
      if (file->GetString("general.name").value() == "shared") hash = IdentityOf(*file);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(hashes, ::testing::Each(IdentityOf(*file)));
}

TEST(GgufTest, OpenErrorsNameThePath) {
  const auto missing = GgufFile::Open("/nonexistent/model.gguf");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent/model.gguf"));
  EXPECT_THAT(std::string(GgufFile::Open("/").status().message()), HasSubstr("no regular file"));
  TemporaryFile file;
  EXPECT_THAT(std::string(GgufFile::Open(file.path()).status().message()), HasSubstr("is empty"));
  std::ofstream(file.path()) << "GGUF";
  const auto truncated = GgufFile::Open(file.path());
  EXPECT_EQ(truncated.status().code(), kDataLoss);
  EXPECT_THAT(std::string(truncated.status().message()), HasSubstr(file.path() + ": version"));
}

// Weights are put behind a page that cannot be read: parsing must not look at them.
TEST(GgufTest, ParsingTouchesNoWeight) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const Bytes header = Raw()
                           .Header(1, 1)
                           .Text("general.alignment")
                           .U32(4)
                           .U32(static_cast<uint32_t>(page))
                           .Tensor("w", {256, 64}, 8, 0)
                           .bytes();
  const size_t size = page + 256 * 64 / 32 * 34;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  std::memcpy(memory, header.data(), header.size());
  ASSERT_EQ(mprotect(static_cast<std::byte*>(memory) + page, size - page, PROT_NONE), 0);
  auto file = GgufFile::Parse(std::span(static_cast<const std::byte*>(memory), size));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->FindTensor("w")->data.size(), size - page);
  munmap(memory, size);
}

}  // namespace
}  // namespace reticle::models
