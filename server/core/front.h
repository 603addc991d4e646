// A network front, as main() sees it.
#ifndef RETICLE_SERVER_CORE_FRONT_H_
#define RETICLE_SERVER_CORE_FRONT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace reticle::server {

// Listening and serving from its creation on. The destructor ends what still runs and joins its
// threads. BeginDrain and busy are thread-safe.
class Front {
 public:
  virtual ~Front() = default;
  // Where clients reach it, with the port that was picked: "http://127.0.0.1:8080".
  virtual std::string address() const = 0;
  // ServerContext::SetReady was called.
  virtual void OnReady() {}
  // Whether load balancers should send requests; told when it changes.
  virtual void OnServing(bool serving) {}
  // ServerContext::AnnounceDrain was called: whoever keeps a connection should look for another.
  virtual void AnnounceDrain() {}
  // ServerContext::BeginDrain was called: take no new calls, let those that run finish.
  virtual void BeginDrain() = 0;
  // Accepts what has arrived and listens no more. Waits for that, a fraction of a second.
  virtual void StopListening() {}
  // Takes over what changed in the files of certificate and key, for connections to come; on an
  // error nothing changes.
  virtual absl::Status ReloadTls() { return absl::OkStatus(); }
  // Calls that are being answered, or whose answer is not yet sent.
  virtual int64_t busy() const = 0;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_FRONT_H_
