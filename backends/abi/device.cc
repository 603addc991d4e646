#include "backends/abi/device.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>

#include "backends/abi/capabilities_check.h"
#include "backends/abi/host.h"
#include "base/status.h"

namespace reticle::backends {
namespace {

constexpr char kSymbol[] = "reticle_device_get_api";

// The driver's message under its name, or OK. An unknown code becomes UNKNOWN.
absl::Status ToStatus(const reticle_device_api& api, int32_t code, const reticle_error& error) {
  if (code == RETICLE_OK) return absl::OkStatus();
  const bool known = code > RETICLE_OK && code <= RETICLE_DATA_LOSS;
  const size_t length = strnlen(error.message, sizeof(error.message));
  const std::string_view message = length > 0 ? std::string_view(error.message, length)
                                              : std::string_view("the driver gave no reason");
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      absl::StrFormat("%s: %s%s", api.driver_name, message,
                                      known ? "" : absl::StrFormat(" (status code %d)", code)));
}

struct Error : reticle_error {
  Error() {
    struct_size = sizeof(reticle_error);
    code = RETICLE_OK;
    message[0] = '\0';
  }
};

absl::Status CheckTable(const reticle_device_api& api) {
  if (api.struct_size < sizeof(size_t) + 2 * sizeof(uint32_t)) {
    return InvalidArgumentError("the table's struct_size is %u; it must be at least %u",
                                api.struct_size, sizeof(reticle_device_api));
  }
  if (api.abi_major != RETICLE_DEVICE_ABI_MAJOR) {
    return UnimplementedError("it speaks device ABI %u.%u, this host %u.%u", api.abi_major,
                              api.abi_minor, RETICLE_DEVICE_ABI_MAJOR, RETICLE_DEVICE_ABI_MINOR);
  }
  if (api.struct_size < sizeof(reticle_device_api)) {
    return InvalidArgumentError("the table's struct_size is %u; device ABI %u.%u needs %u",
                                api.struct_size, RETICLE_DEVICE_ABI_MAJOR, RETICLE_DEVICE_ABI_MINOR,
                                sizeof(reticle_device_api));
  }
  struct Entry {
    const char* name;
    bool present;
  };
  for (const Entry& entry : {Entry{"driver_name", api.driver_name != nullptr},
                             {"driver_version", api.driver_version != nullptr},
                             {"open", api.open != nullptr},
                             {"close", api.close != nullptr},
                             {"describe", api.describe != nullptr},
                             {"submit", api.submit != nullptr},
                             {"poll", api.poll != nullptr},
                             {"arm", api.arm != nullptr},
                             {"cancel", api.cancel != nullptr},
                             {"adapter_load", api.adapter_load != nullptr},
                             {"adapter_unload", api.adapter_unload != nullptr},
                             {"stats", api.stats != nullptr},
                             {"health", api.health != nullptr},
                             {"reset", api.reset != nullptr}}) {
    if (!entry.present) return InvalidArgumentError("the table's %s is NULL", entry.name);
  }
  const std::string_view name = api.driver_name;
  const bool is_word = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
  if (name.empty() || !is_word) {
    return InvalidArgumentError("driver_name is '%s'; it must be a lower-case word", name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Driver> Driver::FromApi(const reticle_device_api* api) {
  if (api == nullptr) return InvalidArgumentError("the driver's table is NULL");
  RETURN_IF_ERROR(CheckTable(*api));
  return Driver(api);
}

absl::StatusOr<Driver> Driver::Load(const std::string& path) {
  // Without a slash dlopen would search the system's library folders.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return NotFoundError("cannot load driver '%s': %s", path,
                         reason != nullptr ? reason : "unknown");
  }
  void* const symbol = dlsym(library, kSymbol);
  if (symbol == nullptr) {
    return InvalidArgumentError("'%s' is no device driver: it does not export %s", path, kSymbol);
  }
  const auto get_api = reinterpret_cast<reticle_device_get_api_fn>(symbol);
  const reticle_device_api* const api = get_api(RETICLE_DEVICE_ABI_MAJOR, RETICLE_DEVICE_ABI_MINOR);
  if (api == nullptr) {
    return UnimplementedError("driver '%s' does not speak this host's device ABI %u.%u", path,
                              RETICLE_DEVICE_ABI_MAJOR, RETICLE_DEVICE_ABI_MINOR);
  }
  absl::StatusOr<Driver> driver = FromApi(api);
  if (driver.ok()) return driver;
  return absl::Status(driver.status().code(),
                      absl::StrFormat("driver '%s': %s", path, driver.status().message()));
}

std::string_view Driver::name() const { return api_->driver_name; }
std::string_view Driver::version() const { return api_->driver_version; }

absl::StatusOr<std::unique_ptr<Device>> Device::Open(Driver driver, const DeviceConfig& config) {
  const reticle_device_api& api = driver.api();
  std::vector<reticle_option> options;
  options.reserve(config.options.size());
  for (const auto& [name, value] : config.options) options.push_back({name.c_str(), value.c_str()});
  const reticle_device_config c_config = {
      .struct_size = sizeof(reticle_device_config),
      .model_path = config.model_path.empty() ? nullptr : config.model_path.c_str(),
      .device_index = config.device_index,
      .threads = config.threads,
      .kv_type = config.kv_type,
      .kv_block_tokens = config.kv_block_tokens,
      .kv_bytes = config.kv_bytes,
      .context_limit = config.context_limit,
      .max_sequences = config.max_sequences,
      .options = options.empty() ? nullptr : options.data(),
      .option_count = options.size(),
  };
  reticle_device* opened = nullptr;
  Error error;
  RETURN_IF_ERROR(ToStatus(api, api.open(&HostCallbacks(), &c_config, &opened, &error), error));
  if (opened == nullptr) return InternalError("%s: open gave no device", driver.name());

  std::unique_ptr<Device> device(new Device(driver, opened));
  device->capabilities_.struct_size = sizeof(reticle_capabilities);
  RETURN_IF_ERROR(ToStatus(api, api.describe(opened, &device->capabilities_, &error), error));
  if (absl::Status status = CheckCapabilities(device->capabilities_); !status.ok()) {
    return InternalError("%s: describe: %s", driver.name(), status.message());
  }
  return device;
}

Device::~Device() { driver_.api().close(device_); }

size_t Device::Submit(std::span<const reticle_work> work, absl::Status* refusal) {
  const reticle_device_api& api = driver_.api();
  Error error;
  size_t accepted = 0;
  const int32_t code =
      api.submit(device_, work.data(), sizeof(reticle_work), work.size(), &accepted, &error);
  if (code == RETICLE_OK && accepted == work.size()) {
    *refusal = absl::OkStatus();
    return accepted;
  }
  if (code == RETICLE_OK || accepted > work.size()) {
    *refusal = InternalError("%s: submit accepted %u of %u items with status code %d",
                             api.driver_name, accepted, work.size(), code);
    return std::min(accepted, work.size());
  }
  *refusal = ToStatus(api, code, error);
  return accepted;
}

absl::StatusOr<size_t> Device::Poll(std::span<reticle_completion> completions) {
  const reticle_device_api& api = driver_.api();
  Error error;
  size_t count = 0;
  const int32_t code = api.poll(device_, completions.data(), sizeof(reticle_completion),
                                completions.size(), &count, &error);
  if (code != RETICLE_OK) return ToStatus(api, code, error);
  if (count > completions.size()) {
    return InternalError("%s: poll gave %u completions for a capacity of %u", api.driver_name,
                         count, completions.size());
  }
  for (reticle_completion& completion : completions.first(count)) {
    const size_t filled = completion.struct_size;
    if (filled < sizeof(reticle_completion)) {
      std::memset(reinterpret_cast<char*>(&completion) + filled, 0,
                  sizeof(reticle_completion) - filled);
    }
  }
  return count;
}

bool Device::Arm() { return driver_.api().arm(device_) != 0; }

absl::Status Device::Cancel(uint64_t sequence) {
  Error error;
  const reticle_device_api& api = driver_.api();
  return ToStatus(api, api.cancel(device_, sequence, &error), error);
}

absl::Status Device::LoadAdapter(uint64_t adapter, const std::string& path, float scale) {
  Error error;
  const reticle_device_api& api = driver_.api();
  return ToStatus(api, api.adapter_load(device_, adapter, path.c_str(), scale, &error), error);
}

absl::Status Device::UnloadAdapter(uint64_t adapter) {
  Error error;
  const reticle_device_api& api = driver_.api();
  return ToStatus(api, api.adapter_unload(device_, adapter, &error), error);
}

absl::StatusOr<reticle_stats> Device::Stats() const {
  Error error;
  const reticle_device_api& api = driver_.api();
  reticle_stats stats{};
  stats.struct_size = sizeof(stats);
  RETURN_IF_ERROR(ToStatus(api, api.stats(device_, &stats, &error), error));
  return stats;
}

absl::StatusOr<reticle_health> Device::Health() const {
  Error error;
  const reticle_device_api& api = driver_.api();
  reticle_health health{};
  health.struct_size = sizeof(health);
  RETURN_IF_ERROR(ToStatus(api, api.health(device_, &health, &error), error));
  health.reason[sizeof(health.reason) - 1] = '\0';
  return health;
}

absl::Status Device::Reset() {
  Error error;
  const reticle_device_api& api = driver_.api();
  return ToStatus(api, api.reset(device_, &error), error);
}

}  // namespace reticle::backends
