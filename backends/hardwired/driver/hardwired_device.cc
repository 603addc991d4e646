// The C table of the emulated card.
#include "backends/hardwired/driver/hardwired_device.h"

#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "backends/abi/driver_support.h"
#include "backends/hardwired/driver/driver_options.h"
#include "backends/hardwired/driver/hardwired_core.h"
#include "base/mutex.h"
#include "base/status.h"

struct reticle_device {
  std::unique_ptr<reticle::backends::hardwired::HardwiredDevice> card;
};

namespace reticle::backends::hardwired {
namespace {

// The open devices, for InjectFault.
class Registry {
 public:
  void Add(HardwiredDevice* device) {
    MutexLock lock(mutex_);
    devices_.push_back(device);
  }
  void Remove(HardwiredDevice* device) {
    MutexLock lock(mutex_);
    std::erase(devices_, device);
  }
  // The one that was opened last counts.
  template <typename Is>
  absl::Status Inject(Is is, const FaultSpec& fault, const std::string& what) {
    MutexLock lock(mutex_);
    for (auto device = devices_.rbegin(); device != devices_.rend(); ++device) {
      if (!is(**device)) continue;
      if ((*device)->Inject(fault)) return absl::OkStatus();
      return UnavailableError("%s is being reset", what);
    }
    return NotFoundError("no open device is %s", what);
  }

 private:
  Mutex mutex_;
  std::vector<HardwiredDevice*> devices_ RETICLE_GUARDED_BY(mutex_);
};

Registry& TheRegistry() {
  static Registry* const registry = new Registry;
  return *registry;
}

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
    ASSIGN_OR_RETURN(DriverOptions options,
                     DriverOptions::FromConfig(WholeStruct(config, storage)));
    ASSIGN_OR_RETURN(auto card, HardwiredDevice::Create(*host, std::move(options)));
    TheRegistry().Add(card.get());
    *device = new reticle_device{std::move(card)};
    return absl::OkStatus();
  });
}

void Close(reticle_device* device) {
  TheRegistry().Remove(device->card.get());
  delete device;
}

int32_t Describe(reticle_device* device, reticle_capabilities* capabilities,
                 reticle_error* /*error*/) {
  WriteStruct(device->card->capabilities(), capabilities);
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
    return device->card->Submit(work, stride, count, accepted);
  });
}

int32_t Poll(reticle_device* device, reticle_completion* completions, size_t stride,
             size_t capacity, size_t* count, reticle_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    *count = 0;
    if (capacity > 0 && completions == nullptr) {
      return absl::InvalidArgumentError("completions is NULL");
    }
    return device->card->Poll(completions, stride, capacity, count);
  });
}

int32_t Arm(reticle_device* device) { return device->card->Arm() ? 1 : 0; }

int32_t Cancel(reticle_device* device, uint64_t sequence, reticle_error* error) {
  return Guarded(error, [&] { return device->card->Cancel(sequence); });
}

int32_t AdapterLoad(reticle_device* device, uint64_t adapter, const char* path, float scale,
                    reticle_error* error) {
  return Guarded(error, [&] { return device->card->LoadAdapter(adapter, path, scale); });
}

int32_t AdapterUnload(reticle_device* device, uint64_t adapter, reticle_error* error) {
  return Guarded(error, [&] { return device->card->UnloadAdapter(adapter); });
}

int32_t Stats(reticle_device* device, reticle_stats* stats, reticle_error* /*error*/) {
  WriteStruct(device->card->Stats(), stats);
  return RETICLE_OK;
}

int32_t Health(reticle_device* device, reticle_health* health, reticle_error* /*error*/) {
  WriteStruct(device->card->Health(), health);
  return RETICLE_OK;
}

int32_t Reset(reticle_device* device, reticle_error* error) {
  return Guarded(error, [&] { return device->card->Reset(); });
}

}  // namespace

absl::Status InjectFault(std::string_view name, const FaultSpec& fault) {
  return TheRegistry().Inject([&](const HardwiredDevice& device) { return device.name() == name; },
                              fault, "'" + std::string(name) + "'");
}

absl::Status InjectFault(uint32_t device_index, const FaultSpec& fault) {
  return TheRegistry().Inject(
      [&](const HardwiredDevice& device) { return device.device_index() == device_index; }, fault,
      "number " + std::to_string(device_index));
}

const reticle_device_api* HardwiredDeviceApi() {
  static const reticle_device_api api = {
      .struct_size = sizeof(reticle_device_api),
      .abi_major = RETICLE_DEVICE_ABI_MAJOR,
      .abi_minor = RETICLE_DEVICE_ABI_MINOR,
      .driver_name = "hardwired",
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

}  // namespace reticle::backends::hardwired
