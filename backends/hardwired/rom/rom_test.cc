// Images: what is written is read, the same input gives the same bytes, and whatever is done to an
// image, the reader refuses it with the reason or reads it safely.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "backends/hardwired/rom/rom_file.h"
#include "backends/hardwired/rom/tapeout.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/rope.h"
#include "models/synthetic.h"

namespace reticle::backends::hardwired {
namespace {

using models::TensorType;
using testing::HasSubstr;
using Types = TapeoutOptions::Types;

// A copy at a multiple of 64, of exactly that size, so that a sanitizer sees the first byte beyond.
class AlignedBytes {
 public:
  explicit AlignedBytes(const std::string& bytes) : size_(bytes.size()) {
    data_.reset(new (std::align_val_t{64}) std::byte[size_]);
    std::memcpy(data_.get(), bytes.data(), size_);
  }
  std::span<const std::byte> span() const { return {data_.get(), size_}; }

 private:
  struct Delete {
    void operator()(std::byte* p) const { operator delete[](p, std::align_val_t{64}); }
  };
  size_t size_;
  std::unique_ptr<std::byte[], Delete> data_;
};

std::string TempPath() {
  return testing::TempDir() + "rom_test." + std::to_string(getpid()) + ".rom";
}

models::SyntheticLlamaOptions Model() {
  models::SyntheticLlamaOptions options;
  options.config.layers = 1;
  options.config.name = "small one";
  options.matrix_type = TensorType::kQ8_0;
  options.llama3_rope = models::Llama3RopeScaling();
  return options;
}

TapeoutOptions Options(Types types) {
  TapeoutOptions options;
  options.types = types;
  TokenText text;
  for (uint32_t i = 0; i < 50; ++i) text.tokens.push_back(i * 37 % 320);
  text.counts.assign(50, true);
  options.calibration.push_back(text);
  return options;
}

std::string Image(Types types, int threads = 1) {
  const std::vector<std::byte> bytes = models::MakeSyntheticLlama(Model()).value();
  const auto file = models::GgufFile::Parse(bytes).value();
  TapeoutOptions options = Options(types);
  options.threads = threads;
  const auto report = TapeOut(*file, TempPath(), options);
  EXPECT_TRUE(report.ok()) << report.status();
  std::ifstream in(TempPath(), std::ios::binary);
  const std::string image{std::istreambuf_iterator<char>(in), {}};
  std::remove(TempPath().c_str());
  return image;
}

// Puts the seals right again, so that the checks behind them are reached.
void Reseal(std::string& image) {
  if (image.size() < sizeof(RomHeader)) return;
  RomHeader header;
  std::memcpy(&header, image.data(), sizeof(header));
  const auto bytes = std::as_bytes(std::span(image.data(), image.size()));
  const uint64_t data = std::clamp<uint64_t>(header.data_offset, sizeof(header), image.size());
  Sha256 of_data;
  of_data.Add(bytes.subspan(data));
  header.data_seal = of_data.Finish();
  header.seal = {};
  Sha256 of_header;
  of_header.Add(std::as_bytes(std::span(&header, 1)));
  of_header.Add(bytes.subspan(sizeof(header), data - sizeof(header)));
  header.seal = of_header.Finish();
  std::memcpy(image.data(), &header, sizeof(header));
}

// Reads everything there is; false when the image is refused.
bool Exercise(const std::string& image) {
  const AlignedBytes bytes(image);
  const auto file = RomFile::Parse(bytes.span());
  if (!file.ok()) {
    EXPECT_FALSE(file.status().message().empty());
    return false;
  }
  const auto model = (*file)->MakeModel();
  uint64_t sum = (*file)->metadata().Keys().size();
  for (const RomTensor& tensor : (*file)->tensors()) {
    for (const std::byte byte : tensor.data) sum += std::to_integer<uint64_t>(byte);
  }
  if (model.ok()) {
    std::vector<float> row((*model)->config().dim);
    (*model)->Embed((*model)->config().vocab_size - 1, row.data());
    sum += row.size();
  }
  return sum > 0;
}

std::string Reason(const std::string& image) {
  return std::string(RomFile::Parse(AlignedBytes(image).span()).status().message());
}

TEST(RomTest, SaysWhatItHolds) {
  const std::string image = Image(Types::k3And6);
  const AlignedBytes bytes(image);
  const auto file = RomFile::Parse(bytes.span()).value();
  const RomInfo& info = file->info();
  EXPECT_EQ(info.model_name, "small one");
  EXPECT_EQ(info.types, "3/6");
  EXPECT_EQ(info.config.dim, Model().config.dim);
  EXPECT_EQ(info.config.vocab_size, Model().config.vocab_size);
  EXPECT_TRUE(info.config.has_rope_factors);
  EXPECT_FALSE(info.config.tied_embeddings);
  EXPECT_EQ(info.parameters, info.config.parameters());
  EXPECT_EQ(info.image_hash.size(), 64u);
  const std::vector<std::byte> source = models::MakeSyntheticLlama(Model()).value();
  const auto gguf = models::GgufFile::Parse(source).value();
  EXPECT_EQ(info.source_hash, HexOf(gguf->FileSha256()));
  EXPECT_EQ(file->metadata().Keys(), gguf->Keys());
  EXPECT_EQ(file->metadata().GetStringArray("tokenizer.ggml.tokens").value(),
            gguf->GetStringArray("tokenizer.ggml.tokens").value());
  EXPECT_TRUE(Exercise(image));
}

TEST(RomTest, TheSameInputGivesTheSameBytes) {
  const std::string image = Image(Types::k3And6);
  EXPECT_EQ(Image(Types::k3And6), image);
  EXPECT_EQ(Image(Types::k3And6, 3), image);
  EXPECT_NE(Image(Types::k3), image);
}

TEST(RomTest, AnyChangedByteIsFound) {
  const std::string image = Image(Types::k8);
  std::mt19937 random(1);
  for (size_t i = 0; i < 1500; ++i) {
    std::string changed = image;
    const size_t at = i < sizeof(RomHeader) ? i : random() % image.size();
    changed[at] = static_cast<char>(changed[at] ^ (1 << random() % 8));
    ASSERT_NE(Reason(changed), "") << at;
  }
}

TEST(RomTest, AnyOtherLengthIsFound) {
  const std::string image = Image(Types::k8);
  for (size_t size = 0; size < image.size(); size += size < 600 ? 1 : 997) {
    ASSERT_NE(Reason(image.substr(0, size)), "") << size;
  }
  EXPECT_THAT(Reason(image.substr(0, image.size() - 1)), HasSubstr("truncated: the file has"));
  EXPECT_THAT(Reason(image.substr(0, 100)), HasSubstr("truncated: 100 bytes are left"));
  EXPECT_THAT(Reason(image + "x"), HasSubstr("bytes were added"));
}

TEST(RomTest, SaysWhichCheckFailed) {
  const std::string image = Image(Types::k8);
  RomHeader header;
  std::memcpy(&header, image.data(), sizeof(header));
  EXPECT_THAT(Reason("GGUF" + image.substr(4)), HasSubstr("this is a GGUF model"));
  EXPECT_THAT(Reason("\x7f"
                     "ELF" +
                     image.substr(4)),
              HasSubstr("no device image"));
  std::string changed = image;
  changed[8] = 2;
  EXPECT_THAT(Reason(changed), HasSubstr("image version is 2 (byte 8)"));
  changed = image;
  changed[image.size() - 100] ^= 1;
  EXPECT_THAT(Reason(changed), HasSubstr("tampered: the seal over the weights (bytes"));
  changed = image;
  changed[header.table_offset + 3] ^= 1;
  EXPECT_THAT(Reason(changed), HasSubstr("tampered: the seal over header, metadata and table"));
  Reseal(changed);
  EXPECT_THAT(Reason(changed), HasSubstr("tensor 0 ('rope_freqs.weight', byte"));
  changed = image;
  std::memcpy(&changed[header.table_offset + sizeof(RomTensorRecord) + 88], "\x41", 1);
  Reseal(changed);
  EXPECT_THAT(Reason(changed), HasSubstr("its offset is not that of the model's shape"));
  // Without the weights' seal only what names them is checked.
  changed = image;
  changed[image.size() - 100] ^= 1;
  EXPECT_TRUE(RomFile::Parse(AlignedBytes(changed).span(), false).ok());
}

TEST(RomTest, ResealedMutationsAreRefusedOrRead) {
  const std::string image = Image(Types::k6);
  RomHeader header;
  std::memcpy(&header, image.data(), sizeof(header));
  const uint64_t interesting[] = {0,
                                  1,
                                  31,
                                  32,
                                  64,
                                  0xff,
                                  0xffff,
                                  1u << 31,
                                  0xffffffffu,
                                  uint64_t{1} << 32,
                                  uint64_t{1} << 62,
                                  ~uint64_t{0} - 63,
                                  ~uint64_t{0}};
  std::mt19937 random(7);
  int accepted = 0;
  constexpr int kRounds = 3000;
  for (int i = 0; i < kRounds; ++i) {
    std::string changed = image;
    for (uint32_t changes = 1 + random() % 3; changes > 0; --changes) {
      const size_t at = random() % (random() % 2 == 0 ? 200 : header.data_offset);
      changed.resize(std::max(changed.size(), at + 9));
      switch (random() % 4) {
        case 0:
          changed[at] = static_cast<char>(changed[at] ^ (1 << random() % 8));
          break;
        case 1:
          changed[at] = static_cast<char>(random());
          break;
        case 2:
          std::memcpy(&changed[at / 4 * 4], &interesting[random() % std::size(interesting)],
                      random() % 2 == 0 ? 4 : 8);
          break;
        default:
          changed.resize(random() % image.size());
          break;
      }
    }
    Reseal(changed);
    accepted += Exercise(changed) ? 1 : 0;
  }
  // Both outcomes must occur, or the mutations test nothing.
  EXPECT_GT(accepted, kRounds / 100);
  EXPECT_LT(accepted, kRounds - kRounds / 100);
}

TEST(RomTest, FilesAreOpenedByPath) {
  EXPECT_EQ(RomFile::Open("/does/not/exist").status().code(), absl::StatusCode::kNotFound);
  const std::string image = Image(Types::k8);
  std::ofstream(TempPath(), std::ios::binary) << image;
  EXPECT_TRUE(IsRomFile(TempPath()));
  EXPECT_EQ(ReadRomInfo(TempPath()).value().types, "8");
  std::ofstream(TempPath(), std::ios::binary) << "GGUF and more";
  EXPECT_FALSE(IsRomFile(TempPath()));
  EXPECT_THAT(std::string(ReadRomInfo(TempPath()).status().message()),
              HasSubstr(TempPath() + "': this is a GGUF model"));
  std::ofstream(TempPath(), std::ios::binary) << "";
  EXPECT_EQ(ReadRomInfo(TempPath()).status().code(), absl::StatusCode::kDataLoss);
  std::remove(TempPath().c_str());
}

}  // namespace
}  // namespace reticle::backends::hardwired
