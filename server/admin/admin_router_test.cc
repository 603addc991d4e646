#include "server/admin/admin_router.h"

#include <atomic>
#include <thread>

#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/http/response_writer.h"

namespace reticle::server {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// The reply as it goes over the wire.
std::string Ask(AdminRouter& router, http::HttpRequest request) {
  std::atomic<bool> woken{false};
  const std::unique_ptr<http::Task> task =
      router.Start(std::move(request), [&woken] { woken.store(true); });
  http::ResponseWriter writer;
  writer.Begin({.request_id = "-"});
  while (task->Produce(writer, 1 << 16) == http::Task::Progress::kWaiting) {
    while (!woken.load()) std::this_thread::yield();
  }
  return writer.buffer();
}

http::HttpRequest Get(std::string path) {
  http::HttpRequest request;
  request.method = "GET";
  request.path = std::move(path);
  return request;
}

AdminReply Joined(const AdminRequest& request) {
  AdminReply reply;
  for (const std::string& parameter : request.parameters) reply.body += parameter + "|";
  return reply;
}

TEST(AdminRouterTest, FindsTheRouteAndItsParameters) {
  AdminRouter router("");
  router.Add("GET", "/admin/{device}/{card}", Joined);
  router.Add("GET", "/admin/fixed", [](const AdminRequest&) { return AdminReply{"fixed"}; });
  router.AddSlow("POST", "/admin/{device}/{card}", [](const AdminRequest& request) {
    return AdminReply{request.body + "!", 202};
  });
  EXPECT_THAT(Ask(router, Get("/admin/a/7")), HasSubstr("\r\n\r\na|7|"));
  EXPECT_THAT(Ask(router, Get("/admin/fixed")), HasSubstr("fixed"));
  EXPECT_THAT(Ask(router, Get("/admin/a")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask(router, Get("/admin/a/7/b")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask(router, Get("/admin//7")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask(router, Get("")), StartsWith("HTTP/1.1 404"));
  http::HttpRequest post = Get("/admin/a/7");
  post.method = "POST";
  post.body = "x";
  EXPECT_THAT(Ask(router, post), StartsWith("HTTP/1.1 202"));
  EXPECT_THAT(Ask(router, post), HasSubstr("x!"));
  post.method = "PUT";
  EXPECT_THAT(Ask(router, post), StartsWith("HTTP/1.1 405"));
  EXPECT_EQ(router.Route("/admin/a/7"), "/admin/{device}/{card}");
  EXPECT_EQ(router.Route("/x"), "unmatched");
}

TEST(AdminRouterTest, ErrorsKeepTheirStatus) {
  AdminRouter router("");
  router.AddSlow("GET", "/admin/fails", [](const AdminRequest&) -> absl::StatusOr<AdminReply> {
    return FailedPreconditionError("the adapter is in use");
  });
  const std::string reply = Ask(router, Get("/admin/fails"));
  EXPECT_THAT(reply, StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(reply, HasSubstr("the adapter is in use"));
}

TEST(AdminRouterTest, AsksForItsToken) {
  AdminRouter router("secret");
  router.Add("GET", "/admin/x", [](const AdminRequest&) { return AdminReply{"{}"}; });
  http::HttpRequest request = Get("/admin/x");
  for (const char* wrong : {"", "secret", "Bearer ", "Bearer secre", "Bearer secret2",
                            "bearer secret", "Basic secret"}) {
    request.authorization = wrong;
    const std::string reply = Ask(router, request);
    EXPECT_THAT(reply, StartsWith("HTTP/1.1 401")) << wrong;
    EXPECT_THAT(reply, HasSubstr("WWW-Authenticate: Bearer\r\n"));
  }
  http::HttpRequest unknown = Get("/admin/y");
  EXPECT_THAT(Ask(router, unknown), StartsWith("HTTP/1.1 401")) << "paths are not told either";
  request.authorization = "Bearer secret";
  request.origin = "http://page.example";
  EXPECT_THAT(Ask(router, request), StartsWith("HTTP/1.1 200"));
}

TEST(AdminRouterTest, WithoutATokenWebPagesAreRefused) {
  AdminRouter router("");
  router.Add("POST", "/admin/x", [](const AdminRequest&) { return AdminReply{"{}"}; });
  http::HttpRequest request = Get("/admin/x");
  request.method = "POST";
  EXPECT_THAT(Ask(router, request), StartsWith("HTTP/1.1 200"));
  request.origin = "http://page.example";
  EXPECT_THAT(Ask(router, request), StartsWith("HTTP/1.1 403"));
}

}  // namespace
}  // namespace reticle::server
