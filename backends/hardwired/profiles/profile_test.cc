#include "backends/hardwired/profiles/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace reticle::backends::hardwired {
namespace {

using ::testing::HasSubstr;

constexpr char kSmall[] = R"(
name = "mine"
batching = "pipelined"
[timing]
decode_rate = { value = 100, unit = "tok/s", from = "N", source = "a guess" }
pipeline_depth = { value = 2, unit = "streams", from = "N", source = "a guess" }
)";

std::string ErrorOf(const std::string& toml) {
  const auto profile = ParseProfile(toml, "mine.toml");
  return profile.ok() ? "OK" : std::string(profile.status().message());
}

TEST(ProfileTest, EveryBuiltInProfileLoads) {
  for (const std::string& name : BuiltInProfileNames()) {
    const auto profile = LoadProfile(name);
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_EQ(profile->name, name);
    EXPECT_FALSE(profile->title.empty()) << name;
    EXPECT_FALSE(profile->vendor.empty()) << name;
    EXPECT_FALSE(profile->summary.empty()) << name;
  }
}

TEST(ProfileTest, TheNamedOnesAreThere) {
  for (const char* name : {"taalas-hc1", "taalas-hc1@measured-2026-03", "taalas-hc1-server",
                           "taalas-hc2", "nvidia-h100", "nvidia-h200", "nvidia-b200", "groq-lpu",
                           "cerebras-wse3", "sambanova-sn40l", "etched-sohu", "unlimited"}) {
    EXPECT_TRUE(LoadProfile(name).ok()) << name;
  }
}

// What nobody published has no value; what we assume never wears another letter.
TEST(ProfileTest, UnknownsAreNeverShownAsKnown) {
  for (const std::string& name : BuiltInProfileNames()) {
    const auto profile = LoadProfile(name);
    ASSERT_TRUE(profile.ok());
    for (const KeyInfo& info : KeyInfos()) {
      const Quantity& quantity = (*profile)[info.key];
      EXPECT_EQ(quantity.unit, info.unit) << name << " " << info.name;
      EXPECT_EQ(quantity.value.has_value(), quantity.provenance != Provenance::kUnknown)
          << name << " " << info.name;
      if (quantity.assumed.has_value()) {
        EXPECT_EQ(quantity.simulated_provenance(), Provenance::kInferred) << info.name;
        EXPECT_FALSE(quantity.assumption.empty()) << name << " " << info.name;
      }
    }
  }
}

TEST(ProfileTest, TheFirstProfileIsTheVendorsFigure) {
  const auto profile = LoadProfile("taalas-hc1");
  ASSERT_TRUE(profile.ok());
  const Quantity& rate = (*profile)[Key::kDecodeRate];
  EXPECT_EQ(rate.value, 16960);
  EXPECT_EQ(rate.provenance, Provenance::kVendor);
  EXPECT_EQ((*profile)[Key::kContext].value, 6144);
  EXPECT_EQ((*profile)[Key::kMaxTopK].value, 8);
  EXPECT_EQ((*profile)[Key::kPrice].provenance, Provenance::kUnknown);
  EXPECT_FALSE((*profile)[Key::kPrice].simulated().has_value());
  EXPECT_TRUE(profile->is_hardwired);
}

TEST(ProfileTest, AVariantChangesWhatItNamesAndNothingElse) {
  const auto base = LoadProfile("taalas-hc1");
  const auto variant = LoadProfile("taalas-hc1@measured-2026-03");
  ASSERT_TRUE(base.ok() && variant.ok());
  EXPECT_NEAR(1e9 / *(*variant)[Key::kDecodeRate].value, 62000, 1e-6);
  EXPECT_EQ((*variant)[Key::kDecodeRate].provenance, Provenance::kIndependent);
  EXPECT_EQ((*variant)[Key::kActivePower].value, (*base)[Key::kActivePower].value);
  EXPECT_EQ(variant->facts.size(), base->facts.size());
  EXPECT_EQ((*LoadProfile("taalas-hc1-server"))[Key::kServerCards].value, 10);
}

