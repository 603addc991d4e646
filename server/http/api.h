// The HTTP API: which path does what.
#ifndef RETICLE_SERVER_HTTP_API_H_
#define RETICLE_SERVER_HTTP_API_H_

#include <memory>
#include <optional>
#include <string_view>

#include "server/core/server_context.h"
#include "server/core/worker_pool.h"
#include "server/http/handler.h"

namespace reticle::server::http {

// Thread-safe. `context`, `workers` and `scrapes` must outlive it and its tasks. Metrics are
// rendered by `scrapes`: neither on an I/O thread, where streams would wait for them, nor behind
// prompts.
class Api : public Handler {
 public:
  Api(ServerContext& context, WorkerPool& workers, WorkerPool& scrapes)
      : context_(context), workers_(workers), scrapes_(scrapes) {}

  std::optional<Refusal> AuthorizeHead(std::string_view method, std::string_view path,
                                       std::string_view authorization,
                                       std::shared_ptr<const Caller>& caller) override;
  std::unique_ptr<Task> Start(HttpRequest request, Waker waker) override;
  std::string_view Route(std::string_view path) const override;

 private:
  ServerContext& context_;
  WorkerPool& workers_;
  WorkerPool& scrapes_;
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_API_H_
