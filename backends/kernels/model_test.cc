#include "backends/kernels/model.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "models/synthetic.h"

namespace reticle::backends::kernels {
namespace {

std::vector<std::byte> ModelFile() {
  models::SyntheticLlamaOptions options;
  options.config = models::SmallWideLlamaConfig();
  options.config.vocab_size = 1000;  // more panels than a worker takes at once, the last not whole
  options.matrix_type = models::TensorType::kQ4_0;
  options.output_type = models::TensorType::kQ6_K;
  options.distinct_rows = 32;
  return models::MakeSyntheticLlama(options).value();
}

bool SameBytes(const PackedMatrix& a, const PackedMatrix& b) {
  return a.panels == b.panels && a.values_stride == b.values_stride &&
         std::memcmp(a.values, b.values, a.panels * a.values_stride) == 0 &&
         std::memcmp(a.scales, b.scales, a.panels * a.scales_stride) == 0;
}

TEST(ModelTest, WeightsDoNotDependOnWhoPacksThem) {
  const std::vector<std::byte> bytes = ModelFile();
  const auto file = models::GgufFile::Parse(bytes).value();
  ThreadPool one(1);
  const auto expected = Model::Load(*file, one).value();
  for (const int threads : {2, 3, 7}) {
    ThreadPool pool(threads);
    const auto model = Model::Load(*file, pool).value();
    EXPECT_TRUE(SameBytes(model->output(), expected->output())) << threads;
    for (size_t i = 0; i < expected->layers().size(); ++i) {
      EXPECT_TRUE(SameBytes(model->layers()[i].q, expected->layers()[i].q)) << threads;
      EXPECT_TRUE(SameBytes(model->layers()[i].down, expected->layers()[i].down)) << threads;
    }
  }
}

TEST(ModelTest, TheFirstRowThatIsNotFiniteIsNamedWhoeverFindsIt) {
  std::vector<std::byte> bytes = ModelFile();
  const auto clean = models::GgufFile::Parse(bytes).value();
  const models::GgufTensor* const gate = clean->FindTensor("blk.0.ffn_gate.weight");
  const size_t row_bytes = gate->data.size() / gate->rows();
  for (const size_t row : {333, 500}) {
    bytes[gate->file_offset + row * row_bytes + 1] = std::byte{0x7c};
  }
  const auto file = models::GgufFile::Parse(bytes).value();
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    const absl::Status status = Model::Load(*file, pool).status();
    EXPECT_EQ(status.message(),
              "row 333 of tensor blk.0.ffn_gate.weight holds a weight or scale that is not finite");
  }
}

}  // namespace
}  // namespace reticle::backends::kernels
