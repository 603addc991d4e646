#include "backends/hardwired/timing/cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reticle::backends::hardwired {
namespace {

using ::testing::HasSubstr;

Quantity Number(double value) {
  Quantity quantity;
  quantity.value = value;
  quantity.provenance = Provenance::kInferred;
  return quantity;
}

CostInputs RoundNumbers() {
  CostInputs inputs;
  inputs.device_usd = Number(30'000);
  inputs.host_usd = Number(5'000);
  inputs.network_usd = Number(8'800);
  inputs.interest = Number(0);
  inputs.life_years = Number(5);
  inputs.operations_usd_per_hour = Number(0.5);
  inputs.power_watts = Number(1'000);
  inputs.pue = Number(1.25);
  inputs.usd_per_kwh = Number(0.08);
  inputs.utilisation = Number(0.5);
  return inputs;
}

TEST(CostTest, TheRecoveryFactorIsTheAnnuity) {
  EXPECT_DOUBLE_EQ(CapitalRecoveryFactor(0, 4), 0.25);
  EXPECT_NEAR(CapitalRecoveryFactor(0.08, 5), 0.2504565, 1e-7);
  EXPECT_NEAR(CapitalRecoveryFactor(1e-9, 4), 0.25, 1e-6);
}

// By hand: 10,000 tokens/s at 50 % are 18 Mtok an hour; 43,800 USD over 5 years of 8,760 hours are
// 1 USD an hour.
TEST(CostTest, TheFormulaByHand) {
  const auto cost = CostOf(RoundNumbers(), 10'000);
  ASSERT_TRUE(cost.ok()) << cost.status();
  EXPECT_NEAR(cost->total(), (1.0 + 0.5 + 0.1) / 18, 1e-12);
  EXPECT_NEAR(cost->hardware, 35'000.0 / 43'800 / 18, 1e-12);
  EXPECT_NEAR(cost->network, 8'800.0 / 43'800 / 18, 1e-12);
  EXPECT_NEAR(cost->power, 0.1 / 18, 1e-12);
  EXPECT_NEAR(cost->operations, 0.5 / 18, 1e-12);
  EXPECT_FALSE(cost->rests_on_assumptions);
}

TEST(CostTest, AnUnknownPriceIsNotInvented) {
  const auto profile = LoadProfile("taalas-hc1");
  ASSERT_TRUE(profile.ok());
  const auto unknown = CostOf(CostInputs::For(*profile), 16'960);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("device_usd"));
  const auto with_price = CostOf(CostInputs::For(*profile, 10'000), 16'960);
  ASSERT_TRUE(with_price.ok()) << with_price.status();
  EXPECT_TRUE(with_price->rests_on_assumptions);
}

TEST(CostTest, DefaultsHaveTheirLetters) {
  const auto profile = LoadProfile("nvidia-h100");
  ASSERT_TRUE(profile.ok());
  const CostInputs inputs = CostInputs::For(*profile);
  EXPECT_EQ(inputs.device_usd.provenance, Provenance::kPress);
  EXPECT_EQ(inputs.pue.provenance, Provenance::kPress);
  EXPECT_EQ(inputs.host_usd.provenance, Provenance::kUnknown);
  EXPECT_EQ(inputs.host_usd.simulated_provenance(), Provenance::kInferred);
  const auto cost = CostOf(inputs, 22'714);
  ASSERT_TRUE(cost.ok()) << cost.status();
  EXPECT_GT(cost->total(), 0.01);
  EXPECT_LT(cost->total(), 0.2);
}

TEST(CostTest, AServersPowerIsSharedByItsCards) {
  const auto server = LoadProfile("taalas-hc1-server");
  ASSERT_TRUE(server.ok());
  EXPECT_EQ(CostInputs::For(*server).power_watts.value, 250);
}

TEST(CostTest, BadInputsAreNamed) {
  CostInputs inputs = RoundNumbers();
  EXPECT_FALSE(CostOf(inputs, 0).ok());
  inputs.utilisation = Number(1.5);
  EXPECT_THAT(std::string(CostOf(inputs, 1).status().message()), HasSubstr("utilisation is 1.5"));
  inputs = RoundNumbers();
  inputs.life_years = Number(0);
  EXPECT_THAT(std::string(CostOf(inputs, 1).status().message()), HasSubstr("life_years"));
}

}  // namespace
}  // namespace reticle::backends::hardwired
