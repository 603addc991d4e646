// The C table of the fake device.
#include "backends/fake/fake_device.h"

#include <exception>
#include <utility>

#include "backends/abi/driver_support.h"
#include "backends/fake/fake_core.h"

struct reticle_device {
  std::unique_ptr<reticle::backends::fake::FakeDevice> fake;
};

namespace reticle::backends::fake {
namespace {

// Runs `body`, which returns an absl::Status, and turns what it returns or throws into a code.
template <typename Body>
int32_t Guarded(reticle_error* error, Body body) noexcept {
  try {
    return FillError(error, body());
  } catch (const std::exception& e) {
    return FillError(error, RETICLE_INTERNAL, e.what());
  }
}

int32_t Open(const reticle_host* host, const reticle_device_config* config, reticle_device** device,
             reticle_error* error) {
  *device = nullptr;
  return Guarded(error, [&]() -> absl::Status {
    if (config == nullptr) return absl::InvalidArgumentError("config is NULL");
    if (host == nullptr || host->struct_size < sizeof(reticle_host)) {
      return absl::InvalidArgumentError("the host's callbacks are NULL or cut short");
    }
    reticle_device_config storage;
    auto options = FakeOptions::FromConfig(WholeStruct(config, storage));
    if (!options.ok()) return options.status();
    auto fake = FakeDevice::Create(*host, *options);
    if (!fake.ok()) return fake.status();
    *device = new reticle_device{*std::move(fake)};
    return absl::OkStatus();
  });
}

void Close(reticle_device* device) { delete device; }

int32_t Describe(reticle_device* device, reticle_capabilities* capabilities,
                 reticle_error* /*error*/) {
  WriteStruct(device->fake->capabilities(), capabilities);
  return RETICLE_OK;
}

int32_t Submit(reticle_device* device, const reticle_work* work, size_t stride, size_t count,
               size_t* accepted, reticle_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    *accepted = 0;
    if (count > 0 && work == nullptr) return absl::InvalidArgumentError("work is NULL");
    if (count > 0 && stride < sizeof(size_t)) {
      return absl::InvalidArgumentError("stride is smaller than struct_size");
    }
    return device->fake->Submit(work, stride, count, accepted);
  });
}

int32_t Poll(reticle_device* device, reticle_completion* completions, size_t stride,
             size_t capacity, size_t* count, reticle_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    *count = 0;
    if (capacity > 0 && completions == nullptr) {
      return absl::InvalidArgumentError("completions is NULL");
    }
    return device->fake->Poll(completions, stride, capacity, count);
  });
}

int32_t Arm(reticle_device* device) { return device->fake->Arm() ? 1 : 0; }

int32_t Cancel(reticle_device* device, uint64_t sequence, reticle_error* error) {
  return Guarded(error, [&] { return device->fake->Cancel(sequence); });
}

int32_t AdapterLoad(reticle_device* device, uint64_t adapter, const char* path, float scale,
                    reticle_error* error) {
  return Guarded(error, [&] { return device->fake->LoadAdapter(adapter, path, scale); });
}

int32_t AdapterUnload(reticle_device* device, uint64_t adapter, reticle_error* error) {
  return Guarded(error, [&] { return device->fake->UnloadAdapter(adapter); });
}

int32_t Stats(reticle_device* device, reticle_stats* stats, reticle_error* /*error*/) {
  WriteStruct(device->fake->Stats(), stats);
  return RETICLE_OK;
}

int32_t Health(reticle_device* device, reticle_health* health, reticle_error* /*error*/) {
  WriteStruct(device->fake->Health(), health);
  return RETICLE_OK;
}

int32_t Reset(reticle_device* device, reticle_error* error) {
  return Guarded(error, [&] { return device->fake->Reset(); });
}

}  // namespace

const reticle_device_api* FakeDeviceApi() {
  static const reticle_device_api api = {
      .struct_size = sizeof(reticle_device_api),
      .abi_major = RETICLE_DEVICE_ABI_MAJOR,
      .abi_minor = RETICLE_DEVICE_ABI_MINOR,
      .driver_name = "fake",
      .driver_version = "1",
      .open = Open,
      .close = Close,
      .describe = Describe,
      .submit = Submit,
      .poll = Poll,
      .arm = Arm,
      .cancel = Cancel,
      .adapter_load = AdapterLoad,
      .adapter_unload = AdapterUnload,
      .stats = Stats,
      .health = Health,
      .reset = Reset,
  };
  return &api;
}

}  // namespace reticle::backends::fake
