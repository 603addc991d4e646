#include "server/cli/tapeout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "backends/hardwired/rom/rom_file.h"
#include "backends/hardwired/rom/rom_format.h"
#include "models/synthetic.h"
#include "server/cli/embedded_model.h"
#include "server/cli/model_source.h"
#include "server/cli/tapeout_texts.h"
#include "server/core/json_value.h"

namespace reticle::server::cli {
namespace {

using testing::HasSubstr;

class TapeoutCommandTest : public testing::Test {
 protected:
  TapeoutCommandTest() {
    models::SyntheticLlamaOptions options;
    options.config.name = "test \"model\"";
    EXPECT_TRUE(models::WriteSyntheticLlama(options, base_ + ".gguf").ok());
  }
  ~TapeoutCommandTest() override {
    for (const char* ending : {".gguf", ".rom", ".json", ".txt"}) {
      std::remove((base_ + ending).c_str());
    }
  }

  static std::string Parse(const std::vector<std::string>& arguments, TapeoutCommand* command) {
    const auto exit = ParseTapeoutArguments(arguments, *command);
    return exit.has_value() ? exit->output : "";
  }
  static std::string Read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  const std::string base_ = testing::TempDir() + "tapeout_command_test." + std::to_string(getpid());
};

TEST_F(TapeoutCommandTest, ReadsItsArguments) {
  TapeoutCommand command;
  EXPECT_EQ(
      Parse({"--out", "a.rom", "--types", "8", "--model", "m.gguf", "--threads", "3"}, &command),
      "");
  EXPECT_EQ(command.out, "a.rom");
  EXPECT_EQ(command.types, "8");
  EXPECT_EQ(command.threads, 3u);
  EXPECT_THAT(Parse({}, &command), HasSubstr("--out is required"));
  EXPECT_THAT(Parse({"--out", "a", "--types", "5"}, &command),
              HasSubstr("--types is \"5\"; it must be 3/6, 3, 6 or 8"));
  EXPECT_THAT(Parse({"--out", "a", "--bits", "2"}, &command), HasSubstr("--bits"));
  EXPECT_THAT(Parse({"--help"}, &command), HasSubstr("--calibration"));
}

TEST_F(TapeoutCommandTest, WritesAnImageThatCarriesWhatAServerNeeds) {
  TapeoutCommand command;
  command.model = base_ + ".gguf";
  command.out = base_ + ".rom";
  command.json = base_ + ".json";
  command.threads = 1;
  ASSERT_EQ(RunTapeout(command), 0);
  const std::string json = Read(command.json);
  EXPECT_TRUE(ParseJsonValue(json).ok()) << json;
  EXPECT_THAT(json, HasSubstr("\"model\": \"test \\\"model\\\"\""));
  EXPECT_THAT(json, HasSubstr("\"name\": \"blk.1.ffn_down.weight\", \"encoding\": "));
  const auto of_image = ModelSource::Open(command.out).value();
  const auto of_model = ModelSource::Open(command.model).value();
  EXPECT_EQ(of_image->metadata().Keys(), of_model->metadata().Keys());
  const auto tokenizer = tokenizer::Tokenizer::Create(of_image->metadata()).value();
  EXPECT_EQ(tokenizer->Encode("a text"),
            tokenizer::Tokenizer::Create(of_model->metadata()).value()->Encode("a text"));
}

TEST_F(TapeoutCommandTest, SaysWhyItFails) {
  TapeoutCommand command;
  command.model = base_ + ".none";
  command.out = base_ + ".rom";
  EXPECT_EQ(RunTapeout(command), 1);
  command.model = base_ + ".gguf";
  command.profile = "etched-sohu";
  EXPECT_EQ(RunTapeout(command), 1);
  EXPECT_THAT(std::string(FindDieDensity("etched-sohu").status().message()),
              HasSubstr("known for taalas-hc1, taalas-hc1@measured"));
  EXPECT_FALSE(FindDieDensity("unlimited").ok());
  EXPECT_THAT(std::string(FindDieDensity("nobody").status().message()), HasSubstr("taalas-hc1"));
}

TEST_F(TapeoutCommandTest, CountsDiesByBits) {
  const DieDensity hc1 = FindDieDensity("taalas-hc1").value();
  EXPECT_EQ(DiesFor(hc1, 8.03e9 * 4.0), 1u);
  EXPECT_EQ(DiesFor(hc1, 8.03e9 * 8.5), 3u);
  EXPECT_EQ(DiesFor(hc1, 1.0), 1u);
  for (const char* name : {"taalas-hc1@measured-2026-03", "taalas-hc1-server", "taalas-hc2"}) {
    const auto density = FindDieDensity(name);
    ASSERT_TRUE(density.ok()) << density.status();
    EXPECT_EQ(DiesFor(*density, 8.03e9 * 4.0), 1u) << name;
    EXPECT_THAT(density->source, HasSubstr("(V: "));
  }
}

TEST(EmbeddedModelTest, TheImageIsOfTheModel) {
  const auto image = backends::hardwired::RomFile::Parse(EmbeddedImage());
  ASSERT_TRUE(image.ok()) << image.status();
  backends::hardwired::Sha256 sha;
  sha.Add(EmbeddedModel());
  EXPECT_EQ((*image)->info().source_hash, backends::hardwired::HexOf(sha.Finish()))
      << "models/house/house.gguf has changed; reticle tapeout --out models/house/house.rom";
  EXPECT_EQ((*image)->info().types, "3/6");
}

TEST_F(TapeoutCommandTest, TextsAreCutIntoDocumentsAndPieces) {
  const auto model = ModelSource::Open(base_ + ".gguf").value();
  const auto tokenizer = tokenizer::Tokenizer::Create(model->metadata()).value();
  const auto count = [](const std::vector<bool>& counts) {
    return std::ranges::count(counts, true);
  };
  const auto texts =
      TokenizeTexts("<|im_start|>ab\n>>>\ncde\n>>>\nfg\n===\nxyz\n===\n", *tokenizer, 512);
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(tokenizer->Decode(texts[0].tokens, /*skip_special=*/true), "abcdefg");
  EXPECT_EQ(texts[0].tokens.size(), texts[0].counts.size());
  EXPECT_EQ(count(texts[0].counts),
            static_cast<ptrdiff_t>(tokenizer->Encode("cde", {.add_special = false}).size()));
  EXPECT_EQ(count(texts[1].counts), static_cast<ptrdiff_t>(texts[1].tokens.size()));
  size_t tokens = 0;
  for (const auto& text : TokenizeTexts(GeneralHeldOutText(), *tokenizer, 100)) {
    EXPECT_LE(text.tokens.size(), 100u);
    tokens += text.tokens.size();
  }
  EXPECT_GT(tokens, 500u);
}

TEST_F(TapeoutCommandTest, BuiltInTextsDiffer) {
  EXPECT_EQ(GeneralCalibrationText().find(GeneralHeldOutText().substr(0, 60)),
            std::string_view::npos);
  EXPECT_FALSE(HouseCalibrationText().empty());
  EXPECT_NE(HouseCalibrationText(), HouseHeldOutText());
}

}  // namespace
}  // namespace reticle::server::cli
