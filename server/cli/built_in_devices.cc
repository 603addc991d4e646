#include "server/cli/built_in_devices.h"

#include "backends/cpu/cpu_device.h"
#include "backends/fake/fake_device.h"
#include "base/status.h"

namespace reticle::server::cli {
namespace {

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

}  // namespace

std::vector<DeviceChoice> BuiltInDevices() {
  DeviceChoice cpu;
  cpu.name = "cpu";
  cpu.api = backends::cpu::CpuDeviceApi();
  DeviceChoice fake;
  fake.name = "fake";
  fake.api = backends::fake::FakeDeviceApi();
  fake.inject = InjectIntoFake;
  return {cpu, fake};
}

}  // namespace reticle::server::cli
