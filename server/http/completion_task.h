// One request to the chat or completions API, from its body to the last byte of its reply.
#ifndef RETICLE_SERVER_HTTP_COMPLETION_TASK_H_
#define RETICLE_SERVER_HTTP_COMPLETION_TASK_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "server/core/server_context.h"
#include "server/core/worker_pool.h"
#include "server/http/handler.h"

namespace reticle::server::http {

// Bodies above this many bytes are parsed and tokenised by the worker pool, so that they do not
// hold up the other streams of an I/O thread.
inline constexpr size_t kInlineBodyBytes = size_t{16} << 10;

// Which API a request came by: how its body reads, and how replies and errors look.
enum class Dialect : uint8_t {
  kChat,        // OpenAI's chat completions
  kCompletion,  // OpenAI's completions
  kTaalas,      // HC1's own /generate (taalas_json.h)
};

// `context` and `workers` must outlive the task and every job it posted.
std::unique_ptr<Task> StartCompletion(Dialect dialect, HttpRequest request, ServerContext& context,
                                      WorkerPool& workers, Waker waker);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_COMPLETION_TASK_H_
