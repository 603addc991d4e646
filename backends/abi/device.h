// The host's side of the device ABI: C structs as C++ objects, checked on the way in.
#ifndef RETICLE_BACKENDS_ABI_DEVICE_H_
#define RETICLE_BACKENDS_ABI_DEVICE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"

namespace reticle::backends {

// A driver's table, validated: major version, struct_size, and every function present.
class Driver {
 public:
  // Wraps the table of a built-in backend.
  static absl::StatusOr<Driver> FromApi(const reticle_device_api* api);
  // Loads `path` with dlopen and asks for its table. The library is never unloaded. NOT_FOUND when
  // the file cannot be loaded, INVALID_ARGUMENT when it is no driver, UNIMPLEMENTED when its ABI
  // major differs; each names the path and both versions.
  static absl::StatusOr<Driver> Load(const std::string& path);

  std::string_view name() const;
  std::string_view version() const;
  const reticle_device_api& api() const { return *api_; }

 private:
  explicit Driver(const reticle_device_api* api) : api_(api) {}
  const reticle_device_api* api_;
};

// What to open; zero and empty mean the driver's default. Fields as in reticle_device_config.
struct DeviceConfig {
  std::string model_path;
  uint32_t device_index = 0;
  uint32_t threads = 0;
  uint32_t kv_type = RETICLE_KV_TYPE_DEFAULT;
  uint32_t kv_block_tokens = 0;
  uint64_t kv_bytes = 0;
  uint32_t context_limit = 0;
  uint32_t max_sequences = 0;
  std::vector<std::pair<std::string, std::string>> options;
};

// An open device. Threads as in the ABI: the non-const calls by one thread at a time, Stats and
// Health by any.
class Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> Open(Driver driver, const DeviceConfig& config);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // As described when it was opened; checked for sanity (non-zero vocabulary, limits that agree).
  const reticle_capabilities& capabilities() const { return capabilities_; }
  bool Has(uint64_t feature) const { return (capabilities_.features & feature) == feature; }

  // Returns how many items, from the front, were accepted; `*refusal` says why the next one was not
  // (OK if all were).
  size_t Submit(std::span<const reticle_work> work, absl::Status* refusal);
  // Returns the number of completions moved to the front of `completions`.
  absl::StatusOr<size_t> Poll(std::span<reticle_completion> completions);
  bool Arm();
  absl::Status Cancel(uint64_t sequence);
  absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale);
  absl::Status UnloadAdapter(uint64_t adapter);
  absl::StatusOr<reticle_stats> Stats() const;
  absl::StatusOr<reticle_health> Health() const;
  absl::Status Reset();

 private:
  Device(Driver driver, reticle_device* device) : driver_(driver), device_(device) {}

  const Driver driver_;
  reticle_device* const device_;
  reticle_capabilities capabilities_{};
};

}  // namespace reticle::backends

#endif  // RETICLE_BACKENDS_ABI_DEVICE_H_
