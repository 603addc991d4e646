// Which admin request goes to which function, and who may ask. Other parts of the server add their
// own routes:
//
//   router.Add("POST", "/admin/devices/{device}/{card}/fault", [](AdminRequest request) {
//     return AdminReply{...};                      // on the listener's thread: must be quick
//   });
//   router.AddSlow("DELETE", "/admin/adapters/{name}", ...);   // on a thread of its own
#ifndef RETICLE_SERVER_ADMIN_ADMIN_ROUTER_H_
#define RETICLE_SERVER_ADMIN_ADMIN_ROUTER_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "server/core/worker_pool.h"
#include "server/http/handler.h"

namespace reticle::server {

struct AdminRequest {
  // What stood in the pattern's braces, by position, percent-decoded; a segment each.
  std::vector<std::string> parameters;
  std::string body;
  std::string request_id;
};

struct AdminReply {
  std::string body;
  int status = 200;
  std::string content_type = "application/json";
};

// An error becomes the status of its code, in OpenAI's shape.
using AdminFunction = std::function<absl::StatusOr<AdminReply>(const AdminRequest&)>;

// Routes are added before the listener starts; from then on it is thread-safe.
class AdminRouter : public http::Handler {
 public:
  // Requests must bear `token`; empty: none is asked for, and requests of web pages (those with an
  // Origin header) are refused.
  explicit AdminRouter(std::string_view token);
  ~AdminRouter() override;

  // For requests to come. Thread-safe.
  void SetToken(std::string_view token);

  // `pattern`: segments, of which "{anything}" stands for any one.
  void Add(std::string method, std::string pattern, AdminFunction function);
  void AddSlow(std::string method, std::string pattern, AdminFunction function);

  std::unique_ptr<http::Task> Start(http::HttpRequest request, http::Waker waker) override;
  std::string_view Route(std::string_view path) const override;

 private:
  struct RouteEntry {
    std::string method;
    std::string pattern;
    AdminFunction function;
    bool slow = false;
  };
  absl::Status Authorize(const http::HttpRequest& request) const;

  mutable Mutex token_mutex_;
  std::string token_digest_ RETICLE_GUARDED_BY(token_mutex_);  // empty: no token
  std::vector<RouteEntry> routes_;
  WorkerPool workers_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_ADMIN_ADMIN_ROUTER_H_