TEST(ProfileTest, ErrorsNameFileKeyAndValue) {
  EXPECT_EQ(ErrorOf(kSmall), "OK");
  EXPECT_THAT(ErrorOf("name = \"x\"\n[timing]\nspeed = 3\n"),
              HasSubstr("mine.toml: timing.speed is not known"));
  EXPECT_THAT(ErrorOf("name = \"x\"\ncolour = \"red\"\n"), HasSubstr("mine.toml: colour"));
  EXPECT_THAT(ErrorOf("name = "), HasSubstr("mine.toml:1"));
  EXPECT_THAT(ErrorOf("batching = \"fast\""), HasSubstr("batching is 'fast'"));
  const auto with_rate = [](const std::string& rate) {
    return ErrorOf("name = \"x\"\n[timing]\ndecode_rate = " + rate + "\n");
  };
  EXPECT_THAT(with_rate("5"), HasSubstr("timing.decode_rate must be a table"));
  EXPECT_THAT(with_rate(R"({ value = -5, unit = "tok/s", from = "V", source = "s" })"),
              HasSubstr("timing.decode_rate.value is -5"));
  EXPECT_THAT(with_rate(R"({ value = nan, unit = "tok/s", from = "V", source = "s" })"),
              HasSubstr("timing.decode_rate.value is nan"));
  EXPECT_THAT(with_rate(R"({ value = 5, unit = "tok", from = "V", source = "s" })"),
              HasSubstr("timing.decode_rate.unit is 'tok'; it must be 'tok/s'"));
  EXPECT_THAT(with_rate(R"({ value = 5, unit = "tok/s", from = "X", source = "s" })"),
              HasSubstr("timing.decode_rate.from is 'X'"));
  EXPECT_THAT(with_rate(R"({ value = 5, unit = "tok/s", from = "U" })"),
              HasSubstr("unknown (U) and has a value"));
  EXPECT_THAT(with_rate(R"({ value = 5, unit = "tok/s", from = "V" })"), HasSubstr("its source"));
  EXPECT_THAT(with_rate(R"({ value = 5, unit = "tok/s", source = "s" })"), HasSubstr("lacks from"));
  EXPECT_THAT(with_rate(R"({ value = 5, from = "V", source = "s" })"), HasSubstr("its unit"));
  EXPECT_THAT(with_rate(R"({ unit = "tok/s", from = "U", assumed = 5 })"), HasSubstr("say why"));
  EXPECT_THAT(with_rate(R"({ unit = "tok/s", from = "U" })"),
              HasSubstr("timing.decode_rate is missing"));
  EXPECT_THAT(ErrorOf("name = \"x\"\ninherits = \"nobody\"\n"), HasSubstr("'nobody'"));
}

TEST(ProfileTest, ABatchedProfileNeedsItsAggregate) {
  const std::string batched = R"(
name = "mine"
batching = "batched"
[timing]
decode_rate = { value = 100, unit = "tok/s", from = "N", source = "a guess" }
)";
  EXPECT_THAT(ErrorOf(batched), HasSubstr("timing.aggregate_rate is missing"));
  EXPECT_THAT(ErrorOf(batched + "aggregate_rate = { value = 50, unit = \"tok/s\", from = \"N\", "
                                "source = \"a guess\" }\n"),
              HasSubstr("at least decode_rate, 100"));
}

TEST(ProfileTest, LoadsAFile) {
  const std::string path = testing::TempDir() + "mine.toml";
  std::ofstream(path) << kSmall;
  const auto profile = LoadProfile(path);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->name, "mine");
  EXPECT_EQ(profile->source, path);
  EXPECT_EQ(LoadProfile("./no-such.toml").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(LoadProfile("hc9").status().message()), HasSubstr("taalas-hc1"));
}

TEST(ProfileTest, AnOperatorsNumberIsAnInference) {
  auto profile = *LoadProfile("taalas-hc1");
  ASSERT_TRUE(OverrideQuantity("timing.pipeline_depth", "4", &profile).ok());
  EXPECT_EQ(profile[Key::kPipelineDepth].value, 4);
  EXPECT_EQ(profile[Key::kPipelineDepth].provenance, Provenance::kInferred);
  for (const char* bad : {"", "0", "1.5", "many", "nan"}) {
    EXPECT_EQ(OverrideQuantity("timing.pipeline_depth", bad, &profile).code(),
              absl::StatusCode::kInvalidArgument)
        << bad;
  }
  EXPECT_FALSE(OverrideQuantity("timing.speed", "1", &profile).ok());
}

}  // namespace
}  // namespace reticle::backends::hardwired
