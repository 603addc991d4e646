#include "server/cli/built_in_devices.h"

#include <algorithm>

#include "backends/cpu/cpu_device.h"
#include "backends/fake/fake_device.h"
#include "backends/hardwired/driver/hardwired_device.h"
#include "backends/hardwired/profiles/profile.h"
#include "backends/hardwired/timing/cost.h"
#include "backends/hardwired/timing/timing_model.h"
#include "base/check.h"
#include "base/status.h"

namespace reticle::server::cli {
namespace {

namespace hw = backends::hardwired;

absl::Status InjectIntoFake(const std::string& name, std::string_view fault) {
  const auto control = backends::fake::FindFakeDevice(name);
  if (control == nullptr) return NotFoundError("there is no fake device \"%s\"", name);
  if (fault == "hang") {
    control->Hang();
  } else if (fault == "crash") {
    control->Lose();
  } else {
    return InvalidArgumentError("fault is \"%s\"; the fake device knows hang and crash",
                                fault.substr(0, 100));
  }
  return absl::OkStatus();
}

absl::Status InjectIntoCard(const std::string& name, std::string_view fault) {
  ASSIGN_OR_RETURN(const hw::FaultSpec spec, hw::ParseFault(fault));
  return hw::InjectFault(name, spec);
}

// What a million tokens cost on a saturated device: by the formula, or as its vendor claims.
void FillCost(const hw::Profile& profile, DeviceChoice* choice) {
  const absl::StatusOr<hw::TimingModel> timing = hw::TimingModel::Create(profile);
  if (timing.ok()) {
    const double streams = profile[hw::Key::kMaxSequences].simulated_or(1);
    const double rate = timing->AggregateRate(static_cast<uint32_t>(streams));
    const absl::StatusOr<hw::Cost> cost = hw::CostOf(hw::CostInputs::For(profile), rate);
    if (cost.ok()) {
      choice->usd_per_million_tokens = cost->total();
      choice->cost_provenance = hw::ProvenanceLetter(hw::Provenance::kInferred);
      return;
    }
  }
  const hw::Quantity& claim = profile[hw::Key::kClaimedCost];
  choice->usd_per_million_tokens = claim.value;
  choice->cost_provenance = hw::ProvenanceLetter(claim.provenance);
}

}  // namespace

std::vector<DeviceChoice> BuiltInDevices() {
  DeviceChoice cpu;
  cpu.name = "cpu";
  cpu.api = backends::cpu::CpuDeviceApi();
  DeviceChoice fake;
  fake.name = "fake";
  fake.api = backends::fake::FakeDeviceApi();
  fake.inject = InjectIntoFake;
  std::vector<DeviceChoice> devices = {cpu, fake};
  for (const std::string& name : hw::BuiltInProfileNames()) {
    const absl::StatusOr<hw::Profile> profile = hw::LoadProfile(name);
    RETICLE_CHECK(profile.ok());
    DeviceChoice card;
    card.name = name;
    card.api = hw::HardwiredDeviceApi();
    card.options = {{"profile", name}};
    card.cards = static_cast<uint32_t>((*profile)[hw::Key::kServerCards].value.value_or(1));
    card.emulated = true;
    card.inject = InjectIntoCard;
    FillCost(*profile, &card);
    devices.push_back(std::move(card));
  }
  return devices;
}

}  // namespace reticle::server::cli
