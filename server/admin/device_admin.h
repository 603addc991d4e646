// The admin API of devices and adapters; docs/admin-api.md lists its routes.
#ifndef RETICLE_SERVER_ADMIN_DEVICE_ADMIN_H_
#define RETICLE_SERVER_ADMIN_DEVICE_ADMIN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/engine.h"
#include "server/admin/admin_router.h"

namespace reticle::server {

struct AdminCard {
  std::string device;  // "taalas-hc1"
  uint32_t index = 0;
  std::string model;  // what requests call the model on it
  scheduler::Engine* engine = nullptr;
  std::function<absl::Status(std::string_view fault)> inject;
};

struct AdminAdapter {
  std::string name;
  std::string path;
  float scale = 1;
};

// Thread-safe; Load and Unload may wait for devices.
class AdapterStore {
 public:
  virtual ~AdapterStore() = default;
  virtual absl::Status Load(const AdminAdapter& adapter) = 0;
  virtual absl::Status Unload(const std::string& name) = 0;
  virtual std::vector<AdminAdapter> List() const = 0;
};

struct DeviceAdmin {
  std::vector<AdminCard> cards;
  AdapterStore* adapters = nullptr;
};

// `admin` and what it names must outlive the router.
void AddDeviceRoutes(const DeviceAdmin& admin, AdminRouter& router);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_ADMIN_DEVICE_ADMIN_H_
