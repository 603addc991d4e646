#include "server/grpc/reply_metadata.h"

#include "server/core/error.h"

namespace reticle::server {
namespace {

// Protocol buffers' wire format.
constexpr uint32_t kVarint = 0;
constexpr uint32_t kBytes = 2;

void AppendVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void AppendNumber(std::string& out, uint32_t field, uint64_t value) {
  AppendVarint(out, field << 3 | kVarint);
  AppendVarint(out, value);
}

void AppendBytes(std::string& out, uint32_t field, std::string_view bytes) {
  AppendVarint(out, field << 3 | kBytes);
  AppendVarint(out, bytes.size());
  out.append(bytes);
}

}  // namespace

void AddLimits(ServerContext& server, const Caller* caller, grpc::CallbackServerContext& call) {
  Gate* const gate = server.options().gate;
  if (gate == nullptr || caller == nullptr) return;
  std::string lines;
  gate->AppendHeaders(*caller, lines);
  std::string_view rest = lines;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find("\r\n"));
    rest.remove_prefix(line.size() + 2);
    const size_t colon = line.find(": ");
    call.AddInitialMetadata(std::string(line.substr(0, colon)),
                            std::string(line.substr(colon + 2)));
  }
}

grpc::Status EndOfCall(const absl::Status& status, grpc::CallbackServerContext& call) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorInfo error = DescribeError(status);
  const auto code = static_cast<grpc::StatusCode>(error.grpc_code);
  if (error.retry_after_s == 0) return {code, error.message};
  call.AddTrailingMetadata("retry-after", std::to_string(error.retry_after_s));
  call.AddTrailingMetadata("retry-after-ms", std::to_string(error.retry_after_ms));
  return {code, error.message, RetryDetails(error.grpc_code, error.message, error.retry_after_ms)};
}

std::string RetryDetails(int grpc_code, std::string_view message, int64_t retry_after_ms) {
  std::string duration;
  AppendNumber(duration, 1, static_cast<uint64_t>(retry_after_ms / 1000));
  AppendNumber(duration, 2, static_cast<uint64_t>(retry_after_ms % 1000 * 1'000'000));
  std::string info;
  AppendBytes(info, 1, duration);
  std::string any;
  AppendBytes(any, 1, "type.googleapis.com/google.rpc.RetryInfo");
  AppendBytes(any, 2, info);
  std::string details;
  AppendNumber(details, 1, static_cast<uint64_t>(grpc_code));
  AppendBytes(details, 2, message);
  AppendBytes(details, 3, any);
  return details;
}

}  // namespace reticle::server
