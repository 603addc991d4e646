// The C table of a device that is a C++ class: whole structs, checks of what a host may get wrong,
// and codes in place of statuses and exceptions, so that the class sees none of it. Header-only.
//
//   const reticle_device_api* MyDeviceApi() {
//     static constexpr reticle_device_api kApi = DriverTable<MyDevice>::Make("my", "1");
//     return &kApi;
//   }
//
// The class opens itself, `config` whole, and is closed by its destructor:
//   static absl::StatusOr<std::unique_ptr<MyDevice>> Open(const reticle_host& host,
//                                                         const reticle_device_config& config);
// and has the verbs of the ABI, with its threads and its rules:
//   const reticle_capabilities& capabilities() const;
//   absl::Status Submit(const reticle_work* work, size_t stride, size_t count, size_t* accepted);
//   absl::Status Poll(reticle_completion* completions, size_t stride, size_t capacity,
//                     size_t* count);
//   bool Arm();
//   absl::Status Cancel(uint64_t sequence);
//   absl::Status LoadAdapter(uint64_t adapter, const char* path, float scale);
//   absl::Status UnloadAdapter(uint64_t adapter);
//   reticle_stats Stats() const;
//   reticle_health Health() const;
//   absl::Status Reset();
// *accepted and *count are 0 before; `path` is never null.
#ifndef RETICLE_BACKENDS_ABI_DRIVER_TABLE_H_
#define RETICLE_BACKENDS_ABI_DRIVER_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/abi/driver_support.h"
#include "backends/abi/reticle_device.h"
#include "base/status.h"

namespace reticle::backends {

template <typename Device>
class DriverTable {
 public:
  // `name` and `version` are static.
  static constexpr reticle_device_api Make(const char* name, const char* version) {
    return {
        .struct_size = sizeof(reticle_device_api),
        .abi_major = RETICLE_DEVICE_ABI_MAJOR,
        .abi_minor = RETICLE_DEVICE_ABI_MINOR,
        .driver_name = name,
        .driver_version = version,
        .open = Open,
        .close = Close,
        .describe = Describe,
        .submit = Submit,
        .poll = Poll,
        .arm = Arm,
        .cancel = Cancel,
        .adapter_load = LoadAdapter,
        .adapter_unload = UnloadAdapter,
        .stats = Stats,
        .health = Health,
        .reset = Reset,
    };
  }

 private:
  static Device& Of(reticle_device* device) { return *reinterpret_cast<Device*>(device); }

  // The code of what `body` returns or throws.
  template <typename Body>
  static int32_t Guarded(reticle_error* error, Body body) noexcept {
    try {
      return FillError(error, body());
    } catch (const std::bad_alloc& e) {
      return FillError(error, RETICLE_RESOURCE_EXHAUSTED, e.what());
    } catch (const std::exception& e) {
      return FillError(error, RETICLE_INTERNAL, e.what());
    }
  }

  static int32_t Open(const reticle_host* host, const reticle_device_config* config,
                      reticle_device** device, reticle_error* error) {
    *device = nullptr;
    return Guarded(error, [&]() -> absl::Status {
      if (config == nullptr) return absl::InvalidArgumentError("config is NULL");
      if (host == nullptr) return absl::InvalidArgumentError("host is NULL");
      if (host->struct_size < sizeof(reticle_host)) {
        return InvalidArgumentError("host->struct_size is %d; it must be at least %d",
                                    host->struct_size, sizeof(reticle_host));
      }
      reticle_device_config storage;
      absl::StatusOr<std::unique_ptr<Device>> opened =
          Device::Open(*host, WholeStruct(config, storage));
      if (!opened.ok()) return opened.status();
      *device = reinterpret_cast<reticle_device*>(opened->release());
      return absl::OkStatus();
    });
  }

  static void Close(reticle_device* device) { delete &Of(device); }

  static int32_t Describe(reticle_device* device, reticle_capabilities* capabilities,
                          reticle_error* /*error*/) {
    WriteStruct(Of(device).capabilities(), capabilities);
    return RETICLE_OK;
  }

  static int32_t Submit(reticle_device* device, const reticle_work* work, size_t stride,
                        size_t count, size_t* accepted, reticle_error* error) {
    *accepted = 0;
    return Guarded(error, [&]() -> absl::Status {
      if (count > 0 && work == nullptr) {
        return InvalidArgumentError("work is NULL with a count of %d", count);
      }
      if (count > 0 && stride < sizeof(size_t)) {
        return InvalidArgumentError("stride is %d; it must be at least %d, for struct_size", stride,
                                    sizeof(size_t));
      }
      return Of(device).Submit(work, stride, count, accepted);
    });
  }

  static int32_t Poll(reticle_device* device, reticle_completion* completions, size_t stride,
                      size_t capacity, size_t* count, reticle_error* error) {
    *count = 0;
    return Guarded(error, [&]() -> absl::Status {
      if (capacity > 0 && completions == nullptr) {
        return InvalidArgumentError("completions is NULL with a capacity of %d", capacity);
      }
      return Of(device).Poll(completions, stride, capacity, count);
    });
  }

  static int32_t Arm(reticle_device* device) { return Of(device).Arm() ? 1 : 0; }

  static int32_t Cancel(reticle_device* device, uint64_t sequence, reticle_error* error) {
    return Guarded(error, [&] { return Of(device).Cancel(sequence); });
  }

  static int32_t LoadAdapter(reticle_device* device, uint64_t adapter, const char* path,
                             float scale, reticle_error* error) {
    return Guarded(
        error, [&] { return Of(device).LoadAdapter(adapter, path == nullptr ? "" : path, scale); });
  }

  static int32_t UnloadAdapter(reticle_device* device, uint64_t adapter, reticle_error* error) {
    return Guarded(error, [&] { return Of(device).UnloadAdapter(adapter); });
  }

  static int32_t Stats(reticle_device* device, reticle_stats* stats, reticle_error* /*error*/) {
    WriteStruct(std::as_const(Of(device)).Stats(), stats);
    return RETICLE_OK;
  }

  static int32_t Health(reticle_device* device, reticle_health* health, reticle_error* /*error*/) {
    WriteStruct(std::as_const(Of(device)).Health(), health);
    return RETICLE_OK;
  }

  static int32_t Reset(reticle_device* device, reticle_error* error) {
    return Guarded(error, [&] { return Of(device).Reset(); });
  }
};

}  // namespace reticle::backends

#endif  // RETICLE_BACKENDS_ABI_DRIVER_TABLE_H_
