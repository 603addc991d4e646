#include "server/telemetry/http_poster.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <charconv>
#include <chrono>
#include <optional>
#include <utility>

#include "base/status.h"

namespace reticle::server {
namespace {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;
using boost::system::error_code;

constexpr uint64_t kMostReplyBytes = uint64_t{64} << 10;
constexpr std::string_view kScheme = "http://";

}  // namespace

absl::StatusOr<HttpEndpoint> ParseHttpEndpoint(std::string_view url,
                                               std::string_view default_path) {
  if (!url.starts_with(kScheme)) {
    return InvalidArgumentError(
        "\"%s\" is no http://HOST:PORT; for https put a collector beside the server", url);
  }
  std::string_view rest = url.substr(kScheme.size());
  HttpEndpoint endpoint;
  const size_t slash = rest.find('/');
  endpoint.path = slash == std::string_view::npos || slash + 1 == rest.size()
                      ? std::string(default_path)
                      : std::string(rest.substr(slash));
  rest = rest.substr(0, slash);
  const size_t colon = rest.rfind(':');
  const bool has_port = colon != std::string_view::npos && rest.find(']', colon) == rest.npos;
  endpoint.port = has_port ? std::string(rest.substr(colon + 1)) : "80";
  endpoint.host = std::string(rest.substr(0, has_port ? colon : rest.size()));
  if (endpoint.host.size() > 2 && endpoint.host.front() == '[' && endpoint.host.back() == ']') {
    endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
  }
  uint16_t port = 0;
  const char* const end = endpoint.port.data() + endpoint.port.size();
  const auto parsed = std::from_chars(endpoint.port.data(), end, port);
  if (endpoint.host.empty() || parsed.ec != std::errc() || parsed.ptr != end || port == 0) {
    return InvalidArgumentError("\"%s\" has no host, or a port that is none", url);
  }
  return endpoint;
}

struct HttpPoster::Impl {
  explicit Impl(HttpEndpoint to) : endpoint(std::move(to)) {}

  // Runs one asynchronous operation to its end; the stream's expiry bounds it.
  template <typename Begin>
  error_code Run(Begin begin) {
    error_code result = asio::error::would_block;
    begin([&result](error_code error, auto&&...) { result = error; });
    loop.restart();
    loop.run();
    return result;
  }

  error_code Connect(std::chrono::milliseconds timeout) {
    error_code error;
    asio::ip::tcp::resolver resolver(loop);
    const auto found = resolver.resolve(endpoint.host, endpoint.port, error);
    if (error) return error;
    stream.emplace(loop);
    stream->expires_after(timeout);
    return Run([&](auto done) { stream->async_connect(found, done); });
  }

  error_code Exchange(std::string_view content_type, std::string_view body,
                      std::chrono::milliseconds timeout, Reply& reply) {
    beast_http::request<beast_http::string_body> request{beast_http::verb::post, endpoint.path, 11};
    request.set(beast_http::field::host, endpoint.host + ":" + endpoint.port);
    request.set(beast_http::field::user_agent, "reticle");
    request.set(beast_http::field::content_type,
                boost::beast::string_view(content_type.data(), content_type.size()));
    request.body() = std::string(body);
    request.prepare_payload();
    stream->expires_after(timeout);
    error_code error = Run([&](auto done) { beast_http::async_write(*stream, request, done); });
    if (error) return error;
    beast_http::response_parser<beast_http::string_body> parser;
    parser.body_limit(kMostReplyBytes);
    boost::beast::flat_buffer buffer;
    error = Run([&](auto done) { beast_http::async_read(*stream, buffer, parser, done); });
    if (error) return error;
    const auto& message = parser.get();
    reply.status = message.result_int();
    const auto retry = message[beast_http::field::retry_after];
    std::from_chars(retry.data(), retry.data() + retry.size(), reply.retry_after_s);
    if (!message.keep_alive()) stream.reset();
    reply.body = std::move(parser.get().body());
    return {};
  }

  const HttpEndpoint endpoint;
  asio::io_context loop{1};
  std::optional<boost::beast::tcp_stream> stream;  // connected
};

HttpPoster::HttpPoster(HttpEndpoint endpoint)
    : impl_(std::make_unique<Impl>(std::move(endpoint))) {}
HttpPoster::~HttpPoster() = default;

absl::StatusOr<HttpPoster::Reply> HttpPoster::Post(std::string_view content_type,
                                                   std::string_view body, int64_t timeout_ms) {
  const std::chrono::milliseconds timeout(timeout_ms);
  const bool kept = impl_->stream.has_value();
  error_code error;
  for (int attempt = 0; attempt < (kept ? 2 : 1); ++attempt) {
    Reply reply;
    error = impl_->stream.has_value() ? error_code() : impl_->Connect(timeout);
    if (!error) error = impl_->Exchange(content_type, body, timeout, reply);
    if (!error) return reply;
    impl_->stream.reset();
  }
  return UnavailableError("http://%s:%s%s: %s", impl_->endpoint.host, impl_->endpoint.port,
                          impl_->endpoint.path, error.message());
}

}  // namespace reticle::server
