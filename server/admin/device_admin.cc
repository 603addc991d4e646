#include "server/admin/device_admin.h"

#include <charconv>
#include <future>
#include <memory>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"
#include "server/http/json_fields.h"
#include "server/http/json_writer.h"

namespace reticle::server {
namespace {

using http::AppendFloat;
using http::AppendInt;
using http::AppendJsonString;

// Members of a JSON object, one after the other.
class ObjectWriter {
 public:
  explicit ObjectWriter(std::string& out) : out_(out) { out_.push_back('{'); }
  ~ObjectWriter() { out_.push_back('}'); }

  std::string& Key(std::string_view name) {
    if (!first_) out_.push_back(',');
    first_ = false;
    AppendJsonString(out_, name);
    out_.push_back(':');
    return out_;
  }
  void Text(std::string_view name, std::string_view value) { AppendJsonString(Key(name), value); }
  void Int(std::string_view name, uint64_t value) {
    AppendInt(Key(name), static_cast<int64_t>(value));
  }
  void Number(std::string_view name, double value) {
    AppendFloat(Key(name), static_cast<float>(value));
  }

 private:
  std::string& out_;
  bool first_ = true;
};

const char* HealthName(uint32_t state) {
  switch (state) {
    case RETICLE_HEALTH_READY:
      return "ready";
    case RETICLE_HEALTH_DEGRADED:
      return "degraded";
    default:
      return "failed";
  }
}

void AppendStats(std::string& out, const reticle_stats& stats) {
  ObjectWriter object(out);
  object.Int("device_time_ns", stats.device_time_ns);
  object.Int("busy_ns", stats.busy_ns);
  object.Int("prefill_tokens", stats.prefill_tokens);
  object.Int("decode_tokens", stats.decode_tokens);
  object.Number("energy_j", static_cast<double>(stats.energy_uj) * 1e-6);
  object.Number("power_watts", stats.power_watts);
  object.Number("temperature_celsius", stats.temperature_celsius);
  object.Number("utilization", stats.utilization);
  object.Number("slowdown_ratio", stats.slowdown_ratio);
  object.Int("corrected_errors", stats.corrected_errors);
  object.Int("uncorrected_errors", stats.uncorrected_errors);
  object.Int("link_errors", stats.link_errors);
  object.Int("resets", stats.resets);
  object.Int("adapter_swaps", stats.adapter_swaps);
  object.Int("sequences", stats.sequences);
}

void AppendCard(std::string& out, const AdminCard& card) {
  const scheduler::Engine& engine = *card.engine;
  const scheduler::EngineGauges gauges = engine.Gauges();
  ObjectWriter object(out);
  object.Text("device", card.device);
  object.Int("card", card.index);
  object.Text("model", card.model);
  object.Text("state", scheduler::DeviceStateName(engine.device_state()));
  const absl::StatusOr<reticle_health> health = engine.Health();
  object.Text("health", health.ok() ? HealthName(health->state) : "failed");
  object.Text("reason",
              health.ok() ? std::string(health->reason) : std::string(health.status().message()));
  object.Int("running", gauges.running);
  object.Int("waiting", gauges.waiting);
  object.Int("adapter", engine.current_adapter());
  if (const absl::StatusOr<reticle_stats> stats = engine.DeviceStats(); stats.ok()) {
    AppendStats(object.Key("stats"), *stats);
  }
}

absl::StatusOr<const AdminCard*> FindCard(const DeviceAdmin& admin, const AdminRequest& request) {
  const std::string& device = request.parameters[0];
  const std::string& number = request.parameters[1];
  uint32_t index = 0;
  const auto parsed = std::from_chars(number.data(), number.data() + number.size(), index);
  if (parsed.ec == std::errc() && parsed.ptr == number.data() + number.size()) {
    for (const AdminCard& card : admin.cards) {
      if (card.device == device && card.index == index) return &card;
    }
  }
  return NotFoundError("there is no card %s/%s", device.substr(0, 100), number.substr(0, 20));
}

struct Order {
  std::string fault;
  std::string reason;
  std::string name;
  std::string path;
  std::optional<double> scale;
};

// One of the text fields of Order.
template <std::string Order::*kField>
absl::Status ReadText(std::string_view name, const http::Json& value, Order& order) {
  return http::ReadString(name, value, order.*kField);
}

absl::Status ReadScale(std::string_view name, const http::Json& value, Order& order) {
  return http::ReadDouble(name, value, order.scale);
}

absl::StatusOr<AdminReply> ListDevices(const DeviceAdmin& admin) {
  AdminReply reply;
  reply.body = R"({"devices":[)";
  for (size_t i = 0; i < admin.cards.size(); ++i) {
    if (i > 0) reply.body.push_back(',');
    AppendCard(reply.body, admin.cards[i]);
  }
  reply.body += "]}";
  return reply;
}

absl::StatusOr<AdminReply> ShowCard(const AdminCard& card) {
  AdminReply reply;
  AppendCard(reply.body, card);
  return reply;
}

absl::StatusOr<AdminReply> Inject(const AdminCard& card, const std::string& body) {
  constexpr http::Field<Order> kFields[] = {{"fault", &ReadText<&Order::fault>}};
  ASSIGN_OR_RETURN(const Order order, http::ParseFields<Order>(body, kFields));
  if (order.fault.empty()) {
    return WithParam(InvalidArgumentError("fault is missing; it is a text such as \"hang\""),
                     "fault");
  }
  if (!card.inject) return UnimplementedError("device %s has no faults to inject", card.device);
  RETURN_IF_ERROR(card.inject(order.fault));
  return ShowCard(card);
}

absl::StatusOr<AdminReply> Fence(const AdminCard& card, const std::string& body) {
  constexpr http::Field<Order> kFields[] = {{"reason", &ReadText<&Order::reason>}};
  ASSIGN_OR_RETURN(const Order order, http::ParseFields<Order>(body, kFields));
  card.engine->Fence(order.reason.empty() ? "by order of the operator"
                                          : order.reason.substr(0, 200));
  return AdminReply{.body = "{}", .status = 202};
}

// Brings a card back into service and waits for it.
absl::StatusOr<AdminReply> Unfence(const AdminCard& card) {
  auto promise = std::make_shared<std::promise<absl::Status>>();
  std::future<absl::Status> result = promise->get_future();
  card.engine->Unfence([promise](absl::Status status) { promise->set_value(std::move(status)); });
  RETURN_IF_ERROR(result.get());
  return ShowCard(card);
}

absl::StatusOr<AdminReply> Reset(const AdminCard& card) {
  if (card.engine->Lost()) return Unfence(card);
  card.engine->ResetDevice();
  return AdminReply{.body = "{}", .status = 202};
}

void AppendAdapter(std::string& out, const AdminAdapter& adapter) {
  ObjectWriter object(out);
  object.Text("name", adapter.name);
  object.Text("path", adapter.path);
  object.Number("scale", adapter.scale);
}

absl::StatusOr<AdminReply> ListAdapters(const AdapterStore& store) {
  AdminReply reply;
  reply.body = R"({"adapters":[)";
  bool first = true;
  for (const AdminAdapter& adapter : store.List()) {
    if (!first) reply.body.push_back(',');
    first = false;
    AppendAdapter(reply.body, adapter);
  }
  reply.body += "]}";
  return reply;
}

absl::StatusOr<AdminReply> LoadAdapter(AdapterStore& store, const std::string& body) {
  constexpr http::Field<Order> kFields[] = {
      {"name", &ReadText<&Order::name>}, {"path", &ReadText<&Order::path>}, {"scale", &ReadScale}};
  ASSIGN_OR_RETURN(const Order order, http::ParseFields<Order>(body, kFields));
  if (order.name.empty() || order.path.empty()) {
    return InvalidArgumentError("an adapter needs a name and a path");
  }
  const double scale = order.scale.value_or(1.0);
  if (!(scale > -1000 && scale < 1000)) {
    return InvalidArgumentError("scale is %g; it must be between -1000 and 1000", scale);
  }
  const AdminAdapter adapter{order.name, order.path, static_cast<float>(scale)};
  RETURN_IF_ERROR(store.Load(adapter));
  AdminReply reply;
  AppendAdapter(reply.body, adapter);
  return reply;
}

}  // namespace

void AddDeviceRoutes(const DeviceAdmin& admin, AdminRouter& router) {
  const auto card_route =
      [&](std::string method, std::string pattern, bool slow,
          std::function<absl::StatusOr<AdminReply>(const AdminCard&, const AdminRequest&)>
              function) {
        AdminFunction with_card = [&admin, function = std::move(function)](
                                      const AdminRequest& request) -> absl::StatusOr<AdminReply> {
          ASSIGN_OR_RETURN(const AdminCard* card, FindCard(admin, request));
          return function(*card, request);
        };
        if (slow) {
          router.AddSlow(std::move(method), std::move(pattern), std::move(with_card));
        } else {
          router.Add(std::move(method), std::move(pattern), std::move(with_card));
        }
      };
  router.Add("GET", "/admin/devices", [&admin](const AdminRequest&) { return ListDevices(admin); });
  card_route("GET", "/admin/devices/{device}/{card}", false,
             [](const AdminCard& card, const AdminRequest&) { return ShowCard(card); });
  card_route("POST", "/admin/devices/{device}/{card}/fault", true,
             [](const AdminCard& card, const AdminRequest& request) {
               return Inject(card, request.body);
             });
  card_route(
      "POST", "/admin/devices/{device}/{card}/fence", false,
      [](const AdminCard& card, const AdminRequest& request) { return Fence(card, request.body); });
  card_route("POST", "/admin/devices/{device}/{card}/unfence", true,
             [](const AdminCard& card, const AdminRequest&) { return Unfence(card); });
  card_route("POST", "/admin/devices/{device}/{card}/reset", true,
             [](const AdminCard& card, const AdminRequest&) { return Reset(card); });
  if (admin.adapters != nullptr) {
    AdapterStore& store = *admin.adapters;
    router.Add("GET", "/admin/adapters",
               [&store](const AdminRequest&) { return ListAdapters(store); });
    router.AddSlow("POST", "/admin/adapters", [&store](const AdminRequest& request) {
      return LoadAdapter(store, request.body);
    });
    router.AddSlow("DELETE", "/admin/adapters/{name}",
                   [&store](const AdminRequest& request) -> absl::StatusOr<AdminReply> {
                     RETURN_IF_ERROR(store.Unload(request.parameters[0]));
                     return AdminReply{.body = "{}"};
                   });
  }
}

}  // namespace reticle::server
